"""The log of a run: lines of log.jsonl, a progress bar, TensorBoard."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

from git_model.evaluation.predictions import Prediction
from git_model.evaluation.scores import PYTHON, score
from git_model.training.recipe import Recipe
from git_model.utils.errors import GITError

LOG = "log.jsonl"


@dataclass(frozen=True)
class StepStats:
    """What a step logs, over all processes."""

    loss: float  # before the update
    n_images: int  # images and clips
    grad_norm: float  # before clipping
    lr_share: float  # of the peak learning rates


class Report:
    """The log of a run, from the step after `last` on.

    Lines about later steps are removed: a run that was killed repeats its last steps, and logs them
    again.

    Args:
        last: the step after which the run resumes; 0 at its start.
    """

    def __init__(self, out: Path, recipe: Recipe, last: int) -> None:
        self._recipe = recipe
        self._path = out / LOG
        self._last = last
        self._board = _board(out, last) if recipe.reports.tensorboard else None
        self._losses: list[float] = []
        self._n_images = 0
        self._start = 0.0

    def step(self, step: int, stats: StepStats, broken: Sequence[str] = ()) -> None:
        """Count a step; every `log_every` steps log the mean loss since the last time.

        Args:
            broken: why the step left out examples; logged at once.
        """
        for reason in broken:
            self._print(f"step {step}: left out: {reason}")
            self._log(step, left_out=reason)
        self._bar.update()
        self._losses.append(stats.loss)
        self._n_images += stats.n_images
        if step % self._recipe.reports.log_every:
            return
        mean = sum(self._losses) / len(self._losses)
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
        )
        self._losses, self._n_images, self._start = [], 0, now

    def check(self, step: int, predictions: Sequence[Prediction]) -> None:
        """Log the scores of these predictions, and print some of them."""
        scores = check_scores(predictions)
        values = ", ".join(f"{name} {value:.2f}" for name, value in scores.items())
        self._print(f"step {step}: {values}")
        for prediction in predictions[: self._recipe.reports.show]:
            self._print(f"  {prediction.name}: {prediction.text} | {prediction.answers[0]}")
        self._log(step, **scores)
        self._start = time.perf_counter()  # images_per_s counts training only

    def _log(self, step: int, **values: Any) -> None:
        """Write a line to the log."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if self._board is not None and isinstance(value, float):
                self._board.add_scalar(name, value, step)

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
        steps = self._recipe.steps
        self._bar = tqdm(total=steps, initial=self._last, unit="step", dynamic_ncols=True)
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._file.close()
        if self._board is not None:
            self._board.close()


def check_scores(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Exact match, and CIDEr-D if captions have several references; times 100."""
    several = any(item.task == "captions" and len(item.answers) > 1 for item in predictions)
    scores = score(predictions, ("exact", "cider_d") if several else ("exact",), PYTHON)
    return {
        f"{task} {name}": value
        for task, values in scores.items()
        for name, value in values.items()
        if name != "count"
    }


def _length_until(path: Path, last: int) -> int:
    """The bytes of a log up to its last complete line about a step not after `last`.

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


def _board(out: Path, last: int) -> Any:
    """TensorBoard's files in the run's folder, without what they hold of steps after `last`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise GITError(
            "the recipe asks for TensorBoard: pip install 'git-model[tensorboard]', or set "
            "tensorboard = false"
        ) from None
    return SummaryWriter(str(out / "tensorboard"), purge_step=last + 1)
