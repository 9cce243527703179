"""The training loss: how surprised the model is by each next token of the right text."""

import math

from torch import Tensor
from torch.nn import functional as F

from git_model.config import Style


def caption_loss(
    logits: Tensor,
    tokens: Tensor,
    mask: Tensor,
    *,
    smoothing: float = 0.0,
    style: Style = "huggingface",
) -> Tensor:
    """The mean loss over the tokens to predict, a single number.

    Args:
        logits: (R, T, V), at text positions only; those at t speak about the token at t + 1.
        tokens: (R, T) ids: prompt, answer, padding.
        mask: (R, T), True for the tokens to predict: neither prompt nor padding. The first token
            follows nothing, so its mask is not looked at.
        smoothing: how much of the target's weight goes to other words.
        style: `huggingface` spreads it over all words, the right one included, as torch does;
            `microsoft` over the other words, and the loss is the divergence from that target,
            so that a perfect model reaches 0 (the original's SmoothLabelCrossEntropyLoss).
    """
    wanted = mask[:, 1:]
    predicted = logits[:, :-1][wanted]  # (tokens to predict, V)
    target = tokens[:, 1:][wanted]
    if style == "huggingface":
        return F.cross_entropy(predicted, target, label_smoothing=smoothing)
    words = logits.shape[-1]
    # torch's weight of the others is e / V, the original's e / (V - 1): scale e, and they agree.
    loss = F.cross_entropy(predicted, target, label_smoothing=smoothing * words / (words - 1))
    return loss - _entropy(smoothing, words)


def _entropy(smoothing: float, words: int) -> float:
    """Of a target with 1 - smoothing on one word and the rest spread over the others."""
    if smoothing == 0:
        return 0.0
    rest = smoothing * math.log(smoothing / (words - 1))
    return -rest - (1 - smoothing) * math.log(1 - smoothing)
