"""What to write about: a folder, a pattern, a list, a table or tars, as one stream of inputs."""

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from glob import has_magic
from pathlib import Path

from git_model.batch.input_archives import TarInputs, TsvInputs
from git_model.batch.input_items import Input, Packed, Refused, printable
from git_model.batch.input_lists import ListInputs, StreamInputs
from git_model.batch.input_paths import FileInputs, FolderInputs, GlobInputs
from git_model.batch.input_tables import TABLES, TableInputs, table_inputs
from git_model.data.folder import PICTURES, VIDEOS
from git_model.data.webdataset import shard_paths
from git_model.utils.errors import GITError

__all__ = ["Input", "InputOptions", "Packed", "Refused", "find_inputs"]

LISTS = (".txt", ".lst", ".list")
COMPRESSED_TARS = (".tgz", *(f".tar.{end}" for end in ("gz", "bz2", "xz", "zst")))


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


@dataclass(frozen=True)
class Asked:
    """Inputs with each of some questions."""

    inputs: Iterable[Input | Refused]
    questions: tuple[str, ...]

    def __iter__(self) -> Iterator[Input | Refused]:
        for found in self.inputs:
            if isinstance(found, Refused):
                yield found
            else:
                yield from (replace(found, question=question) for question in self.questions)


def find_inputs(source: str, options: InputOptions) -> Iterable[Input | Refused]:
    """The inputs of a source, which can be walked more than once and come in the same order.

    Args:
        source: a folder; a pattern such as photos/**/*.jpg; a picture or a video; a list of paths
            (.txt, .lst, .list), or - for one on the standard input; a table (.jsonl, .csv,
            .parquet); the original's file of pictures (.tsv); WebDataset's shards (.tar, as a
            pattern such as {000..999}.tar or *.tar too).

    Raises:
        GITError: there is no such thing, it holds nothing, or the options do not fit it.
    """
    if options.questions and options.question_column is not None:
        raise GITError("questions come from a column or from a list, expected one of the two")
    with printable():
        try:
            inputs = _found(source, options)
        except OSError as error:
            raise GITError(f"{source}: {error.strerror or error}") from None
        _require_use(source, inputs, options)
        if next(iter(inputs), None) is None:
            name = "standard input" if source == "-" else source
            raise GITError(f"{name}: there are no pictures in it, expected at least one")
    return Asked(inputs, options.questions) if options.questions else inputs


def _found(source: str, options: InputOptions) -> Iterable[Input | Refused]:
    path, lower = Path(source), source.lower()
    suffixes = PICTURES + VIDEOS if options.videos else PICTURES
    if source == "-":
        return StreamInputs.of(sys.stdin.buffer, options.root or Path())
    if path.is_dir():
        return FolderInputs(path, suffixes, options.recursive)
    if lower.endswith(COMPRESSED_TARS):
        raise GITError(f"{source}: a compressed tar, expected a plain one: unpack it first")
    if lower.endswith(".tar"):
        return TarInputs(tuple(shard_paths(source)), suffixes)
    if lower.endswith(PICTURES + VIDEOS) and os.path.lexists(path):
        return FileInputs(path)
    if path.is_file():
        return _listed(path, options)
    if has_magic(source):
        return GlobInputs.of(source, PICTURES + VIDEOS)
    raise GITError(f"{source}: there is no such file or folder")


def _listed(path: Path, options: InputOptions) -> Iterable[Input | Refused]:
    """The inputs of a file that lists them or holds them."""
    suffix, root = path.suffix.lower(), options.root or path.parent
    if suffix in LISTS:
        return ListInputs(path, str(path), root)
    if suffix in TABLES:
        return table_inputs(path, root, options.path_column, options.question_column)
    if suffix == ".tsv":
        return TsvInputs(path)
    known = ", ".join([*LISTS, *TABLES, ".tsv", ".tar"])
    raise GITError(f"{path}: expected a folder, a picture, or a file that ends in {known}")


def _require_use(source: str, inputs: Iterable[Input | Refused], options: InputOptions) -> None:
    """Refuse options that this form of inputs has no use for."""
    if options.root is not None and not isinstance(inputs, ListInputs | StreamInputs | TableInputs):
        raise GITError(f"{source}: --root is for lists and tables of paths")
    if isinstance(inputs, TableInputs):
        return
    for name in ("path_column", "question_column"):
        if getattr(options, name) is not None:
            option = "--" + name.replace("_", "-")
            raise GITError(f"{source}: {option} is for tables ({', '.join(TABLES)})")
