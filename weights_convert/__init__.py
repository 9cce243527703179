"""Checkpoints of other projects, converted to the format of `git_model` and back.

A name is imported when it is first used, so that the command line starts fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weights_convert.folders import convert, read_foreign
    from weights_convert.hub import find_folder
    from weights_convert.rules import ConversionError
    from weights_convert.verification import verify

__all__ = ["ConversionError", "convert", "find_folder", "read_foreign", "verify"]

_MODULES = {
    "ConversionError": "rules",
    "convert": "folders",
    "find_folder": "hub",
    "read_foreign": "folders",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"weights_convert.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'weights_convert' has no attribute {name!r}")
