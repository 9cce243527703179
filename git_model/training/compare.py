"""Runs side by side: curves, and means with 95 % intervals.

Runs whose recipes differ only in the seed are one arm. Arms are compared seed by seed, so that what
a seed does to both (the initial weights, the order of the data) does not count as a difference.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from git_model.evaluation.intervals import Interval, t_interval
from git_model.training.recipe import Recipe
from git_model.training.reports import LOG
from git_model.training.state import OBJECTS, RECIPE
from git_model.training.trackers import settings_of
from git_model.utils.errors import GITError
from git_model.utils.serialize import from_dict, read_mapping, read_text

At = Literal["last", "best"]
# Keys that define no arm: the seed, and tables that do not change a training step (up to rounding).
NOT_COMPARED = ("seed", "compute.", "reports.", "selection.")
# The beginnings of keys that decide what a score is of.
SCORED_BY = ("validation", "reports.check_examples")
IN_LOGS = ("step", "grad_norm", "encoder_lr", "decoder_lr", "images_per_s")  # not scores
# Endings of the names of metrics of which a smaller value is better: losses, and their parts.
FALLING = ("loss", "cross_entropy", "divergence", "contrastive")


@dataclass(frozen=True)
class Run:
    """A run's settings by dotted key, the names of the objects that it was called with among them,
    and each number of its log: (step, value), in order."""

    folder: Path
    seed: int
    settings: Mapping[str, Any]
    curves: Mapping[str, Sequence[tuple[int, float]]]

    def value(self, metric: str, at: At) -> float:
        """The last value of a metric, or the best.

        Raises:
            GITError: the log has no such number.
        """
        if metric not in self.curves:
            raise GITError(
                f"{self.folder}: the log has no {metric!r}, expected one of "
                f"{', '.join(self.curves) or 'none: it is empty'}"
            )
        values = [value for _, value in self.curves[metric]]
        if at == "last":
            return values[-1]
        return min(values) if metric.endswith(FALLING) else max(values)


@dataclass(frozen=True)
class Row:
    """An arm's values of a metric, and their difference from those of the first arm.

    difference: the mean over the seeds that both arms have; None for the first arm, and if no seed
        is common.
    interval, difference_interval: None with fewer than two values.
    """

    metric: str
    arm: str
    n: int
    mean: float
    interval: Interval | None
    difference: float | None
    difference_interval: Interval | None


def read_run(folder: Path) -> Run:
    """A run's recipe and log.

    Raises:
        GITError: the folder is not that of a run, or a file in it is damaged.
    """
    path = folder / RECIPE
    if not path.is_file():
        raise GITError(f"{folder}: no run, expected a folder with {RECIPE}")
    recipe = from_dict(Recipe, read_mapping(path), str(path))
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in _lines(folder / LOG):
        for name, value in line.items():
            if name not in IN_LOGS and isinstance(value, float):
                curves.setdefault(name, []).append((int(line["step"]), value))
    settings = settings_of(recipe)
    compared = {
        name: value
        for name, value in settings.items()
        if name.startswith(SCORED_BY) or not name.startswith(NOT_COMPARED)
    }
    return Run(folder, recipe.seed, compared | _objects(folder), curves)


def _objects(folder: Path) -> dict[str, Any]:
    """The dotted names of the objects that a run was called with, by argument, such as `loss=`."""
    path = folder / OBJECTS
    return dict(read_mapping(path)) if path.is_file() else {}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    lines = read_text(path, max_bytes=None).splitlines(keepends=True)
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text)
            int(line["step"])
        except (ValueError, RecursionError, KeyError, TypeError, OverflowError):
            if number == len(lines) and not text.endswith("\n"):
                return  # a kill cut the last line short
            raise GITError(f"{path}: line {number} is damaged, expected its step") from None
        yield line


def arms_of(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by arm, named by the settings in which arms differ; in the order of the runs.

    Raises:
        GITError: two runs of an arm have one seed, or runs have different validation data.
    """
    names = {name: None for run in runs for name in run.settings}
    varying = [name for name in names if len({str(run.settings.get(name)) for run in runs}) > 1]
    for name in varying:
        if name.startswith(SCORED_BY):
            raise GITError(f"the runs differ in {name}, so their scores cannot be compared")
    arms: dict[str, list[Run]] = {}
    for run in runs:
        name = ", ".join(f"{key}={run.settings.get(key)}" for key in varying) or "all runs"
        arm = arms.setdefault(name, [])
        for other in arm:
            if other.seed == run.seed:
                raise GITError(
                    f"{other.folder} and {run.folder} have the same recipe and seed {run.seed}: "
                    "name one of them"
                )
        arm.append(run)
    return arms


def default_metrics(runs: Sequence[Run]) -> list[str]:
    """The scores of checks that all runs have, or else the training loss."""
    common = [name for name in runs[0].curves if all(name in run.curves for run in runs)]
    return [name for name in common if " " in name] or [name for name in common if name == "loss"]


def compare(arms: Mapping[str, Sequence[Run]], metrics: Sequence[str], at: At) -> list[Row]:
    """A row for each metric and arm."""
    rows = []
    for metric in metrics:
        values = {
            name: {run.seed: run.value(metric, at) for run in runs} for name, runs in arms.items()
        }
        first = next(iter(values))
        for arm, by_seed in values.items():
            seeds = [seed for seed in by_seed if seed in values[first]] if arm != first else []
            differences = [by_seed[seed] - values[first][seed] for seed in seeds]
            rows.append(
                Row(
                    metric=metric,
                    arm=arm,
                    n=len(by_seed),
                    mean=mean(by_seed.values()),
                    interval=t_interval(list(by_seed.values())),
                    difference=mean(differences) if differences else None,
                    difference_interval=t_interval(differences),
                )
            )
    return rows


def draw_curves(arms: Mapping[str, Sequence[Run]], metrics: Sequence[str], path: Path) -> None:
    """Draw each metric over the steps, one colour per arm: every run thin, their mean thick.

    Raises:
        GITError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise GITError("curves need matplotlib: pip install 'git-model[plot]'") from None
    figure = Figure(figsize=(6.4 * len(metrics), 4.8), layout="constrained")
    (panels,) = figure.subplots(1, len(metrics), squeeze=False)
    for panel, metric in zip(panels, metrics, strict=True):
        for number, (arm, runs) in enumerate(arms.items()):
            colour = f"C{number % 10}"
            for run in runs:
                panel.plot(*zip(*run.curves[metric], strict=True), color=colour, alpha=0.3, lw=0.8)
            label = f"{arm} (n = {len(runs)})"
            panel.plot(*_mean_curve(runs, metric), color=colour, lw=2, label=label)
        panel.set(xlabel="step", ylabel=metric)
        panel.legend(fontsize="small")
    figure.savefig(path, format="png", dpi=150)


def _mean_curve(runs: Sequence[Run], metric: str) -> tuple[list[int], list[float]]:
    """The mean over runs at the steps that all of them have."""
    curves = [dict(run.curves[metric]) for run in runs]
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    return steps, [math.fsum(curve[step] for curve in curves) / len(curves) for step in steps]
