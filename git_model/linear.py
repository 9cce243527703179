"""A linear layer that is quick for a few rows on a CPU.

Writing a text is reading weights: each step multiplies one row a text, or one a beam, by every
matrix of the decoder. Whether the usual x W^T reads them quickly depends on the processor's maker:
torch calls Intel's library MKL, which is tuned for Intel's. So a way is chosen for each maker that
was measured (`python benchmarks/few_rows.py` measures the machine at hand), for others the usual
one, and so in training.

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
# oneDNN, the other library that torch brings; torch's operators for it are not public, and may go.
ONEDNN = torch.ops.mkldnn
HAS_ONEDNN = torch.backends.mkldnn.is_available() and all(
    hasattr(ONEDNN, name) for name in ("_linear_pointwise", "_reorder_linear_weight")
)

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
    """`pack_weight` for each `Linear` in a module."""
    for one in module.modules():
        if isinstance(one, Linear):
            pack_weight(one.weight)


def pack_weight(weight: Tensor) -> None:
    """Keep a second copy of a weight (O, I), which `linear` uses outside of training; nothing is
    done where that was not measured to pay: in bfloat16, on a processor of this maker."""
    measured = CPU_MAKER == "AMD" and weight.device.type == "cpu" and weight.dtype == torch.bfloat16
    if measured and HAS_ONEDNN:
        copy = ONEDNN._reorder_linear_weight(weight.detach(), 1)
        weight.packed = Packed(copy, _version_of(weight))  # type: ignore[attr-defined]


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W^T + b, as `torch.nn.functional.linear`: (..., I) -> (..., O), the weight (O, I)."""
    rows = x.numel() // x.shape[-1]
    flat = x.reshape(rows, x.shape[-1])
    packed: Packed | None = getattr(weight, "packed", None)
    if torch.is_grad_enabled() or rows == 0:
        product = F.linear(flat, weight, bias)
    elif packed is not None and packed.is_fresh(weight):
        product = onednn(flat, packed.copy, bias)
    else:
        maker = CPU_MAKER if x.device.type == "cpu" else x.device.type
        product = quickest(rows, x.dtype, maker)(flat, weight, bias)
    return product.reshape(*x.shape[:-1], len(bias))


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
        if rows == 2:
            return turned
        return onednn if HAS_ONEDNN else F.linear
    if dtype == torch.bfloat16 and maker == "Intel":
        return turned if 2 <= rows <= 512 else F.linear
    return F.linear


def turned(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(W x^T)^T: a library brings the right operand into an order of its own, and x is small."""
    rows = len(x)
    if rows in (1, 3):  # two and four rows are quicker still
        x = F.pad(x, (0, 0, 0, 1))
    return torch.addmm(bias[:, None], weight, x.T).T[:rows]


def onednn(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W^T by the other library, which knows no gradients."""
    return ONEDNN._linear_pointwise(x, weight, bias, "none", [], "")


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
