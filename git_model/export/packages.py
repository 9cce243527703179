"""Packages of the extras `onnx` and `openvino`."""

from collections.abc import Sequence
from importlib.util import find_spec

from git_model.utils.errors import GITError


def require_packages(extra: str, names: Sequence[str]) -> None:
    """Refuse to go on without these packages.

    Raises:
        GITError: it names the package and the extra that installs it.
    """
    for name in names:
        if find_spec(name) is None:
            raise GITError(f"the package {name} is not installed: pip install 'git-model[{extra}]'")
