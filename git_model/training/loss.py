"""The training loss: cross-entropy of each next token of the reference text (teacher forcing).

The other losses that a recipe can name are in losses.py and scst.py.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from git_model.config import Style
from git_model.data.collation import Batch
from git_model.model.git import GIT, Scene
from git_model.utils.dotted import dotted_name
from git_model.utils.errors import GITError


class LossOutput(NamedTuple):
    """The result of a loss for a batch: sums over the batch's units; see `units_of`."""

    total: Tensor  # what is minimised, a single number
    sums: Mapping[str, Tensor] = {}  # other numbers, whose means are logged


class Loss(Protocol):
    """A loss of a batch, summed over its units: the tokens to predict, or what `units` counts.

    A Python function (model, batch) is enough. Its result must depend only on the model, the batch
    and torch's random numbers, so that a resumed run computes the same. A loss may have a method
    `units(batch)` that returns the number of units of a batch; see `units_of`.
    """

    def __call__(self, model: GIT, batch: Batch) -> Tensor | LossOutput:
        """The sum of the losses of the batch's units."""


def units_of(loss: Loss, batch: Batch) -> int:
    """The number of a batch's units, by which the loss of a step is divided: by default its tokens
    to predict."""
    units = getattr(loss, "units", None)
    return batch.n_predicted if units is None else int(units(batch))


@dataclass(frozen=True)
class CrossEntropy:
    """The loss of `batch_loss`, in the model's style."""

    label_smoothing: float = 0.0

    def __call__(self, model: GIT, batch: Batch) -> Tensor:
        """The sum of the losses of all tokens to predict."""
        smoothing, style = self.label_smoothing, model.config.style
        return batch_loss(model, batch, label_smoothing=smoothing, style=style)


class LossModule(nn.Module):
    """A model whose forward is the loss: what DDP and FSDP2 need to wrap."""

    def __init__(self, model: GIT, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self.__dict__["loss"] = loss  # no submodule: its tensors are not trained

    def forward(self, batch: Batch) -> LossOutput:
        """The sum of the losses of the batch's units.

        Raises:
            GITError: the loss is not a single number.
        """
        loss: Loss = self.__dict__["loss"]
        output = loss(self.model, batch)
        total, sums = output if isinstance(output, LossOutput) else LossOutput(output)
        if not isinstance(total, Tensor) or total.ndim:
            shape = f"shape {tuple(total.shape)}" if isinstance(total, Tensor) else repr(total)[:40]
            raise GITError(f"the loss {dotted_name(loss)} gives {shape}, expected one number")
        if torch.is_grad_enabled() and not total.requires_grad:
            raise GITError(f"the loss {dotted_name(loss)} does not depend on the model's weights")
        temporal = self.model.temporal_embedding
        if temporal is not None:  # DDP expects a gradient of every weight, also without clips
            total = total + 0 * temporal.sum()
        return LossOutput(total, sums)


def scene_of(model: GIT, batch: Batch) -> Scene:
    """The image prefix of a batch, from its pixels or the cached tokens of its encoder."""
    return Scene(model.decoder.prefill(visual_of(model, batch)))


def visual_of(model: GIT, batch: Batch) -> Tensor:
    """The projected image tokens (B, I, D) of a batch."""
    if batch.features is None:
        return model.projector(model.encode(batch.pixels))
    return model.projector(model.with_temporal_embeddings(batch.features))


def predicted(model: GIT, batch: Batch, scene: Scene) -> tuple[Tensor, Tensor]:
    """The logits (N, V) at all positions that predict a token, and those tokens (N,).

    The output layer, the largest matrix product, runs only at these positions.
    """
    image = scene.layers_for(batch.tokens.shape[0])
    hidden = model.decoder(batch.tokens[:, :-1], image)  # (R, T - 1, D)
    is_target = batch.mask[:, 1:]
    return model.decoder.lm_head(hidden[is_target]), batch.tokens[:, 1:][is_target]


def batch_loss(
    model: GIT, batch: Batch, *, label_smoothing: float = 0.0, style: Style = "huggingface"
) -> Tensor:
    """The sum of the losses of a batch's tokens to predict; see `token_losses`.

    Each image is encoded once for all its texts.
    """
    logits, target = predicted(model, batch, scene_of(model, batch))
    return token_losses(logits, target, label_smoothing=label_smoothing, style=style).sum()


def caption_loss(
    logits: Tensor,
    tokens: Tensor,
    mask: Tensor,
    *,
    label_smoothing: float = 0.0,
    style: Style = "huggingface",
) -> Tensor:
    """The mean loss over the tokens to predict, a single number; see `token_losses`.

    Args:
        logits: (R, T, V), at text positions only; those at t predict the token at t + 1.
        tokens: (R, T) ids: prompt, answer, padding.
        mask: (R, T), True for the tokens to predict: neither prompt nor padding. The first token is
            never predicted, so its mask is ignored.
    """
    is_target = mask[:, 1:]
    logits, target = logits[:, :-1][is_target], tokens[:, 1:][is_target]
    return token_losses(logits, target, label_smoothing=label_smoothing, style=style).mean()


def token_losses(
    logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, style: Style = "huggingface"
) -> Tensor:
    """The cross-entropy (N,) of each token, in float32 or better.

    Args:
        logits: (N, V).
        target: (N,), the correct tokens.
        label_smoothing: the share of the target distribution that goes to other tokens.
        style: `huggingface` spreads it over all tokens, the correct one included, as torch does;
            `microsoft` over the other tokens, and the loss is the divergence from that target, so
            a perfect model reaches 0 (the original's SmoothLabelCrossEntropyLoss).
    """
    logits = at_least_float32(logits)
    if style == "huggingface":
        return F.cross_entropy(logits, target, label_smoothing=label_smoothing, reduction="none")
    vocab_size = logits.shape[-1]
    # torch gives every other token e / V, the original e / (V - 1); this e makes them equal.
    torch_smoothing = label_smoothing * vocab_size / (vocab_size - 1)
    losses = F.cross_entropy(logits, target, label_smoothing=torch_smoothing, reduction="none")
    return losses - _entropy(label_smoothing, vocab_size)


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is in float64."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _entropy(label_smoothing: float, vocab_size: int) -> float:
    """The entropy of a target with 1 - e on the correct token and e spread over the others."""
    if label_smoothing == 0:
        return 0.0
    rest = label_smoothing * math.log(label_smoothing / (vocab_size - 1))
    return -rest - (1 - label_smoothing) * math.log(1 - label_smoothing)
