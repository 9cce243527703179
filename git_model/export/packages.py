"""Packages of the extras `onnx` and `openvino`."""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

from git_model.utils.errors import GITError


def require_packages(extra: str, names: Sequence[str]) -> None:
    """Refuse to continue without these packages.

    Raises:
        GITError: a package is missing; the message names it and the extra that installs it.
    """
    for name in names:
        if find_spec(name) is None:
            raise GITError(f"the package {name} is not installed: pip install 'git-model[{extra}]'")


@cache
def openvino_core() -> Any:
    """OpenVINO's core, one for the whole life of this process: when the last core is deleted,
    OpenVINO unloads its libraries, and threads that used them crash at their end."""
    import openvino

    return openvino.Core()
