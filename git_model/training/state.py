"""A run on disk: its recipe, and its state. Resuming needs nothing else.

A run is a function of its recipe and its step number (see loop.py), so a state is small: the
weights, the optimizer's moments, the moving average, the best score so far, and the step, which is
the folder's name. Each process writes and reads its own part, and any number of processes can read
a state that another number wrote (torch.distributed.checkpoint). A state is written beside its
final folder, with the digests of its files, and renamed when it is complete. The last two states
are kept: if the newest is damaged, the run resumes from the one before.
"""

import json
import re
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
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

from git_model.checkpoints.adapters import AdapterBase, adapter_tensors
from git_model.checkpoints.native import DIGESTS, require_digests, write_digests
from git_model.model.git import GIT
from git_model.training.optimizer import EMA
from git_model.training.recipe import MUTABLE, Recipe, difference
from git_model.utils.atomic import new_folder
from git_model.utils.distributed import ProcessGroup
from git_model.utils.errors import CheckpointError, ConfigError
from git_model.utils.serialize import from_dict, read_mapping, to_dict

RECIPE, STATE, STEP, CHECKPOINT, BEST = "recipe.json", "state", "step-", "checkpoint", "best"
OBJECTS = "objects.json"  # the dotted names of the objects that `train` was called with
PROGRESS = "progress.json"  # in a state: the best score, and the states of callbacks
KEPT_STATES = 2


class TrainState(NamedTuple):
    """Everything that training changes."""

    model: GIT
    optimizer: torch.optim.Optimizer
    ema: EMA | None
    base: AdapterBase | None = None  # of an adapter; its weights do not change

    def tensors(self) -> dict[str, Any]:
        """The tensors by name: those of the model and of the moving average, not copies. Of an
        adapter's base it holds the fingerprint only."""
        optimizer = get_optimizer_state_dict(self.model, self.optimizer)
        weights = self.model.tensors() if self.base is None else adapter_tensors(self.model)
        tensors: dict[str, Any] = {"model": weights, "optimizer": optimizer}
        if self.ema is not None:
            tensors["ema"] = self.ema.weights
        if self.base is not None:
            tensors["base"] = torch.tensor(list(bytes.fromhex(self.base.fingerprint)))
        return tensors

    def require_base(self, tensors: Mapping[str, Any]) -> None:
        """Refuse loaded tensors of an adapter whose base has changed since.

        Raises:
            CheckpointError: the message names the base.
        """
        if self.base is None:
            return
        if bytes(tensors["base"].tolist()).hex() != self.base.fingerprint:
            raise CheckpointError(
                f"{self.base.base}: its weights are not those that this run's adapter belongs to"
            )


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


def open_run_folder(
    out: Path,
    recipe: Recipe,
    group: ProcessGroup,
    objects: Mapping[str, str] | None = None,
    *,
    resume: bool,
) -> None:
    """Make the run's folder, or check that the folder to resume is of the same run.

    Args:
        objects: the dotted names of the objects that the run was called with, by argument.

    Raises:
        CheckpointError: the folder exists, or, with `resume`, does not.
        ConfigError: the run has another recipe, or was called with other objects.
    """
    path = out / RECIPE
    if resume:
        if not path.is_file():
            raise CheckpointError(f"{out}: no run to resume, expected a folder with {RECIPE}")
        old_recipe = from_dict(Recipe, read_mapping(path), str(path))
        change = difference(old_recipe, recipe, ignore=MUTABLE)
        if change is not None:
            raise ConfigError(f"{out}: a run of another recipe, there and here {change}")
        _require_same_objects(out, objects or {})
    elif out.exists():
        raise CheckpointError(f"{out}: already exists; name a new folder, or --resume that run")
    group.barrier()  # until every process has checked
    if group.is_first and not resume:
        with new_folder(out) as beside:
            text = json.dumps(to_dict(recipe), indent=2) + "\n"
            (beside / RECIPE).write_text(text, encoding="utf-8")
            if objects:
                text = json.dumps(objects, indent=2) + "\n"
                (beside / OBJECTS).write_text(text, encoding="utf-8")


def _require_same_objects(out: Path, objects: Mapping[str, str]) -> None:
    path = out / OBJECTS
    before = read_mapping(path) if path.is_file() else {}
    for argument in {**before, **objects}:
        old, new = before.get(argument), objects.get(argument)
        if old != new:
            action = (
                f"resume it with train(…, resume=True, {argument}=…)" if old else "leave it out"
            )
            raise ConfigError(
                f"{out}: this run was started with {argument} {old or 'of its recipe'}, not "
                f"{new or 'of its recipe'}: {action}"
            )


