"""Checkpoints of other projects, brought into the form of `git_model` and back.

Names are imported when first used, so that the command line answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weights_convert.folders import convert, read_foreign
    from weights_convert.rules import ConversionError

__all__ = ["ConversionError", "convert", "read_foreign"]

_ROOMS = {"ConversionError": "rules", "convert": "folders", "read_foreign": "folders"}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(import_module(f"weights_convert.{_ROOMS[name]}"), name)
    raise AttributeError(f"module 'weights_convert' has no attribute {name!r}")
