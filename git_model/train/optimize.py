"""From gradients to new weights: who learns how fast, the schedule, a running average."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from git_model.model import GIT
from git_model.settings import GITError
from git_model.train.recipe import Learning, Recipe

FUSED = ("cpu", "cuda", "mps")  # devices on which torch updates a tensor in one go


def freeze(model: GIT, parts: Iterable[str]) -> None:
    """Keep these parts of the model from learning.

    Raises:
        GITError: the model has no such part, or nothing else that could learn.
    """
    for name in parts:
        part = getattr(model, name)
        if part is None:
            raise GITError(f"frozen has {name}, but this model has none: leave it out")
        part.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise GITError("frozen has every part of the model: nothing is left to learn")


def make_optimizer(model: GIT, learning: Learning) -> torch.optim.AdamW:
    """AdamW over all that learns."""
    fused = model.decoder.output_bias.device.type in FUSED
    groups = parameter_groups(model, learning)
    return torch.optim.AdamW(groups, betas=learning.betas, fused=fused)


def parameter_groups(model: GIT, learning: Learning) -> list[dict[str, Any]]:
    """Every parameter that learns once, by its learning rate and by whether it decays.

    Weights that multiply decay. Norms, biases, embeddings, positions and the class token do not:
    they are added or looked up, and a smaller one is no simpler.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = learning.encoder_lr if name.startswith("encoder.") else learning.decoder_lr
        added = any(part in name for part in ("token", "position", "temporal"))
        decay = 0.0 if added or parameter.ndim < 2 else learning.weight_decay
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "highest_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def schedule(step: int, recipe: Recipe) -> float:
    """The share of the highest learning rates at a step, counted from 1: up a line, down a cosine.

    Source: paper, section 4.1 (a cosine to 0).
    """
    warmup = recipe.learning.warmup_steps
    if step <= warmup:
        return step / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / (recipe.steps - warmup))


def update(optimizer: torch.optim.Optimizer, share: float, clip_norm: float) -> float:
    """A step at this share of the highest rates, unless the gradient is not finite.

    Returns:
        the length of the gradient, of all parameters together, before it was clipped.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    length = whole(nn.utils.clip_grad_norm_(parameters, clip_norm)).item()
    if math.isfinite(length):
        for group in optimizer.param_groups:
            group["lr"] = share * group["highest_lr"]
        optimizer.step()
    optimizer.zero_grad()
    return length


class Average:
    """A running average of a model's weights, often a better model than the last weights are.

    At every step it keeps the share `keep` of itself, but in the first steps less, so that random
    first weights are soon forgotten (as in TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, model: GIT, keep: float) -> None:
        self._keep = keep
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: GIT, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        keep = min(self._keep, step / (step + 9))
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                self.weights[name].lerp_(parameter.detach(), 1 - keep)


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each process may hold a part (FSDP2), whole; all ask at the same time."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
