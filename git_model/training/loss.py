"""The training loss: cross-entropy of each next token of the reference text (teacher forcing)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from git_model.config import Style
from git_model.data.collation import Batch
from git_model.model.git import GIT


class LossModule(nn.Module):
    """A model whose forward is the loss: what DDP and FSDP2 need to wrap."""

    def __init__(self, model: GIT, label_smoothing: float) -> None:
        super().__init__()
        self.model = model
        self.label_smoothing = label_smoothing

    def forward(self, batch: Batch) -> Tensor:
        """The sum of the losses of all tokens to predict."""
        style, temporal = self.model.config.style, self.model.temporal_embedding
        loss = batch_loss(self.model, batch, label_smoothing=self.label_smoothing, style=style)
        if temporal is None:
            return loss
        return (
            loss + 0 * temporal.sum()
        )  # DDP expects a gradient of every weight, also without clips


def batch_loss(
    model: GIT, batch: Batch, *, label_smoothing: float = 0.0, style: Style = "huggingface"
) -> Tensor:
    """The sum of the losses of a batch's tokens to predict; see `token_losses`.

    Each image is encoded once for all its texts, and the output layer, the largest matrix product,
    runs only at positions that predict a token.
    """
    scene = model.see(batch.pixels)
    image = scene.layers_for(batch.tokens.shape[0])
    hidden = model.decoder(batch.tokens[:, :-1], image)  # (R, T - 1, D)
    is_target = batch.mask[:, 1:]
    logits = model.decoder.lm_head(hidden[is_target])  # (batch.n_predicted, V)
    target = batch.tokens[:, 1:][is_target]
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
        mask: (R, T), True for the tokens to predict: neither prompt nor padding. Nothing predicts
            the first token, so its mask is ignored.
    """
    is_target = mask[:, 1:]
    logits, target = logits[:, :-1][is_target], tokens[:, 1:][is_target]
    return token_losses(logits, target, label_smoothing=label_smoothing, style=style).mean()


def token_losses(
    logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, style: Style = "huggingface"
) -> Tensor:
    """The cross-entropy of each token (N,), at least in float32.

    Args:
        logits: (N, V).
        target: (N,), the correct tokens.
        label_smoothing: the share of the target distribution that goes to other tokens.
        style: `huggingface` spreads it over all tokens, the correct one included, as torch does;
            `microsoft` over the other tokens, and the loss is the divergence from that target, so
            a perfect model reaches 0 (the original's SmoothLabelCrossEntropyLoss).
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if style == "huggingface":
        return F.cross_entropy(logits, target, label_smoothing=label_smoothing, reduction="none")
    vocab_size = logits.shape[-1]
    # torch gives every other token e / V, the original e / (V - 1): with this e they are equal.
    torch_smoothing = label_smoothing * vocab_size / (vocab_size - 1)
    losses = F.cross_entropy(logits, target, label_smoothing=torch_smoothing, reduction="none")
    return losses - _entropy(label_smoothing, vocab_size)


def _entropy(label_smoothing: float, vocab_size: int) -> float:
    """The entropy of a target with 1 - e on the correct token and e spread over the others."""
    if label_smoothing == 0:
        return 0.0
    rest = label_smoothing * math.log(label_smoothing / (vocab_size - 1))
    return -rest - (1 - label_smoothing) * math.log(1 - label_smoothing)
