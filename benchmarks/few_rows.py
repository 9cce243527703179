"""Time the kernels of git_model/utils/kernels.py for few rows, at GIT-base's sizes.

    python benchmarks/few_rows.py [--dtype bfloat16] [--threads 2]

Bold is the kernel that `fastest` in that file chooses. If another kernel is much faster on your
processor, change `fastest`.
"""

import statistics
import time

import click
import torch
from torch import Tensor
from torch.nn import functional as F

from git_model.utils.devices import CPU_MAKER
from git_model.utils.kernels import HAS_ONEDNN, Kernel, blocked, fastest, onednn, transposed

SIZES = {"qkv": (2304, 768), "mlp up": (3072, 768), "mlp down": (768, 3072), "words": (30522, 768)}
WAYS: dict[str, Kernel] = {"x W^T": F.linear, "(W x^T)^T": transposed, "in blocks": blocked}
if HAS_ONEDNN:
    WAYS["oneDNN"] = onednn


def time_of(kernel: Kernel, rows: int, weights: list[Tensor], bias: Tensor) -> float:
    """Milliseconds a product, the median of nine runs."""
    x = torch.randn(rows, weights[0].shape[1], dtype=bias.dtype)
    taken = []
    for _ in range(10):
        start = time.perf_counter()
        for weight in weights:
            kernel(x, weight, bias)
        taken.append(time.perf_counter() - start)
    return 1e3 * statistics.median(taken[1:]) / len(weights)


@click.command()
@click.option("--dtype", default="float32", type=click.Choice(["float32", "bfloat16"]))
@click.option("--threads", default=2, show_default=True, type=click.IntRange(min=1))
@torch.inference_mode()
def main(dtype: str, threads: int) -> None:
    """Print a table of milliseconds a product; the weights are too many for the inner caches."""
    torch.set_num_threads(threads)
    number = getattr(torch, dtype)
    print(f"| {CPU_MAKER or 'unknown maker'}, {dtype} | rows | {' | '.join(WAYS)} |")
    print("|---" * (2 + len(WAYS)) + "|")
    for name, (out, width) in SIZES.items():
        n_weights = max(2, 4 * 10**7 // (out * width))
        weights = [torch.randn(out, width, dtype=number) for _ in range(n_weights)]
        bias = torch.randn(out, dtype=number)
        for rows in (1, 2, 4, 8, 16, 64, 200, 1600):
            cells = []
            for kernel in WAYS.values():
                text = f"{time_of(kernel, rows, weights, bias):.2f}"
                chosen = kernel is fastest(rows, number, CPU_MAKER)
                cells.append(f"**{text}**" if chosen else text)
            print(f"| {name} | {rows} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
