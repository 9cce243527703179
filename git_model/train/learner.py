"""A model with its loss, as one process learns it or many do together (DDP, FSDP2)."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from git_model.data import Batch
from git_model.loss import batch_loss
from git_model.model import GIT
from git_model.ranks import Ranks


class Learner(nn.Module):
    """A model whose forward is the loss: all that DDP and FSDP2 need to wrap."""

    def __init__(self, model: GIT, smoothing: float) -> None:
        super().__init__()
        self.model = model
        self.smoothing = smoothing

    def forward(self, batch: Batch) -> Tensor:
        """The sum of the losses of a batch's tokens to predict."""
        style, temporal = self.model.config.style, self.model.temporal
        loss = batch_loss(self.model, batch, smoothing=self.smoothing, style=style)
        if temporal is None:
            return loss
        return loss + 0 * temporal.sum()  # pictures, too, have a gradient for all that learns


def spread(learner: Learner, ranks: Ranks, sharding: Literal["none", "fsdp"]) -> nn.Module:
    """The learner as all ranks run it together: gradients become the mean over the ranks.

    none: DDP, every rank holds all weights. fsdp: FSDP2, each rank holds a part of every tensor and
    borrows a block's weights while it computes it. A rank that is alone needs neither.
    """
    if ranks.count == 1:
        return learner
    if sharding == "none":
        return DistributedDataParallel(learner, gradient_as_bucket_view=True)
    from torch.distributed.fsdp import fully_shard  # takes a while, and few need it

    # The last block of the decoder stays with the root: its keys and values of the image are read
    # without its forward, which is where FSDP would fetch the weights.
    for block in (*learner.model.encoder.blocks, *learner.model.decoder.blocks[:-1]):
        fully_shard(block)
    fully_shard(learner)  # in place
    return learner


@contextmanager
def part_of_step(learner: nn.Module, *, last: bool) -> Iterator[None]:
    """For each of a step's batches, forward and backward: gradients travel with the last one."""
    if hasattr(learner, "set_requires_gradient_sync"):  # FSDP2
        learner.set_requires_gradient_sync(last)  # type: ignore[operator]
    if isinstance(learner, DistributedDataParallel) and not last:
        with learner.no_sync():
            yield
    else:
        yield


def recompute_blocks(model: GIT) -> None:
    """Let each block forget what it computed until the way back (gradient checkpointing)."""
    for block in (*model.encoder.blocks, *model.decoder.blocks):
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def nothing_to_learn(model: GIT) -> Batch:
    """A batch for a rank that has fewer than the others, for they wait for its gradients."""
    side = model.config.encoder.image_size
    tokens = torch.tensor([[model.config.bos_id, model.config.eos_id]])
    return Batch(torch.zeros(1, 3, side, side), tokens, torch.zeros_like(tokens).bool())
