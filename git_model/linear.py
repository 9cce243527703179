"""A linear layer that is quick for a few rows on a CPU.

Writing a text is reading weights: each step multiplies one row a text, or one a beam, by every
matrix of the decoder. The usual x W^T reads them at half of the memory's speed or less there; the
same product written as (W x^T)^T reads them at nearly all of it (benchmarks/few_rows.py).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW = 64  # rows up to which it pays, with two threads and with one


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W^T + b, as `torch.nn.functional.linear`: (..., I) -> (..., O), the weight (O, I)."""
    rows = x.numel() // x.shape[-1]
    if rows > FEW or x.dtype != torch.float32 or x.device.type != "cpu":
        return F.linear(x, weight, bias)
    flat = x.reshape(rows, -1)
    if rows in (1, 3):  # two and four rows are quicker still
        flat = F.pad(flat, (0, 0, 0, 1))
    product = torch.addmm(bias[:, None], weight, flat.T)  # (O, rows)
    return product.T[:rows].reshape(*x.shape[:-1], len(weight))


class Linear(nn.Linear):
    """`torch.nn.Linear` with `linear` for its product."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)"""
        return linear(x, self.weight, self.bias)
