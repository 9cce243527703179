"""The optimizer with its parameter groups, the learning-rate schedule, clipping, and the moving
average."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from git_model.model.git import GIT
from git_model.training.recipe import OptimConfig, Recipe
from git_model.utils.dotted import call_object, dotted_name, own_code
from git_model.utils.errors import GITError

FUSED = ("cpu", "cuda", "mps")  # devices for which torch has a fused AdamW
BLOCK = re.compile(r"(.*?\bblocks\.\d+)\.")  # the outermost block in a parameter's name
ParameterGroups = list[dict[str, Any]]
MakeOptimizer = Callable[[ParameterGroups], torch.optim.Optimizer]


def freeze(model: GIT, learning: OptimConfig) -> None:
    """Freeze the parts and the first blocks of the model that the recipe names.

    Raises:
        GITError: the model has no such part, or nothing is left to train.
    """
    for name in learning.frozen:
        part = getattr(model, name)
        if part is None:
            raise GITError(f"frozen has {name}, but this model has none: leave it out")
        part.requires_grad_(False)
    for name in ("encoder", "decoder"):
        last = getattr(learning, f"{name}_last")
        if last is not None:
            _freeze_first_blocks(model, name, last)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise GITError("frozen has every part of the model: nothing is left to train")


def _freeze_first_blocks(model: GIT, part: str, last: int) -> None:
    """Train only the last blocks of the encoder or the decoder, and the layers after them.

    Args:
        part: "encoder" or "decoder".
        last: the number of trained blocks; 0: only the layers after them are trained.

    Raises:
        GITError: the part has fewer blocks than `last`, or none at all.
    """
    named = list(getattr(model, part).named_parameters())
    depths, n_blocks = _depths([name for name, _ in named])
    _require_blocks(n_blocks, part, f"{part}_last")
    if not 0 <= last <= n_blocks:
        raise GITError(
            f"{part}_last is {last}, but the {part} has {n_blocks} blocks: expected at most as many"
        )
    for (_, parameter), depth in zip(named, depths, strict=True):
        if depth <= n_blocks - last:
            parameter.requires_grad_(False)


def _depths(names: Sequence[str]) -> tuple[list[int], int]:
    """The depth of each parameter of a tower, and its number of blocks.

    The depth is 0 before the blocks, 1 in the first block, and so on, through all stages of a tower
    that has its blocks in stages. Layers between two blocks, such as a stage's downsampling, have
    the depth of the next one. The layers after the blocks are one deeper than the last block.

    Args:
        names: in the order of the modules.
    """
    blocks: dict[str, int] = {}  # the depth of each block by its full name
    depths = []
    for name in names:
        block = BLOCK.match(name)
        following = len(blocks) + 1 if blocks else 0
        depths.append(blocks.setdefault(block[1], len(blocks) + 1) if block else following)
    return depths, len(blocks)


def _require_blocks(n_blocks: int, part: str, key: str) -> None:
    if n_blocks == 0:
        raise GITError(
            f"{key} needs blocks, but this {part} has none (modules such as blocks.0): leave it out"
        )


def make_optimizer(
    model: GIT, learning: OptimConfig, make: MakeOptimizer | None = None
) -> torch.optim.Optimizer:
    """The recipe's optimizer over all trained parameters.

    Args:
        make: makes the optimizer from the parameter groups, in place of the recipe's.

    Raises:
        GITError: an optimizer by dotted name cannot be imported, one cannot be made, or it is not
            an optimizer.
    """
    groups = parameter_groups(model, learning)
    if make is not None:
        if not callable(make):
            raise GITError(
                f"optimizer is {dotted_name(make)}, expected a function or class that makes an "
                "optimizer from parameter groups"
            )
        with own_code(f"the optimizer {dotted_name(make)} cannot be made"):
            made = make(groups)
        return require_optimizer(made, groups)
    if learning.optimizer != "adamw":
        name, options = learning.optimizer, learning.optimizer_arguments
        return require_optimizer(call_object(name, "learning.optimizer", groups, **options), groups)
    fused = model.device.type in FUSED
    return torch.optim.AdamW(groups, betas=learning.betas, fused=fused)


def require_optimizer(optimizer: Any, groups: ParameterGroups) -> torch.optim.Optimizer:
    """Refuse an object that is not an optimizer of these groups; it must keep their learning
    rates."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise GITError(
            f"the optimizer is {dotted_name(optimizer)}, expected a torch.optim.Optimizer"
        )
    if [group.get("peak_lr") for group in optimizer.param_groups] != [
        group["peak_lr"] for group in groups
    ]:
        raise GITError(
            f"the optimizer {dotted_name(optimizer)} has other parameter groups than it got, "
            "expected the same: they carry the learning rates"
        )
    return optimizer


