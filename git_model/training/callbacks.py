"""Callbacks: your own code that a run calls."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from git_model.training.reports import StepStats
from git_model.utils.dotted import dotted_name
from git_model.utils.errors import ConfigError

if TYPE_CHECKING:
    from git_model.training.loop import Trainer


class Callback:
    """The methods that every process of a run calls; override those that you need.

    A run calls `on_step` once for each step, in order. After a kill and a resume it is called again
    for the steps since the last state. A callback that remembers something across steps overrides
    `state_dict` and `load_state_dict`, so that it resumes with the run.
    """

    def on_step(self, trainer: "Trainer", step: int, stats: StepStats) -> bool | None:
        """After a step; True ends the run."""

    def on_check(self, trainer: "Trainer", step: int, scores: Mapping[str, float]) -> bool | None:
        """After a checkpoint and its validation; True ends the run.

        Args:
            scores: by name, such as "captions cider_d"; empty without validation data.
        """

    def state_dict(self) -> dict[str, Any]:
        """What to save with the state: JSON values (texts, numbers, True, False, None, lists, and
        dicts with texts as keys). It is also called once before the first step."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


def call_all(callbacks: Sequence[Callback], name: str, *arguments: Any) -> bool:
    """Call a method of every callback. True if one of them ends the run."""
    results = [getattr(callback, name)(*arguments) for callback in callbacks]
    return any(results)


def states_of(callbacks: Sequence[Callback]) -> dict[str, Any]:
    """The states of callbacks that have one, by the names of their classes.

    Raises:
        ConfigError: a state would not come back from a JSON file as it is.
    """
    states: dict[str, Any] = {}
    for callback in callbacks:
        name, state = dotted_name(callback), callback.state_dict()
        problem = _other_than_json(state) if isinstance(state, dict) else _description(state)
        if problem is not None:
            raise ConfigError(
                f"the state_dict of callback {name} has {problem}, expected JSON values: a dict of "
                "texts, numbers, True, False, None, lists, and dicts with texts as keys"
            )
        states |= {name: state} if state else {}
    return states


def _other_than_json(value: Any, where: str = "") -> str | None:
    """The first part of a value that JSON cannot hold, or would change; None if there is none."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                return f"{_description(key)} as a key{where and f' of {where}'}"
            problem = _other_than_json(item, f"{where}.{key}" if where else key)
            if problem is not None:
                return problem
        return None
    if isinstance(value, list):
        problems = (_other_than_json(item, where) for item in value)
        return next((problem for problem in problems if problem is not None), None)
    is_plain = value is None or isinstance(value, str | int | float)
    return None if is_plain else f"{_description(value)} as {where}"


def _description(value: Any) -> str:
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def restore(callbacks: Sequence[Callback], states: Mapping[str, Any]) -> None:
    """Restore the states of callbacks.

    Raises:
        ConfigError: a callback that had a state is missing.
    """
    by_name = {dotted_name(callback): callback for callback in callbacks}
    for name, state in states.items():
        if name not in by_name:
            raise ConfigError(f"this run was started with callback {name}: pass it in callbacks=")
        by_name[name].load_state_dict(state)


def require_callbacks(callbacks: Any) -> None:
    """Refuse what is not a list of callbacks, and two callbacks of one class: their states would
    have one name."""
    if not isinstance(callbacks, list | tuple):
        raise ConfigError(f"callbacks is {dotted_name(callbacks)}, expected a list of callbacks")
    names = [dotted_name(callback) for callback in callbacks]
    for callback, name in zip(callbacks, names, strict=True):
        if not isinstance(callback, Callback):
            raise ConfigError(f"callbacks has {name}, expected objects of a class of Callback")
        if names.count(name) > 1:
            raise ConfigError(f"callbacks has {names.count(name)} of {name}, expected one")