def save_state(
    out: Path,
    step: int,
    state: TrainState,
    group: ProcessGroup,
    progress: Mapping[str, Any] | None = None,
) -> None:
    """Write the state after a step, and remove all but the last KEPT_STATES states; all processes
    call together.

    Raises:
        CheckpointError: the state cannot be written; the last state is kept.
    """
    folder = _folder(out, step)
    with ExitStack() as stack:
        made = stack.enter_context(new_folder(folder)) if group.is_first else None
        beside = group.broadcast(made)
        with _checkpoint_errors(folder, "written"):
            save(state.tensors(), checkpoint_id=beside, no_dist=group.size == 1)
        if made is not None:
            (made / PROGRESS).write_text(json.dumps(progress or {}) + "\n", encoding="utf-8")
            write_digests(made)
    if group.is_first:
        for old in saved_steps(out)[KEPT_STATES:]:
            shutil.rmtree(_folder(out, old), ignore_errors=True)
        _sweep(folder.parent, f".{STEP}*")


def load_state(out: Path, state: TrainState, group: ProcessGroup) -> int:
    """Load the last state that is whole; all processes call together.

    A damaged state is set aside, and a line on stderr says so.

    Returns:
        the step after which it was saved; 0, and nothing is changed, if there is none.

    Raises:
        CheckpointError: all states are damaged, or of another model.
    """
    step, error = group.broadcast(_last_whole_step(out) if group.is_first else (0, None))
    if error is not None:
        raise CheckpointError(error)
    if step > 0:
        tensors, folder = state.tensors(), _folder(out, step)
        with _checkpoint_errors(folder, "read"):
            load(tensors, checkpoint_id=folder, no_dist=group.size == 1)
        state.require_base(tensors)
        set_optimizer_state_dict(state.model, state.optimizer, tensors["optimizer"])
    return step


def load_progress(out: Path, step: int) -> dict[str, Any]:
    """The JSON values that were saved beside the tensors after a step; {} for step 0."""
    path = _folder(out, step) / PROGRESS
    return read_mapping(path) if path.is_file() else {}


def last_step(out: Path) -> int:
    """The step of the last state in a run's folder; 0 if there is none."""
    return max(saved_steps(out), default=0)


def saved_steps(out: Path) -> list[int]:
    """The steps of all states in a run's folder, the last one first.

    Raises:
        CheckpointError: an entry has a state's name, but no number.
    """
    steps = []
    for path in (out / STATE).glob(f"{STEP}*"):
        if not re.fullmatch(r"[1-9][0-9]*", path.name.removeprefix(STEP)):
            raise CheckpointError(
                f"{path}: no state of this run, expected a name such as {STEP}100: move it away"
            )
        steps.append(int(path.name.removeprefix(STEP)))
    return sorted(steps, reverse=True)


def remove_leftovers(out: Path) -> None:
    """Remove what a killed process left half written. The caller holds the lock of the folder."""
    for name in (CHECKPOINT, BEST):
        for old in out.glob(f".{name}.*.old"):  # killed between the two renames of a new one
            if not (out / name).exists():
                old.rename(out / name)
        _sweep(out, f".{name}.*")
    _sweep(out / STATE, f".{STEP}*")


def _last_whole_step(out: Path) -> tuple[int, str | None]:
    """The step of the last state that is whole, or 0; and why there is none, if all are damaged."""
    steps, reasons = [], []
    try:
        steps = saved_steps(out)
    except CheckpointError as error:
        return 0, str(error)
    for step in steps:
        folder = _folder(out, step)
        try:
            if not (folder / DIGESTS).is_file():
                raise CheckpointError(f"{folder}: no {DIGESTS}, so it is not whole")
            require_digests(folder)
        except (CheckpointError, ConfigError) as error:
            reasons.append(str(error))
            continue
        for damaged, reason in zip(steps, reasons, strict=False):
            print(f"{reason}; resuming from step {step} instead", file=sys.stderr)
            path = _folder(out, damaged)
            path.rename(path.with_name(f".{path.name}.damaged"))  # removed after the next save
        return step, None
    return 0, f"{reasons[0]}, and no state before it is whole" if reasons else None


def _sweep(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        shutil.rmtree(path, ignore_errors=True)


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
