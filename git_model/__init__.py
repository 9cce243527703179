"""GIT, the Generative Image-to-text Transformer, from scratch in PyTorch.

    from git_model import Captioner
    git = Captioner.from_pretrained("demo")
    print(git.caption("photo.jpg").text)

Names are imported when first used, so that `import git_model` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from git_model.captioner import Captioner
    from git_model.config import DecodingOptions, GITConfig
    from git_model.decoding import generate
    from git_model.model import GIT, Scene
    from git_model.search import Generation
    from git_model.settings import GITError
    from git_model.speaker import Caption

__all__ = [
    "GIT",
    "Caption",
    "Captioner",
    "DecodingOptions",
    "GITConfig",
    "GITError",
    "Generation",
    "Scene",
    "generate",
]

_ROOMS = {
    "captioner": ("Captioner",),
    "settings": ("GITError",),
    "config": ("DecodingOptions", "GITConfig"),
    "decoding": ("generate",),
    "search": ("Generation",),
    "speaker": ("Caption",),
    "model": ("GIT", "Scene"),
}


def __getattr__(name: str) -> Any:
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(import_module(f"git_model.{room}"), name)
    raise AttributeError(f"module 'git_model' has no attribute {name!r}")
