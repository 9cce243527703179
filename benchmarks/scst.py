"""A step of self-critical training with 5 samples an image, at GIT-base's size, beside the same
step that repeats the image.

    python benchmarks/scst.py [--images 2] [--samples 5] [--tokens 16] [--runs 3]

The step of this project encodes an image once: its samples and the rows of the gradient pass share
the scene. The usual step repeats the pixels for every sample, encodes all of them to sample,
without gradient, and again for the gradient. Both take the same model with random weights, the
same loss and the same AdamW; a sample ends after --tokens, since random weights hardly ever end a
text. Steps run in turn, so that other load on the machine slows down both. The table has medians
and their ratio.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable

import click
import torch
from results import Table
from training import seconds

from git_model.config import DecodingOptions, GITConfig, named_config
from git_model.data.collation import Batch
from git_model.evaluation.metrics import DocumentFrequencies
from git_model.generation.generate import generate
from git_model.model.git import GIT, Scene
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.loss import LossOutput
from git_model.training.recipe import ScstConfig
from git_model.training.scst import Scst, sequence_logprobs

VOCAB_SIZE = 30522
CAPTIONS = 5  # reference captions of an image
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"word{n}" for n in range(VOCAB_SIZE - 4))]


def base_config() -> GITConfig:
    """GIT-base with the special tokens of the vocabulary above."""
    return dataclasses.replace(named_config("git_base"), bos_id=2, eos_ids=(3,), pad_id=0)


def batch_of(images: int, side: int) -> Batch:
    """Random images with random captions of ten words."""
    rows = images * CAPTIONS
    tokens = torch.randint(4, VOCAB_SIZE, (rows, 12))
    tokens[:, 0], tokens[:, -1] = 2, 3
    mask = (torch.arange(12) > 0).repeat(rows, 1)
    return Batch(torch.randn(images, 3, side, side), tokens, mask)


class Repeating(Scst):
    """The usual step: a row of pixels for each sample, encoded to sample and again to learn."""

    def __call__(self, model: GIT, batch: Batch) -> LossOutput:
        """As `Scst`, with every image repeated."""
        k = self.config.samples
        pixels = batch.pixels.repeat_interleave(k, dim=0)
        references = self.references(batch)
        model.eval()
        with torch.no_grad():
            sampled = self.sample_each(model, model.see(pixels))
        rows = [sampled[first : first + k] for first in range(0, len(sampled), k)]
        rewards = self.rewards(rows, references)
        baseline = (rewards.sum(1, keepdim=True) - rewards) / (k - 1)
        logprobs = sequence_logprobs(model, model.see(pixels), sampled)
        advantage = (rewards - baseline).to(logprobs)
        return LossOutput(-(advantage * logprobs.view_as(advantage)).mean(1).sum())

    def sample_each(self, model: GIT, scene: Scene) -> list[list[int]]:
        """A sample for each image."""
        seed = int(torch.randint(2**31, ()))
        limit = self.config.max_new_tokens
        options = DecodingOptions(max_new_tokens=limit, do_sample=True, seed=seed)
        texts = generate(model, scene, [[model.config.bos_id]] * len(scene), options)
        return [text.tokens for (text,) in texts]


def step_of(loss: Scst, model: GIT, batch: Batch) -> Callable[[], float]:
    """A complete step: samples, rewards, gradient, clipping, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step() -> float:
        torch.manual_seed(0)
        total = loss(model, batch).total / len(batch.pixels)
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return total.item()

    return step


@click.command()
@click.option("--images", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--samples", default=5, show_default=True, type=click.IntRange(min=2))
@click.option("--tokens", default=16, show_default=True, type=click.IntRange(min=1))
@click.option("--runs", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--threads", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--cpu-time", is_flag=True, help="Measure processor time, on a busy machine.")
def main(images: int, samples: int, tokens: int, runs: int, threads: int, cpu_time: bool) -> None:
    """Measure, print and save the table."""
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    model = GIT(base_config())
    batch = batch_of(images, model.config.encoder.image_size)
    config = ScstConfig(samples=samples, max_new_tokens=tokens)
    tokenizer = Tokenizer.from_vocab(WORDS)
    counted = DocumentFrequencies.of([[["word1"]], [["word2"]]])
    clock = time.process_time if cpu_time else time.perf_counter
    losses = Scst(config, tokenizer, counted), Repeating(config, tokenizer, counted)
    steps = [step_of(loss, model, batch) for loss in losses]
    times = [[seconds(step, clock) for step in steps] for _ in range(runs + 1)][1:]
    shared, repeated = (statistics.median(column) for column in zip(*times, strict=True))
    table = Table("scst", ("step", "one scene", "image repeated", "ratio"))
    kind = ", processor time" if cpu_time else ""
    row = f"{images} x {samples} samples of {tokens} tokens{kind}"
    table.add(row, f"{shared:.1f} s", f"{repeated:.1f} s", f"{repeated / shared:.1f} x")
    table.save()


if __name__ == "__main__":
    main()
