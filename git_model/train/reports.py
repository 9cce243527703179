"""What a run tells: a line of log.jsonl for each stretch of steps, a progress bar, TensorBoard."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

from git_model.datasets.readings import Broken
from git_model.evaluate.predictions import Prediction
from git_model.evaluate.scores import PYTHON, score
from git_model.settings import GITError
from git_model.train.recipe import Recipe

LOG = "log.jsonl"


@dataclass(frozen=True)
class Taken:
    """What a log wants to know of a step, over all processes."""

    loss: float  # before it
    images: int  # pictures and clips
    gradient: float  # its length, before it was clipped
    share: float  # of the highest learning rates


class Report:
    """Of a run whose folder is there, from the step after `done` on.

    A line that is there already is kept if it is about a step that counts: a run that was killed
    learns its last steps again, and tells of them again.

    Args:
        done: steps that count as learned.
    """

    def __init__(self, out: Path, recipe: Recipe, done: int) -> None:
        self._recipe = recipe
        self._path = out / LOG
        self._done = done
        self._board = _board(out, done) if recipe.reports.tensorboard else None
        self._losses: list[float] = []
        self._images = 0
        self._since = 0.0

    def step(self, step: int, taken: Taken, broken: Sequence[Broken] = ()) -> None:
        """Count a step; every so often tell the mean loss since the last time.

        Args:
            broken: examples that it had to leave out, which are named at once.
        """
        for one in broken:
            self._say(f"step {step}: left out: {one.reason}")
            self._tell(step, left_out=one.reason)
        self._bar.update()
        self._losses.append(taken.loss)
        self._images += taken.images
        if step % self._recipe.reports.log_every:
            return
        mean = sum(self._losses) / len(self._losses)
        now = time.perf_counter()
        speed = self._images / (now - self._since)
        self._bar.set_postfix(loss=f"{mean:.4f}", images_per_s=f"{speed:.0f}")
        learning = self._recipe.learning
        self._tell(
            step,
            loss=mean,
            gradient=taken.gradient,
            encoder_lr=taken.share * learning.encoder_lr,
            decoder_lr=taken.share * learning.decoder_lr,
            images_per_s=speed,
        )
        self._losses, self._images, self._since = [], 0, now

    def check(self, step: int, found: Sequence[Prediction]) -> None:
        """Tell how good these predictions are, and some of them."""
        scores = check_scores(found)
        values = ", ".join(f"{name} {value:.2f}" for name, value in scores.items())
        self._say(f"step {step}: {values}")
        for one in found[: self._recipe.reports.show]:
            self._say(f"  {one.name}: {one.text} | {one.answers[0]}")
        self._tell(step, **scores)
        self._since = time.perf_counter()  # images_per_s speaks of training only

    def _tell(self, step: int, **values: Any) -> None:
        """Write a line to the log."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if self._board is not None and isinstance(value, float):
                self._board.add_scalar(name, value, step)

    def _say(self, line: str) -> None:
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


def check_scores(found: Sequence[Prediction]) -> dict[str, float]:
    """Exact matches, and CIDEr-D of captions that may be said in several ways; times 100."""
    several = any(one.task == "captions" and len(one.answers) > 1 for one in found)
    scores = score(found, ("exact", "cider_d") if several else ("exact",), PYTHON)
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
