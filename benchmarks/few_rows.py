"""Why `git_model/linear.py`: x W^T against (W x^T)^T for a few rows, at GIT-base's sizes.

python benchmarks/few_rows.py
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from git_model.linear import linear

SIZES = {"qkv": (2304, 768), "mlp up": (3072, 768), "mlp down": (768, 3072), "words": (30522, 768)}


def time_of(
    product: Callable[[Tensor, Tensor, Tensor], Tensor],
    rows: int,
    weights: list[Tensor],
    bias: Tensor,
) -> float:
    """Milliseconds a product, the median of nine runs."""
    x = torch.randn(rows, weights[0].shape[1])
    taken = []
    for _ in range(10):
        start = time.perf_counter()
        for weight in weights:
            product(x, weight, bias)
        taken.append(time.perf_counter() - start)
    return 1e3 * statistics.median(taken[1:]) / len(weights)


@torch.inference_mode()
def main() -> None:
    """Print a table of milliseconds a product; weights are too many for the caches."""
    torch.set_num_threads(2)
    print("| matrix | rows | x W^T | (W x^T)^T | ratio |\n|---|---|---|---|---|")
    for name, (out, width) in SIZES.items():
        weights = [torch.randn(out, width) for _ in range(max(1, 4 * 10**7 // (out * width)))]
        bias = torch.randn(out)
        for rows in (1, 4, 8, 32):
            usual, ours = (time_of(f, rows, weights, bias) for f in (F.linear, linear))
            print(f"| {name} | {rows} | {usual:.2f} | {ours:.2f} | {usual / ours:.1f} x |")


if __name__ == "__main__":
    main()
