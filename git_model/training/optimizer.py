"""AdamW with parameter groups, the learning-rate schedule, clipping, and the moving average."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from git_model.model.git import GIT
from git_model.training.recipe import OptimConfig, Recipe
from git_model.utils.errors import GITError

FUSED = ("cpu", "cuda", "mps")  # devices for which torch has a fused AdamW
EMBEDDINGS = ("token", "position", "temporal_embedding")  # in names of weights that are added


def freeze(model: GIT, parts: Iterable[str]) -> None:
    """Exclude these parts of the model from training.

    Raises:
        GITError: the model has no such part, or nothing else to train.
    """
    for name in parts:
        part = getattr(model, name)
        if part is None:
            raise GITError(f"frozen has {name}, but this model has none: leave it out")
        part.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise GITError("frozen has every part of the model: nothing is left to train")


def make_optimizer(model: GIT, learning: OptimConfig) -> torch.optim.AdamW:
    """AdamW over all trained parameters."""
    fused = model.device.type in FUSED
    groups = parameter_groups(model, learning)
    return torch.optim.AdamW(groups, betas=learning.betas, fused=fused)


def parameter_groups(model: GIT, learning: OptimConfig) -> list[dict[str, Any]]:
    """Every trained parameter once, by its learning rate and weight decay.

    Weight matrices decay. Norms, biases, embeddings and the class token do not.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = learning.encoder_lr if name.startswith("encoder.") else learning.decoder_lr
        is_embedding = any(part in name for part in EMBEDDINGS)
        decay = 0.0 if is_embedding or parameter.ndim < 2 else learning.weight_decay
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def schedule(step: int, recipe: Recipe) -> float:
    """The share of the peak learning rates at a step, counted from 1: linear warm-up, then cosine
    decay.

    Source: paper, section 4.1 (a cosine to 0).
    """
    warmup = recipe.learning.warmup_steps
    if step <= warmup:
        return step / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / (recipe.steps - warmup))


def update(optimizer: torch.optim.Optimizer, lr_share: float, max_grad_norm: float) -> float:
    """A step at this share of the peak learning rates, unless the gradient is not finite.

    Returns:
        the gradient norm, of all parameters together, before clipping.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    grad_norm = full_tensor(nn.utils.clip_grad_norm_(parameters, max_grad_norm)).item()
    if math.isfinite(grad_norm):
        for group in optimizer.param_groups:
            group["lr"] = lr_share * group["peak_lr"]
        optimizer.step()
    optimizer.zero_grad()
    return grad_norm


class EMA:
    """An exponential moving average of a model's trained weights; often better than the last ones.

    The decay is smaller in the first steps, so that random initial weights soon have no share in it
    (as in TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, model: GIT, decay: float) -> None:
        self._decay = decay
        trained = ((name, p) for name, p in model.named_parameters() if p.requires_grad)
        self.weights = {name: p.detach().clone() for name, p in trained}

    @torch.no_grad()
    def update(self, model: GIT, step: int) -> None:
        """Add the weights after a step, counted from 1."""
        decay = min(self._decay, step / (step + 9))
        for name, parameter in model.named_parameters():
            if name in self.weights:
                self.weights[name].lerp_(parameter.detach(), 1 - decay)


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be sharded over processes (FSDP2); all call together."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
