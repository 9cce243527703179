"""A linear layer that is quick for a few rows on a CPU.

Writing a text is reading weights: each step multiplies one row a text, or one a beam, by every
matrix of the decoder. Whether the usual x W^T reads them quickly depends on the processor's maker:
torch calls Intel's library, which is tuned for Intel's. So a way is chosen for each maker that was
measured (`python benchmarks/few_rows.py` measures the machine at hand), for others the usual one.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from git_model.devices import CPU_MAKER

BLOCK = 64  # outputs

Way = Callable[[Tensor, Tensor, Tensor], Tensor]  # (rows, I), (O, I), (O,) -> (rows, O)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W^T + b, as `torch.nn.functional.linear`: (..., I) -> (..., O), the weight (O, I)."""
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
