"""The log of a run: lines of log.jsonl, a progress bar, and trackers."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from git_model.evaluation.predictions import Prediction
from git_model.training.recipe import Recipe
from git_model.training.state import BEST, CHECKPOINT
from git_model.training.trackers import open_trackers
from git_model.utils.errors import GITError
from git_model.utils.progress import ProgressBar

LOG = "log.jsonl"


@dataclass(frozen=True)
class StepStats:
    """The numbers of a step, over all processes.

    means: other numbers of the loss, such as SCST's reward, per unit.
    """

    loss: float  # before the update
    n_images: int  # images and clips
    grad_norm: float  # before clipping
    lr_share: float  # of the peak learning rates
    means: Mapping[str, float] = field(default_factory=dict)


class Report:
    """The log of a run, from the step after `last`.

    Lines about later steps are removed, because a run that was killed repeats its last steps and
    logs them again.

    Args:
        last: the step after which the run resumes; 0 at its start.
    """

    def __init__(self, out: Path, recipe: Recipe, last: int) -> None:
        self._recipe = recipe
        self._path = out / LOG
        self._last = last
        self._out = out
        self._stats: list[StepStats] = []
        self._summary: dict[str, float] = {}
        self._best = ""
        self._n_images = 0
        self._start = 0.0

    def step(self, step: int, stats: StepStats, broken: Sequence[str] = ()) -> None:
        """Count a step; every `log_every` steps log the mean loss since the last time.

        Args:
            broken: the reasons why the step left out examples; they are logged at once.
        """
        for reason in broken:
            self._print(f"step {step}: left out: {reason}")
            self._log(step, left_out=reason)
        self._bar.update()
        self._stats.append(stats)
        self._n_images += stats.n_images
        if step % self._recipe.reports.log_every:
            return
        losses = [stats.loss for stats in self._stats]
        mean = sum(losses) / len(losses)
        now = time.perf_counter()
        speed = self._n_images / (now - self._start)
        self._bar.set_postfix(loss=f"{mean:.4f}", images_per_s=f"{speed:.0f}")
        learning = self._recipe.learning
        self._log(
            step,
            loss=mean,
            grad_norm=stats.grad_norm,
            encoder_lr=stats.lr_share * learning.encoder_lr,
            decoder_lr=stats.lr_share * learning.decoder_lr,
            images_per_s=speed,
            **_means(self._stats),
        )
        self._stats, self._n_images, self._start = [], 0, now

    def check(
        self, step: int, predictions: Sequence[Prediction], scores: Mapping[str, float]
    ) -> None:
        """Log the scores of these predictions, and print some of them."""
        values = ", ".join(f"{name} {value:.2f}" for name, value in scores.items())
        self._print(f"step {step}: {values}")
        for prediction in predictions[: self._recipe.reports.show]:
            reference = prediction.answers[0]
            self._print(f"  {prediction.name}: {prediction.text} | reference: {reference}")
        self._log(step, **scores)
        self._summary |= {f"final/{name}": value for name, value in scores.items()}
        self._start = time.perf_counter()  # images_per_s counts training only

    def best(self, step: int, metric: str, value: float) -> None:
        """Record the best check so far, for the trackers' summaries and the last line."""
        self._best = f"best at step {step} ({metric} {value:.3f}): {self._out / BEST}"
        self._summary |= {f"best/{metric}": value, "best/step": float(step)}

    def end(self, step: int, reason: str) -> None:
        """Log why a run ends before its last step."""
        self._print(f"step {step}: the run ends: {reason}")
        self._log(step, ended=reason)

    def resume(self) -> None:
        """Say where a resumed run continues."""
        start = "no state was saved before" if self._last == 0 else f"after step {self._last}"
        self._print(f"resuming: {start}")

    def stop(self, step: int) -> None:
        """Say that a stop request ends the run after this step."""
        self._print(f"step {step}: stopped, and the state is saved: --resume continues the run")

    def complete(self, step: int) -> None:
        """Say that the run made its last step, and where its models are."""
        parts = [f"step {step}: complete: {self._out / CHECKPOINT}", self._best]
        self._print("; ".join(filter(None, parts)))

    def _log(self, step: int, **values: Any) -> None:
        """Write a line to the log."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        numbers = {name: value for name, value in values.items() if isinstance(value, float)}
        for tracker in self._trackers:
            if numbers:
                tracker.log(step, numbers)

    def _print(self, line: str) -> None:
        """Write a line to the terminal, above the bar."""
        self._bar.write(line, sys.stderr)

    def __enter__(self) -> Self:
        length = _length_until(self._path, self._last)
        try:
            self._file = self._path.open("a", encoding="utf-8")
            self._file.truncate(length)
        except OSError as error:
            raise GITError(f"{self._path}: cannot be written: {error.strerror}") from None
        self._trackers = open_trackers(self._recipe, self._out, self._last)
        steps = self._recipe.steps
        self._bar = ProgressBar(total=steps, initial=self._last, unit="step", dynamic_ncols=True)
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._file.close()
        for tracker in self._trackers:
            tracker.finish(self._summary)


def _means(stats: Sequence[StepStats]) -> dict[str, float]:
    """The mean over steps of each number that all of them have."""
    names = [name for name in stats[0].means if all(name in item.means for item in stats)]
    return {name: sum(item.means[name] for item in stats) / len(stats) for name in names}


def _length_until(path: Path, last: int) -> int:
    """The size in bytes of the lines of a log up to the first that is incomplete or about a step
    after `last`.

    Raises:
        GITError: a line is damaged.
    """
    length = 0
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise GITError(f"{path}: cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n") or _step_of(line, f"{path}: line {number}") > last:
            break
        length += len(line)
    return length


def _step_of(line: bytes, where: str) -> int:
    """The step that a line of a log is about."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, RecursionError, KeyError, TypeError):
        step = None
    if type(step) is not int:
        raise GITError(
            f'{where} is damaged, expected a line such as {{"step": 1, …}}: repair that line, or '
            "move the file away, and resume again"
        )
    return step
