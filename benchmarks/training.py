"""A training step beside Transformers': five captions of each image, at GIT-base's size.

    python benchmarks/training.py [--images 2] [--captions 5] [--tokens 16] [--runs 5]

This project encodes each image once for all its captions; with Transformers every caption is a row
with a copy of the image. Both start from the same checkpoint with random weights and run the same
complete step (forward, backward, clipping, AdamW) in turn, so that other load on the machine slows
down both. Prints medians, their ratio, and the peak memory of a process that takes one step (on
Linux). Needs the `test` extra.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from results import Table
from torch import nn
from versus_transformers import PEAK

from git_model.data.collation import Batch
from git_model.data.loader import LoaderConfig
from git_model.shapes.source import ShapesData
from git_model.training.loop import Trainer
from git_model.training.recipe import OptimConfig, Recipe
from git_model.utils.distributed import ProcessGroup

LEARNING_RATE = 1e-5
VOCAB_SIZE = 30522


def write_checkpoint(folder: Path) -> None:
    """A checkpoint of GIT-base's size with random weights, as Transformers writes it."""
    from transformers import GitConfig, GitForCausalLM

    torch.manual_seed(0)
    GitForCausalLM(GitConfig(num_hidden_layers=6)).save_pretrained(folder)
    special = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = [*special, *(f"word{n}" for n in range(VOCAB_SIZE - len(special)))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))


def our_step(folder: Path, batch: Batch, device: str = "cpu") -> Callable[[], float]:
    """A step of `git-model train`."""
    learning = OptimConfig(encoder_lr=LEARNING_RATE, decoder_lr=LEARNING_RATE)
    recipe = Recipe(
        checkpoint=str(folder),
        steps=1000,
        data=ShapesData(),
        loader=LoaderConfig(batch_size=len(batch.pixels)),
        learning=learning,
    )
    trainer = Trainer(recipe, ProcessGroup(torch.device(device)))
    return lambda: trainer.step(1, [batch]).loss


def their_step(folder: Path, batch: Batch, device: str = "cpu") -> Callable[[], float]:
    """A step of the usual loop around Transformers' model."""
    from transformers import GitForCausalLM

    model = GitForCausalLM.from_pretrained(folder).train().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    batch = batch.to(device)
    n_captions = len(batch.tokens) // len(batch.pixels)
    pixels = batch.pixels.repeat_interleave(n_captions, dim=0)

    def step() -> float:
        out = model(input_ids=batch.tokens, pixel_values=pixels, labels=batch.tokens)
        optimizer.zero_grad()
        out.loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return out.loss.item()

    return step


def random_batch(images: int, captions: int, tokens: int, vocab_size: int = VOCAB_SIZE) -> Batch:
    """Random images, each with as many random captions; the start token is not learned."""
    torch.manual_seed(1)
    return Batch(
        pixels=torch.randn(images, 3, 224, 224),
        tokens=torch.randint(103, vocab_size, (images * captions, tokens)),
        mask=(torch.arange(tokens) > 0).expand(images * captions, -1),
    )


SIDES = {"this project": our_step, "Transformers": their_step}


def peak_memory(side: str, folder: Path, sizes: tuple[int, int, int]) -> float:
    """Gigabytes that a process takes at most which does one step."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"import training as t; t.torch.set_num_threads({torch.get_num_threads()})\n"
        f"t.SIDES[{side!r}](t.Path({str(folder)!r}), t.random_batch(*{sizes}))()\n"
    )
    command = [sys.executable, "-c", code + PEAK]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return 1024 * int(output.split()[-1]) / 1e9


def seconds(step: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """The time of a step."""
    start = clock()
    step()
    return clock() - start


@click.command()
@click.option("--images", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--captions", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--tokens", default=16, show_default=True, type=click.IntRange(min=2))
@click.option("--runs", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--threads", default=2, show_default=True, type=click.IntRange(min=1))
def main(images: int, captions: int, tokens: int, runs: int, threads: int) -> None:
    """Measure, print and save the table."""
    torch.set_num_threads(threads)
    sizes = images, captions, tokens
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder)
        peaks = [f"{peak_memory(side, folder, sizes):.1f}" for side in SIDES]
        steps = [make(folder, random_batch(*sizes)) for make in SIDES.values()]
    times = [[seconds(step) for step in steps] for _ in range(runs + 1)][1:]
    ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    table = Table("training", ("step", *SIDES, "ratio", "peak memory"))
    row = f"{images} images x {captions} captions of {tokens} tokens"
    ratio = f"{theirs / ours:.1f} x"
    table.add(row, f"{ours:.2f} s", f"{theirs:.2f} s", ratio, f"{' / '.join(peaks)} GB")
    table.save()


if __name__ == "__main__":
    main()
