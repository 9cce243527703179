"""A linear layer that is quick for a few rows on a CPU.

Writing a text is reading weights: each step multiplies one row a text, or one a beam, by every
matrix of the decoder. Whether the usual x W^T reads them quickly depends on the processor's maker:
torch calls Intel's library, which is tuned for Intel's. So a way is chosen for each maker that was
measured (`python benchmarks/few_rows.py` measures the machine at hand), for others the usual one.

In bfloat16 a weight may also be kept a second time, in the order in which the library's innermost
loop reads it (`pack`): twice the memory, and up to twice the speed.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from git_model.devices import CPU_MAKER

BLOCK = 64  # outputs
MKLDNN = torch.ops.mkldnn  # not a public part of torch: it may lack what is used here

Way = Callable[[Tensor, Tensor, Tensor], Tensor]  # (rows, I), (O, I), (O,) -> (rows, O)


class Packed(NamedTuple):
    """A weight in oneDNN's own order, and which version of the weight it is a copy of."""

    copy: Tensor
    version: int

    def is_fresh(self, weight: Tensor) -> bool:
        """Whether the weight has not been written to since."""
        return _version_of(weight) == self.version


def _version_of(weight: Tensor) -> int:
    """Grows with each write; torch counts none of tensors that were made for inference only."""
    return 0 if weight.is_inference() else weight._version


def pack(module: nn.Module) -> None:
    """Keep a second copy of the weight of each `Linear` in here, for `pack_weight`'s reasons."""
    for one in module.modules():
        if isinstance(one, Linear):
            pack_weight(one.weight)


def pack_weight(weight: Tensor) -> None:
    """Keep a second copy of a weight (O, I), which `linear` uses outside of training; nothing is
    done where that was not measured to pay: in bfloat16, on a processor of this maker."""
    measured = CPU_MAKER == "AMD" and weight.device.type == "cpu" and weight.dtype == torch.bfloat16
    if measured and torch.backends.mkldnn.is_available() and hasattr(MKLDNN, "_linear_pointwise"):
        copy = MKLDNN._reorder_linear_weight(weight.detach(), 1)
        weight.packed = Packed(copy, _version_of(weight))  # type: ignore[attr-defined]


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W^T + b, as `torch.nn.functional.linear`: (..., I) -> (..., O), the weight (O, I)."""
    packed: Packed | None = getattr(weight, "packed", None)
    if packed is not None and packed.is_fresh(weight) and not torch.is_grad_enabled():
        return MKLDNN._linear_pointwise(x, packed.copy, bias, "none", [], "")
    rows = x.numel() // x.shape[-1]
    way = quickest(rows, x.dtype, CPU_MAKER if x.device.type == "cpu" else x.device.type)
    return way(x.reshape(rows, x.shape[-1]), weight, bias).reshape(*x.shape[:-1], len(weight))


class Linear(nn.Linear):
    """`torch.nn.Linear` with `linear` for its product."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)"""
        return linear(x, self.weight, self.bias)


def quickest(rows: int, dtype: torch.dtype, maker: str) -> Way:
    """The way to take for so many rows on a processor of this maker, with one thread or two."""
    if dtype == torch.float32 and maker == "Intel":
        if 4 <= rows <= 12:
            return in_blocks
        return turned if 12 < rows <= 64 else F.linear
    if dtype == torch.float32 and maker == "AMD":
        return turned if rows <= 64 else F.linear
    if dtype == torch.bfloat16 and maker == "Intel":
        return turned if 2 <= rows <= 512 else F.linear
    return F.linear


def turned(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(W x^T)^T: a library brings the right operand into an order of its own, and x is small."""
    rows = len(x)
    if rows in (1, 3):  # two and four rows are quicker still
        x = F.pad(x, (0, 0, 0, 1))
    return torch.addmm(bias[:, None], weight, x.T).T[:rows]


def in_blocks(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Many products with a part of the outputs each, for which a library leaves W as it is."""
    n_blocks = len(weight) // BLOCK
    whole = n_blocks * BLOCK
    blocks = torch.baddbmm(
        bias[:whole].unflatten(0, (n_blocks, 1, BLOCK)),
        x.expand(n_blocks, -1, -1),
        weight[:whole].unflatten(0, (n_blocks, BLOCK)).mT,
    )  # (blocks, rows, BLOCK)
    rest = F.linear(x, weight[whole:], bias[whole:])
    return torch.cat([blocks.transpose(0, 1).flatten(1), rest], dim=1)
