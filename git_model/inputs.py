"""What to write about: a folder, a pattern, a list, a table or tars, as one stream of inputs."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from git_model.folders import PICTURES, VIDEOS
from git_model.input_items import Input, Packed, Refused
from git_model.input_paths import FolderInputs
from git_model.settings import GITError

__all__ = ["Input", "InputOptions", "Packed", "Refused", "find_inputs"]


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """How inputs are found.

    recursive: whether the folders in a folder are searched too.
    root: the folder that a list's or a table's paths lie in; None: the folder of the list itself.
    path_column, question_column: the columns of a table; None: see `find_inputs`.
    questions: asked about every picture.
    videos: whether videos count in a folder or a tar, for models with temporal embeddings.
    """

    recursive: bool = True
    root: Path | None = None
    path_column: str | None = None
    question_column: str | None = None
    questions: tuple[str, ...] = ()
    videos: bool = False


def find_inputs(source: str, options: InputOptions) -> Iterable[Input | Refused]:
    """The inputs of a source, which can be walked again and come in the same order."""
    path = Path(source)
    suffixes = PICTURES + VIDEOS if options.videos else PICTURES
    if path.is_dir():
        return FolderInputs(path, suffixes, options.recursive)
    raise GITError(f"{source}: there is no such file or folder")
