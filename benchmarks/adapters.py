"""A training step of adapters beside one of the whole model: time and memory, at GIT-base's size.

    python benchmarks/adapters.py [--images 2] [--tokens 16] [--runs 3] [--threads 2] [--cpu-time]

Every arm runs the same complete step (forward, backward, clipping, AdamW) on one batch, in turn, so
that other load on the machine slows down all. Weights are random. Prints medians, and two exact
counts of bytes: what AdamW keeps of each trained weight (a gradient and two moments), and the
activations that the forward pass keeps for the backward pass. The weights themselves need memory in
addition. Needs the extra `peft`.
"""

import statistics
import time
from dataclasses import dataclass

import click
import torch
from results import Table
from scst import WORDS, base_config
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from training import random_batch, seconds

from git_model.checkpoints.adapters import AdapterConfig
from git_model.data.collation import Batch
from git_model.data.loader import LoaderConfig
from git_model.model.git import GIT
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.shapes.source import ShapesData
from git_model.training.loop import Trainer
from git_model.training.recipe import OptimConfig, Recipe
from git_model.utils.distributed import ProcessGroup

FLOAT_BYTES = 4
ARMS = {
    "all": None,
    "LoRA, rank 8, every attention": AdapterConfig(),
    "DoRA, the same": AdapterConfig(kind="dora"),
    "LoRA, rank 8, `last = 2`": AdapterConfig(last=2),
}


@dataclass
class Arm:
    """What is trained: a trainer and its measurements."""

    name: str
    trainer: Trainer
    times: list[float]

    @property
    def n_trained(self) -> int:
        """The number of trained weights."""
        parameters = self.trainer.model.parameters()
        return sum(weight.numel() for weight in parameters if weight.requires_grad)

    @property
    def optimizer_bytes(self) -> int:
        """Bytes of the gradients and of the optimizer's state; after a step."""
        moments = sum(
            value.nbytes
            for state in self.trainer.optimizer.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        )
        return FLOAT_BYTES * self.n_trained + moments


def arm_of(name: str, adapter: AdapterConfig | None, images: int) -> Arm:
    """A model of GIT-base's size with random weights, and its trainer."""
    recipe = Recipe(
        checkpoint="random",  # not opened: the initializer below makes the model
        steps=1000,
        data=ShapesData(),
        loader=LoaderConfig(batch_size=images),
        learning=OptimConfig(encoder_lr=1e-5, decoder_lr=1e-5),
        adapter=adapter,
    )

    def initializer(_: Recipe) -> tuple[GIT, Tokenizer]:
        return GIT(base_config()), Tokenizer.from_vocab(WORDS)

    return Arm(name, Trainer(recipe, ProcessGroup(torch.device("cpu")), initializer), [])


def activation_bytes(trainer: Trainer, batch: Batch) -> int:
    """Bytes that a step's forward pass keeps for its backward pass, without the weights."""
    weights = {weight.untyped_storage().data_ptr() for weight in trainer.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        trainer.step(1, [batch])
    return sum(kept.values())


@click.command()
@click.option("--images", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--tokens", default=16, show_default=True, type=click.IntRange(min=2))
@click.option("--runs", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--threads", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--cpu-time", is_flag=True, help="Measure processor time, on a busy machine.")
def main(images: int, tokens: int, runs: int, threads: int, cpu_time: bool) -> None:
    """Measure, print and save the table."""
    torch.set_num_threads(threads)
    batch = random_batch(images, 1, tokens, len(WORDS))
    arms = [arm_of(name, adapter, images) for name, adapter in ARMS.items()]
    activations = [activation_bytes(arm.trainer, batch) for arm in arms]  # and a first step
    clock = time.process_time if cpu_time else time.perf_counter
    for _ in range(runs):
        for arm in arms:
            arm.times.append(seconds(lambda arm=arm: arm.trainer.step(1, [batch]), clock))
    step = f"step of {images} images" + (", processor time" if cpu_time else "")
    heads = ("trained", "weights", "checkpoint", "gradients and moments", "activations", step)
    table = Table("adapters", (*heads, "of the first row's"))
    full = statistics.median(arms[0].times)
    for arm, kept in zip(arms, activations, strict=True):
        duration = statistics.median(arm.times)
        sizes = (FLOAT_BYTES * arm.n_trained, arm.optimizer_bytes, kept)
        cells = [f"{size / 1e6:,.1f} MB" for size in sizes]
        table.add(
            arm.name, f"{arm.n_trained:,}", *cells, f"{duration:.2f} s", f"{duration / full:.2f} x"
        )
    table.save()


if __name__ == "__main__":
    main()
