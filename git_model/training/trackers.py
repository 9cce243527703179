"""The log of a run in TensorBoard, wandb or trackio.

Nothing leaves the machine by itself: TensorBoard and wandb write into the run's folder, trackio
into its own (TRACKIO_DIR). wandb is offline unless the variable WANDB_MODE says otherwise; `wandb
sync` sends a run later.
"""

import os
import sys
import uuid
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Protocol

from git_model.training.recipe import Recipe, TrackerName
from git_model.utils.atomic import new_file
from git_model.utils.errors import GITError
from git_model.utils.serialize import to_dict

RUN_ID = "run_id.txt"  # names the run in wandb and trackio, also when it resumes
Settings = dict[str, bool | int | float | str]


class Tracker(Protocol):
    """A program that a run's log is sent to."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers about a step."""

    def finish(self, scores: Mapping[str, float]) -> None:
        """Close the tracker, with the run's final and best scores as its summary."""


def open_trackers(recipe: Recipe, out: Path, last: int) -> list[Tracker]:
    """The recipe's trackers.

    Args:
        last: the step after which the run resumes.

    Raises:
        GITError: an extra is missing, or a tracker cannot start.
    """
    return [OPEN[name](recipe, out, last) for name in recipe.reports.trackers]


def require_trackers(recipe: Recipe) -> None:
    """Import the libraries of the recipe's trackers, before training.

    Raises:
        GITError: a library is missing; the message names its extra.
    """
    for name in recipe.reports.trackers:
        try:
            _import(name)
        except ImportError:
            raise GITError(
                f"the recipe asks for {name}: pip install 'git-model[{name}]', or leave it out of "
                "reports.trackers"
            ) from None


def _import(name: TrackerName) -> Any:
    if name == "tensorboard":
        import torch.utils.tensorboard

        return torch.utils.tensorboard
    if name == "wandb":
        import wandb

        return wandb
    import trackio

    return trackio


class _TensorBoard:
    """Event files in the run's folder, without what they hold of steps after `last`."""

    def __init__(self, recipe: Recipe, out: Path, last: int) -> None:
        writer = _import("tensorboard").SummaryWriter
        self._writer = writer(str(out / "tensorboard"), purge_step=last + 1)
        self._settings = settings_of(recipe)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self, scores: Mapping[str, float]) -> None:
        if scores:
            self._writer.add_hparams(self._settings, dict(scores), run_name=".")
        self._writer.close()


class _Wandb:
    """A run of wandb in the run's folder."""

    def __init__(self, recipe: Recipe, out: Path, _last: int) -> None:
        wandb = _import("wandb")
        mode = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=recipe.reports.project,
            name=out.name,
            id=run_id(out),
            dir=str(out),
            config=to_dict(recipe),
            mode=mode,
            resume=None if mode == "offline" else "allow",
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, scores: Mapping[str, float]) -> None:
        self._run.summary.update(dict(scores))
        self._run.finish()


class _Trackio:
    """A run of trackio, on this machine."""

    def __init__(self, recipe: Recipe, out: Path, last: int) -> None:
        self._trackio, self._last = _import("trackio"), last
        with redirect_stdout(sys.stderr):  # it prints how to open its page
            self._run = self._trackio.init(
                project=recipe.reports.project,
                name=f"{out.name}-{run_id(out)[:6]}",
                config=settings_of(recipe),
                resume="allow",
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._last = step
        self._run.log(dict(values), step=step)

    def finish(self, scores: Mapping[str, float]) -> None:
        with redirect_stdout(sys.stderr):
            if scores:
                self._run.log(dict(scores), step=self._last)
            self._trackio.finish()


OPEN: dict[TrackerName, Callable[[Recipe, Path, int], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "trackio": _Trackio,
}


def settings_of(recipe: Recipe) -> Settings:
    """A recipe's settings by their dotted keys: numbers, or texts."""
    return dict(_flat(to_dict(recipe)))


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, bool | int | float | str]]:
    rows: list[tuple[str, bool | int | float | str]] = []
    for name, value in table.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            plain = isinstance(value, bool | int | float | str)
            rows.append((prefix + name, value if plain else str(value)))
    return rows


def run_id(out: Path) -> str:
    """A unique name of the run; it is drawn at the first call, and stored."""
    path = out / RUN_ID
    if not path.is_file():
        with new_file(path) as beside:
            beside.write_text(uuid.uuid4().hex + "\n", encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()
