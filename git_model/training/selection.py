"""The best checkpoint by a metric, and early stopping."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from git_model.training.recipe import Recipe
from git_model.training.state import BEST, CHECKPOINT
from git_model.utils.atomic import new_folder
from git_model.utils.serialize import to_dict

LOSS = "validation loss"
DEFAULTS = ("captions cider_d", "captions exact", "questions exact")  # in order of preference


class Selection:
    """The best score so far, and the number of checks since then. It is part of a run's state.

    Attributes:
        best: the best score, and its step; None before the first check.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._config = recipe.selection
        self._data = None if recipe.validation is None else to_dict(recipe.validation)
        self.metric = recipe.selection.metric
        self.best: tuple[float, int] | None = None
        self._n_stale = 0  # checks since the best one

    def update(self, step: int, scores: Mapping[str, float]) -> bool:
        """Count a check. True if it is the best so far."""
        if self.metric is None:
            self.metric = next((name for name in DEFAULTS if name in scores), None)
        score = None if self.metric is None else scores.get(self.metric)
        if score is None:
            return False
        sign = -1 if self.metric == LOSS else 1
        is_better = self.best is None or sign * (score - self.best[0]) > self._config.min_delta
        if is_better:
            self.best = (score, step)
        self._n_stale = 0 if is_better else self._n_stale + 1
        return is_better

    @property
    def is_over(self) -> bool:
        """Whether the run is to stop: the last `patience` checks brought no improvement."""
        patience = self._config.patience
        return patience is not None and self._n_stale >= patience

    @property
    def reason(self) -> str:
        """Why the run is over, for the log."""
        value, step = self.best or (float("nan"), 0)
        return (
            f"{self._n_stale} checks without a better {self.metric} than {value:.4g} at step {step}"
        )

    def state_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "metric": self.metric, "data": self._data, "best": self.best, "n_stale": self._n_stale
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state, unless its scores cannot be compared with later ones."""
        if not state or state["best"] is None:
            return
        metric = self._config.metric
        same_data = state["data"] == _as_json(self._data)
        if metric not in (None, state["metric"]) or not same_data:
            change = "metric" if same_data else "validation data"
            print(f"the {change} differs from before: the best score is forgotten", file=sys.stderr)
            return
        self.metric, self._n_stale = state["metric"], state["n_stale"]
        self.best = (state["best"][0], state["best"][1])


def keep_best(out: Path) -> None:
    """Copy a run's checkpoint to `best`."""
    with new_folder(out / BEST, replaces=("*",)) as beside:
        for path in (out / CHECKPOINT).iterdir():
            shutil.copyfile(path, beside / path.name)


def _as_json(value: Any) -> Any:
    """The value as JSON gives it back: lists in place of tuples."""
    if isinstance(value, Mapping):
        return {name: _as_json(item) for name, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, list | tuple) else value
