"""What a run logs: lines of log.jsonl, a progress bar, TensorBoard."""

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
    """What is logged of a step, over all processes."""

    loss: float  # before the step
    n_images: int  # images and clips
    grad_norm: float  # before clipping
    lr_share: float  # of the peak learning rates


class Report:
    """The log of a run, from the step after `done` on.

    Lines about later steps are removed: a run that was killed repeats its last steps, and logs them
    again.

    Args:
        done: the step after which the run resumes; 0 at its start.
    """

    def __init__(self, out: Path, recipe: Recipe, done: int) -> None:
        self._recipe = recipe
        self._path = out / LOG
        self._done = done
        self._board = _board(out, done) if recipe.reports.tensorboard else None
        self._losses: list[float] = []
        self._images = 0
        self._since = 0.0

    def step(self, step: int, stats: StepStats, broken: Sequence[str] = ()) -> None:
        """Count a step; every `log_every` steps log the mean loss since the last time.

        Args:
            broken: examples that the step left out, which are named at once.
        """
        for reason in broken:
            self._print(f"step {step}: left out: {reason}")
            self._log(step, left_out=reason)
        self._bar.update()
        self._losses.append(stats.loss)
        self._images += stats.n_images
        if step % self._recipe.reports.log_every:
            return
        mean = sum(self._losses) / len(self._losses)
        now = time.perf_counter()
        speed = self._images / (now - self._since)
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
        self._losses, self._images, self._since = [], 0, now

    def check(self, step: int, predictions: Sequence[Prediction]) -> None:
        """Log the scores of these predictions, and print some of them."""
        scores = check_scores(predictions)
        values = ", ".join(f"{name} {value:.2f}" for name, value in scores.items())
        self._print(f"step {step}: {values}")
        for item in predictions[: self._recipe.reports.show]:
            self._print(f"  {item.name}: {item.text} | {item.answers[0]}")
        self._log(step, **scores)
        self._since = time.perf_counter()  # images_per_s counts training only

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
        self._file = self._path.open("a", encoding="utf-8")
        self._file.truncate(_length_until(self._path, self._done))
        steps = self._recipe.steps
        self._bar = tqdm(total=steps, initial=self._done, unit="step", dynamic_ncols=True)
        self._since = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._file.close()
        if self._board is not None:
            self._board.close()


def check_scores(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Exact matches, and CIDEr-D of captions that may be said in several ways; times 100."""
    several = any(item.task == "captions" and len(item.answers) > 1 for item in predictions)
    scores = score(predictions, ("exact", "cider_d") if several else ("exact",), PYTHON)
    return {
        f"{task} {name}": value
        for task, values in scores.items()
        for name, value in values.items()
        if name != "count"
    }


def _length_until(path: Path, last: int) -> int:
    """Of a log, in bytes, as far as its lines are whole and about steps up to the last."""
    length = 0
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n") or json.loads(line)["step"] > last:
            break
        length += len(line)
    return length


def _board(out: Path, done: int) -> Any:
    """TensorBoard's files in the run's folder; what it has of later steps is forgotten."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise GITError(
            "the recipe asks for TensorBoard: pip install 'git-model[tensorboard]', or set "
            "tensorboard = false"
        ) from None
    return SummaryWriter(str(out / "tensorboard"), purge_step=done + 1)
