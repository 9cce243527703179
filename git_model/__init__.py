"""GIT, the Generative Image-to-text Transformer, from scratch in PyTorch.

    from git_model import Captioner
    captioner = Captioner.from_pretrained("demo")
    print(captioner.caption("examples/images/two_shapes.png").text)

A name is imported when it is first used, so that `import git_model` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from git_model.captioner import Caption, Captioner
    from git_model.config import DecodingOptions, GITConfig
    from git_model.generation.generate import generate
    from git_model.generation.sampling import Generation
    from git_model.model.git import GIT, Scene
    from git_model.preprocessing.inputs import Frames
    from git_model.utils.errors import GITError

# The public names, and the module that each is imported from when first used.
_MODULES = {
    "GIT": "model.git",
    "Caption": "captioner",
    "Captioner": "captioner",
    "DecodingOptions": "config",
    "Frames": "preprocessing.inputs",
    "GITConfig": "config",
    "GITError": "utils.errors",
    "Generation": "generation.sampling",
    "Scene": "model.git",
    "generate": "generation.generate",
}

__all__ = [
    "GIT",
    "Caption",
    "Captioner",
    "DecodingOptions",
    "Frames",
    "GITConfig",
    "GITError",
    "Generation",
    "Scene",
    "generate",
]


def __dir__() -> list[str]:
    return ["__version__", *__all__]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _MODULES:
        raise AttributeError(f"module 'git_model' has no attribute {name!r}")
    return getattr(import_module(f"git_model.{_MODULES[name]}"), name)


def _version() -> str:
    """The version of the installed package; a copy of the source that is not installed has none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("git-model")
    except PackageNotFoundError:
        return "unknown"
