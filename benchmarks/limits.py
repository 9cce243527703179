"""The least time that this machine needs for a piece of GIT's work: its products and its reading.

    python benchmarks/limits.py [--threads 2]

Encoding is bound by arithmetic, at the rate of a large matrix product; a step of the decoder by
reading the weights. Both rates are measured here. Time for norms, softmax and calls is not counted.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import click
import numpy as np
import torch
from torch import nn

from git_model.model.git import GIT
from git_model.utils.devices import dtype_of

ROWS, WIDTH, HIDDEN = 8 * 197, 768, 3072  # the encoder's largest product for 8 images, GIT-base
READ = 2**26  # float32 numbers, more than any cache holds
REPEATS = 7
SIZES = {"float32": 4, "bfloat16": 2, "int8": 1}  # bytes of a weight


@dataclass(frozen=True)
class Step:
    """A step of the decoder: `tokens` of all rows together, logits for each of `rows`."""

    rows: int
    tokens: int


@dataclass(frozen=True)
class Work:
    """Images that are encoded, and the steps of the decoder after that."""

    n_images: int
    steps: Sequence[Step]


@dataclass(frozen=True)
class Rates:
    """What a machine does in a second: floating point operations (a multiplication and an addition
    are two) in each number format, and bytes that it reads."""

    flop: dict[str, float]
    read: float

    def seconds(self, model: GIT, work: Work, dtype: str) -> float:
        """The least time for this work, each of its parts bound by arithmetic or by reading."""
        costs = [encoding(model, work.n_images), *decoding(model, work)]
        rate, size = self.flop[dtype], SIZES[dtype]
        return sum(max(flop / rate, numbers * size / self.read) for flop, numbers in costs)


def encoding(model: GIT, n_images: int) -> tuple[float, float]:
    """Operations and weights of the encoder and of the decoder's pass over the image tokens, whose
    last layer computes keys and values only."""
    encoder, decoder = model.config.encoder, model.config.decoder
    n_tokens = image_tokens(model)
    unused = weights(model.decoder.blocks[-1]) - 2 * decoder.width**2
    used = weights(model) - weights(model.decoder.lm_head) - unused
    pairs = n_tokens**2 * (encoder.layers * encoder.width + (decoder.layers - 1) * decoder.width)
    return n_images * (2 * n_tokens * used + 4 * pairs), used


def decoding(model: GIT, work: Work) -> list[tuple[float, float]]:
    """Operations and numbers read of each step: weights, keys and values of images and texts."""
    decoder = model.config.decoder
    layers = sum(map(weights, model.decoder.blocks))
    head = weights(model.decoder.lm_head)
    cache = 2 * decoder.layers * decoder.width  # keys and values of a token
    costs, length = [], 0.0
    for step in work.steps:
        length += step.tokens / step.rows
        products = 2 * (step.tokens * layers + step.rows * head)
        attention = 2 * step.tokens * cache * (image_tokens(model) + length)
        read = cache * (work.n_images * image_tokens(model) + step.rows * length)
        costs.append((products + attention, layers + head + read))
    return costs


def image_tokens(model: GIT) -> int:
    """Tokens of an image: the patches, and the class token."""
    return model.config.encoder.grid**2 + 1


def weights(module: nn.Module) -> int:
    """The number of weights in its matrix products, the patch embedding among them."""
    layers = (part for part in module.modules() if isinstance(part, nn.Linear | nn.Conv2d))
    return sum(layer.weight.numel() for layer in layers)


def measure() -> Rates:
    """The rates of this machine, with as many threads as torch has. int8 is measured in ONNX
    Runtime, bfloat16 only where the processor computes in it."""
    products = {"float32": torch_product(torch.float32), "int8": int8_product()}
    if dtype_of("auto", torch.device("cpu")) is torch.bfloat16:
        products["bfloat16"] = torch_product(torch.bfloat16)
    flop = {name: 2 * ROWS * WIDTH * HIDDEN / fastest(run) for name, run in products.items()}
    numbers = torch.ones(READ)
    return Rates(flop, numbers.nbytes / fastest(numbers.sum))


def torch_product(dtype: torch.dtype) -> Callable[[], object]:
    """torch's matrix product."""
    a, b = torch.randn(ROWS, WIDTH, dtype=dtype), torch.randn(WIDTH, HIDDEN, dtype=dtype)
    return lambda: a @ b


def int8_product() -> Callable[[], object]:
    """ONNX Runtime's, of uint8 activations and int8 weights."""
    import onnx.parser
    import onnxruntime

    model = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : 20]> product (uint8[{ROWS}, {WIDTH}] a, '
        f"int8[{WIDTH}, {HIDDEN}] b) => (int32[{ROWS}, {HIDDEN}] c) {{ c = MatMulInteger(a, b) }}"
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    rng = np.random.default_rng(0)
    inputs = {
        "a": rng.integers(0, 128, (ROWS, WIDTH), dtype=np.uint8),
        "b": rng.integers(-64, 64, (WIDTH, HIDDEN), dtype=np.int8),
    }
    return lambda: session.run(None, inputs)


def fastest(run: Callable[[], object]) -> float:
    """The shortest time of several runs: other load on the machine only makes a run longer."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


@click.command()
@click.option("--threads", default=2, show_default=True, type=click.IntRange(min=1))
def main(threads: int) -> None:
    """Print the rates."""
    torch.set_num_threads(threads)
    rates = measure()
    for dtype, flop in rates.flop.items():
        print(f"{dtype}: {flop / 1e9:.0f} billion operations a second")
    print(f"reads {rates.read / 1e9:.1f} GB a second")


if __name__ == "__main__":
    main()
