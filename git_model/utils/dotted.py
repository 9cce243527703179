"""An object by its dotted name, such as `package.module.name`.

Importing a module runs it. So only names from a user's own recipe are used here, never names from a
checkpoint or a data set.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

from git_model.utils.errors import ConfigError, GITError

NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)


def import_object(name: str, where: str) -> Any:
    """The function or class of a dotted name.

    Args:
        where: what errors begin with, such as the recipe's key.

    Raises:
        ConfigError: it is not a dotted name, its module cannot be imported or lacks the name, or
            the object cannot be called.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"{where} is {name!r}, expected a dotted name such as module.function")
    module_name, _, attribute = name.rpartition(".")
    try:
        module = import_module(module_name)
    except Exception as error:  # whatever the user's module raises
        raise ConfigError(
            f"{where} is {name}, but {module_name} cannot be imported ({error}): its folder must "
            "be on Python's path, as with PYTHONPATH=."
        ) from None
    value = getattr(module, attribute, None)
    if not callable(value):
        problem = "has no such name" if value is None else "cannot be called"
        raise ConfigError(f"{where} is {name}, but {module_name} {problem}")
    return value


def call_object(name: str, where: str, *arguments: Any, **options: Any) -> Any:
    """Call the object of a dotted name.

    Raises:
        ConfigError: as in `import_object`, or the call fails.
    """
    function = import_object(name, where)
    with own_code(f"{where} is {name}, which cannot be called so"):
        return function(*arguments, **options)


@contextmanager
def own_code(problem: str) -> Iterator[None]:
    """Turn whatever an object of the user's raises into one line, which begins with `problem`.
    Errors of this project, and those of memory, stay as they are."""
    try:
        yield
    except (GITError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and "memory" in str(error):  # of a GPU
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{problem}: {reason}") from error


def dotted_name(value: Any) -> str:
    """The dotted name of a function or class, or of an object's class."""
    value = value.func if isinstance(value, partial) else value
    target = value if hasattr(value, "__qualname__") else type(value)
    return f"{target.__module__}.{target.__qualname__}"


def name_with_arguments(value: Any) -> str:
    """The dotted name, and the arguments of a `functools.partial`, such as
    `torch.optim.sgd.SGD(momentum=0.9)`. Of an argument that is no number, text or list it has the
    type's name only."""
    if not isinstance(value, partial):
        return dotted_name(value)
    named = (f"{name}={_plain(item)}" for name, item in sorted(value.keywords.items()))
    return f"{dotted_name(value)}({', '.join([*map(_plain, value.args), *named])})"


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    is_plain = value is None or type(value) in (bool, int, float, str)
    return repr(value) if is_plain else dotted_name(value)
