"""The training loss: how surprised the model is by each next token of the right text."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from git_model.config import Style
from git_model.data import Batch
from git_model.model import GIT


def batch_loss(
    model: GIT, batch: Batch, *, smoothing: float = 0.0, style: Style = "huggingface"
) -> Tensor:
    """The sum of the losses of a batch's tokens to predict; see `token_losses`.

    Each picture is read once for all its texts, and the output layer, the largest product of all,
    runs only where a token is to be predicted.
    """
    scene = model.see(batch.pixels)
    hidden = model.decoder(batch.tokens[:, :-1], scene.layers)  # (R, T - 1, D)
    wanted = batch.mask[:, 1:]
    logits = model.decoder.predict(hidden[wanted])  # (batch.n_predicted, V)
    target = batch.tokens[:, 1:][wanted]
    return token_losses(logits, target, smoothing=smoothing, style=style).sum()


def caption_loss(
    logits: Tensor,
    tokens: Tensor,
    mask: Tensor,
    *,
    smoothing: float = 0.0,
    style: Style = "huggingface",
) -> Tensor:
    """The mean loss over the tokens to predict, a single number; see `token_losses`.

    Args:
        logits: (R, T, V), at text positions only; those at t speak about the token at t + 1.
        tokens: (R, T) ids: prompt, answer, padding.
        mask: (R, T), True for the tokens to predict: neither prompt nor padding. The first token
            follows nothing, so its mask is not looked at.
    """
    wanted = mask[:, 1:]
    predicted, target = logits[:, :-1][wanted], tokens[:, 1:][wanted]
    return token_losses(predicted, target, smoothing=smoothing, style=style).mean()


def token_losses(
    logits: Tensor, target: Tensor, *, smoothing: float = 0.0, style: Style = "huggingface"
) -> Tensor:
    """The loss of each token (N,), at least in float32.

    Args:
        logits: (N, V), what the model expected.
        target: (N,), the tokens that came.
        smoothing: how much of the target's weight goes to other words.
        style: `huggingface` spreads it over all words, the right one included, as torch does;
            `microsoft` over the other words, and the loss is the divergence from that target,
            so that a perfect model reaches 0 (the original's SmoothLabelCrossEntropyLoss).
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if style == "huggingface":
        return F.cross_entropy(logits, target, label_smoothing=smoothing, reduction="none")
    words = logits.shape[-1]
    # torch's weight of the others is e / V, the original's e / (V - 1): scale e, and they agree.
    scaled = smoothing * words / (words - 1)
    losses = F.cross_entropy(logits, target, label_smoothing=scaled, reduction="none")
    return losses - _entropy(smoothing, words)


def _entropy(smoothing: float, words: int) -> float:
    """Of a target with 1 - smoothing on one word and the rest spread over the others."""
    if smoothing == 0:
        return 0.0
    rest = smoothing * math.log(smoothing / (words - 1))
    return -rest - (1 - smoothing) * math.log(1 - smoothing)
