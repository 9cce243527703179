"""A run on disk: its recipe, and its state, which is all that resuming needs.

A run is a function of its recipe and its step number (see loop.py), so a state is small: weights,
the optimizer's moments, the moving average, and the step, which is the folder's name. Each process
writes and reads its own part, and any number of processes reads what any other number wrote
(torch.distributed.checkpoint). A state is written beside its final folder and renamed when it is
complete; the state before it is deleted only then.
"""

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from git_model.model.git import GIT
from git_model.training.optimizer import EMA
from git_model.training.recipe import MUTABLE, Recipe, difference
from git_model.utils.atomic import new_folder
from git_model.utils.distributed import ProcessGroup
from git_model.utils.errors import CheckpointError, ConfigError
from git_model.utils.serialize import from_dict, read_mapping, to_dict

RECIPE, STATE, STEP = "recipe.json", "state", "step-"


class TrainState(NamedTuple):
    """Everything that training changes."""

    model: GIT
    optimizer: torch.optim.Optimizer
    ema: EMA | None

    def tensors(self) -> dict[str, Any]:
        """By name: the tensors of model and average themselves, not copies."""
        optimizer = get_optimizer_state_dict(self.model, self.optimizer)
        tensors: dict[str, Any] = {"model": self.model.tensors(), "optimizer": optimizer}
        return tensors if self.ema is None else tensors | {"ema": self.ema.weights}


def require_same_recipe(recipe: Recipe, group: ProcessGroup) -> None:
    """Refuse processes that were started with different recipes, before they wait for each other.

    Raises:
        ConfigError: on every rank.
    """
    first, *_ = recipes = group.all_gather_object(recipe)
    for rank, other in enumerate(recipes):
        if other != first:
            raise ConfigError(
                f"processes 0 and {rank} have different recipes: {difference(first, other)}"
            )


def open_run_folder(out: Path, recipe: Recipe, group: ProcessGroup, *, resume: bool) -> None:
    """Make the run's folder, or check that the folder to resume is of the same run.

    Raises:
        CheckpointError: it is already there, or not there.
        ConfigError: it is of another recipe.
    """
    path = out / RECIPE
    if resume:
        if not path.is_file():
            raise CheckpointError(f"{out}: no run to resume, expected a folder with {RECIPE}")
        old_recipe = from_dict(Recipe, read_mapping(path), str(path))
        change = difference(old_recipe, recipe, ignore=MUTABLE)
        if change is not None:
            raise ConfigError(f"{out}: a run of another recipe, there and here {change}")
    elif out.exists():
        raise CheckpointError(f"{out}: already exists; name a new folder, or --resume that run")
    group.barrier()  # until every process has checked
    if group.is_first and not resume:
        with new_folder(out) as beside:
            text = json.dumps(to_dict(recipe), indent=2) + "\n"
            (beside / RECIPE).write_text(text, encoding="utf-8")


def save_state(out: Path, step: int, state: TrainState, group: ProcessGroup) -> None:
    """Write the state after a step in place of the last one; all processes call together.

    Raises:
        CheckpointError: the disk refuses; the last state is still there.
    """
    folder = _folder(out, step)
    with ExitStack() as stack:
        beside = group.broadcast(
            stack.enter_context(new_folder(folder)) if group.is_first else None
        )
        with _checkpoint_errors(folder, "written"):
            save(state.tensors(), checkpoint_id=beside, no_dist=group.size == 1)
    if group.is_first:
        for path in folder.parent.iterdir():
            if path != folder:  # an older state, or a partial one whose writer was killed
                shutil.rmtree(path, ignore_errors=True)


def load_state(out: Path, state: TrainState, group: ProcessGroup) -> int:
    """Load the last state that was saved; all processes call together.

    Returns:
        the step after which it was saved; 0, and nothing is changed, if there is none.

    Raises:
        CheckpointError: it is damaged, or of another model.
    """
    step = group.broadcast(last_step(out))
    if step > 0:
        tensors, folder = state.tensors(), _folder(out, step)
        with _checkpoint_errors(folder, "read"):
            load(tensors, checkpoint_id=folder, no_dist=group.size == 1)
        set_optimizer_state_dict(state.model, state.optimizer, tensors["optimizer"])
    return step


def last_step(out: Path) -> int:
    """The step of the last state in a run's folder; 0 if there is none."""
    names = [path.name for path in (out / STATE).glob(f"{STEP}*")]
    return max((int(name.removeprefix(STEP)) for name in names), default=0)


def _folder(out: Path, step: int) -> Path:
    return out / STATE / f"{STEP}{step}"


@contextmanager
def _checkpoint_errors(folder: Path, action: str) -> Iterator[None]:
    """Turn an error of any rank into one line."""
    try:
        with warnings.catch_warnings():
            # A run may have one process.
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            yield
    except CheckpointException as error:
        rank, (reason, _) = next(iter(error.failures.items()))
        where = f" (process {rank})" if rank else ""
        line = str(reason).partition("\n")[0]
        raise CheckpointError(f"{folder}: cannot be {action}{where}: {line}") from None
