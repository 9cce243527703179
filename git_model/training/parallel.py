"""A loss module on one process or many (DDP, FSDP2), and activation checkpointing."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from git_model.data.collation import Batch
from git_model.model.git import GIT
from git_model.training.loss import LossModule
from git_model.utils.distributed import ProcessGroup


def parallelize(
    module: LossModule, group: ProcessGroup, sharding: Literal["none", "fsdp"]
) -> nn.Module:
    """The loss module for several processes, which average their gradients.

    Args:
        sharding: "none": DDP, every process holds all weights; "fsdp": FSDP2, each process holds a
            part of every tensor and gathers the weights of a block while it computes the block. A
            single process needs neither.
    """
    if group.size == 1:
        return module
    if sharding == "none":
        return DistributedDataParallel(module, gradient_as_bucket_view=True)
    shard(module)
    return module


def shard(module: LossModule) -> None:
    """Shard a loss module in place, block by block, over all processes (FSDP2)."""
    from torch.distributed.fsdp import fully_shard  # takes a while to import

    for block in transformer_blocks(module.model):
        fully_shard(block)
    fully_shard(module)


@contextmanager
def gradient_sync(module: nn.Module, *, last: bool) -> Iterator[None]:
    """A context for forward and backward of each batch of a step: gradients are reduced only after
    the last batch."""
    if hasattr(module, "set_requires_gradient_sync"):  # FSDP2
        module.set_requires_gradient_sync(last)  # type: ignore[operator]
    if isinstance(module, DistributedDataParallel) and not last:
        with module.no_sync():
            yield
    else:
        yield


def checkpoint_activations(model: GIT) -> None:
    """Recompute each block's activations in the backward pass: less memory, more time."""
    for block in transformer_blocks(model):
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def transformer_blocks(model: GIT) -> list[nn.Module]:
    """The blocks of both towers; an encoder of another kind may have none."""
    return [*getattr(model.encoder, "blocks", ()), *model.decoder.blocks]


def empty_batch(model: GIT) -> Batch:
    """A batch without tokens to predict, for a process that has fewer batches than another, so that
    both take part in every reduction of gradients."""
    side = model.config.encoder.image_size
    tokens = torch.tensor([[model.config.bos_id, model.config.eos_id]])
    return Batch(torch.zeros(1, 3, side, side), tokens, torch.zeros_like(tokens).bool())
