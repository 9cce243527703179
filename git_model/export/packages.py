"""Packages of the extras `onnx` and `openvino`."""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from git_model.utils.errors import GITError, one_line


def require_packages(extra: str, names: Sequence[str]) -> None:
    """Refuse to continue without these packages.

    Raises:
        GITError: a package is missing, or cannot be loaded; the message names it and the extra that
            installs it.
    """
    for name in names:
        install = f"pip install 'git-model[{extra}]'"
        if find_spec(name) is None:
            raise GITError(f"the package {name} is not installed: {install}")
        try:
            import_module(name)
        except (ImportError, OSError) as error:  # a library of the system that it needs
            reason = one_line(str(error))
            raise GITError(f"the package {name} cannot be loaded ({reason}): {install}") from None


@cache
def openvino_core() -> Any:
    """OpenVINO's core, one for the whole life of this process: when the last core is deleted,
    OpenVINO unloads its libraries, and threads that used them crash at their end."""
    import openvino

    return openvino.Core()