def parameter_groups(model: GIT, learning: OptimConfig) -> ParameterGroups:
    """Every trained parameter once, by its learning rate and weight decay.

    Weight matrices decay: tensors `weight` or `…_weight` of linear layers and convolutions. Norms,
    biases, embeddings, class tokens and tables of positions do not. With `layer_decay`
    the encoder's rate is multiplied by it once for each layer above a weight: the blocks, and the
    final norm as one more layer, as in the fine-tuning of BEiT and MAE.

    Raises:
        GITError: `layer_decay` is set, but the encoder has no blocks.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    shares = _encoder_shares(model, learning.layer_decay)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        share = shares.get(name)
        rate = learning.decoder_lr if share is None else learning.encoder_lr * share
        decay = learning.weight_decay if _is_matrix(model, name, parameter) else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def _is_matrix(model: GIT, name: str, parameter: nn.Parameter) -> bool:
    owner, _, last = name.rpartition(".")
    is_other = isinstance(model.get_submodule(owner), nn.Embedding | nn.LayerNorm)
    return parameter.ndim >= 2 and last.endswith("weight") and not is_other


def _encoder_shares(model: GIT, layer_decay: float | None) -> dict[str, float]:
    """The share of the encoder's learning rate, for each of its parameters."""
    names = [name for name, _ in model.named_parameters() if name.startswith("encoder.")]
    if layer_decay is None:
        return dict.fromkeys(names, 1.0)
    depths, n_blocks = _depths(names)
    _require_blocks(n_blocks, "encoder", "layer_decay")
    top = n_blocks + 1
    return {name: layer_decay ** (top - depth) for name, depth in zip(names, depths, strict=True)}


def schedule(step: int, recipe: Recipe) -> float:
    """The share of the peak learning rates at a step, counted from 1: linear warm-up, then the
    recipe's schedule.

    Sources: paper, section 4.1 (a cosine to 0); Hägele et al. 2024 (constant with a cooldown, also
    called warm-up, stable, decay).
    """
    learning, warmup = recipe.learning, recipe.learning.warmup_steps
    if step <= warmup:
        return step / warmup
    if learning.schedule == "constant":
        return 1.0
    if learning.schedule == "cooldown":
        return min(1.0, (recipe.steps - step) / learning.cooldown_steps)
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / (recipe.steps - warmup))


def update(optimizer: torch.optim.Optimizer, lr_share: float, max_grad_norm: float) -> float:
    """Update the weights at this share of the peak learning rates, unless the gradient is not
    finite.

    Returns:
        the gradient norm, of all parameters together, before clipping.

    Raises:
        GITError: the optimizer's step fails, as for one that needs a closure.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    grad_norm = full_tensor(nn.utils.clip_grad_norm_(parameters, max_grad_norm)).item()
    if math.isfinite(grad_norm):
        for group in optimizer.param_groups:
            group["lr"] = lr_share * group["peak_lr"]
        with own_code(f"the optimizer {dotted_name(optimizer)} cannot make a step"):
            optimizer.step()
    optimizer.zero_grad()
    return grad_norm


class EMA:
    """An exponential moving average of a model's trained weights; often it scores better than the
    last weights.

    The decay is smaller in the first steps, so that the random initial weights soon have no share
    in the average (as in TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, model: GIT, decay: float) -> None:
        self._decay = decay
        trained = ((name, p) for name, p in model.named_parameters() if p.requires_grad)
        self.weights = {name: p.detach().clone() for name, p in trained}

    @torch.no_grad()
    def update(self, model: GIT, step: int) -> None:
        """Include the weights after a step, counted from 1."""
        decay = min(self._decay, step / (step + 9))
        for name, parameter in model.named_parameters():
            if name in self.weights:
                self.weights[name].lerp_(parameter.detach(), 1 - decay)


def full_tensor(tensor: Tensor) -> Tensor:
    """A whole tensor, of one that may be sharded over processes (FSDP2). All processes call this
    together."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
