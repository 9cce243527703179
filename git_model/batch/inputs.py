"""The inputs of one or more sources as one stream: folders, patterns, files, web addresses, lists,
tables, tars, TSVs.

No input is kept in memory, and every walk gives the same inputs in the same order.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from glob import has_magic
from itertools import islice
from pathlib import Path
from typing import cast

from git_model.batch.input_archives import TarInputs, TsvInputs
from git_model.batch.input_folders import FolderInputs, GlobInputs
from git_model.batch.input_parquet import ParquetInputs, parquet_inputs
from git_model.batch.input_tables import ListInputs, StreamInputs, TableInputs, table_inputs
from git_model.batch.items import AnyInput, Input, RefusedInput, WebAddress
from git_model.batch.table_readers import TABLE_READERS
from git_model.data.webdataset import shard_paths
from git_model.preprocessing.fetch import is_url
from git_model.preprocessing.formats import (
    IMAGE_SUFFIXES,
    MEDIA_STARTS,
    START_BYTES,
    VIDEO_SUFFIXES,
)
from git_model.preprocessing.image import open_file
from git_model.utils.errors import GITError

LIST_SUFFIXES = (".txt", ".lst", ".list")
PACKED_SUFFIXES = (".zip", ".7z", ".rar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".lz4")
BATCH_SUFFIXES = (
    *LIST_SUFFIXES,
    *TABLE_READERS,
    ".tsv",
    ".tar",
)  # of files that name or hold inputs
MEDIA_SUFFIXES = IMAGE_SUFFIXES + VIDEO_SUFFIXES


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """How the inputs of a source are found.

    recursive: whether the folders in a folder are searched, too.
    root: the folder that the paths of a list or a table are relative to; None: that of the list.
    path_column: the column of a table with the paths, or of Parquet with the images; None: see
        `input_tables.PATH_COLUMNS`.
    question_column: the column of a table with the questions; None: there are none.
    questions: questions about every image.
    videos: whether videos in a folder or a tar are inputs, for models with temporal embeddings.
    """

    recursive: bool = True
    root: Path | None = None
    path_column: str | None = None
    question_column: str | None = None
    questions: tuple[str, ...] = ()
    videos: bool = False


@dataclass(frozen=True)
class SourceInputs:
    """The inputs of all sources, in order, each with each of the questions.

    parts: for each source the prefix of its keys, and its inputs.
    """

    parts: tuple[tuple[str, Iterable[AnyInput]], ...]
    questions: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[AnyInput]:
        for prefix, inputs in self.parts:
            for item in inputs:
                if prefix and not isinstance(getattr(item, "location", None), WebAddress):
                    item = replace(item, key=prefix + item.key)
                if isinstance(item, RefusedInput) or not self.questions:
                    yield item
                else:
                    yield from (replace(item, question=question) for question in self.questions)

    def untaken(self) -> Iterator[str]:
        """The names of files that look like images or videos but are not inputs, in another
        walk."""
        for prefix, inputs in self.parts:
            if isinstance(inputs, FolderInputs | GlobInputs | TarInputs):
                yield from (prefix + name for name in inputs.untaken())


def find_inputs(sources: str | Sequence[str], options: InputOptions) -> SourceInputs:
    """The inputs of one or more sources. They can be walked more than once, always in the same
    order.

    Args:
        sources: each a folder; a pattern such as photos/**/*.jpg; an image or a video; an http or
            https address; a list of paths and addresses (.txt, .lst, .list, .json), or - for one on
            the standard input; a table (.json, .jsonl, .csv, .parquet) of paths, or of Parquet with
            the images in it; the original's file of images (.tsv); WebDataset's shards (.tar, as a
            pattern such as {000..999}.tar or *.tar too). A key is a path below the source; with
            several sources it is a path below their common folder.

    Raises:
        GITError: a source does not exist, is empty or is not a list, or the options do not fit it.
    """
    if options.questions and options.question_column is not None:
        raise GITError("questions come from a column or from a list, expected one of the two")
    sources = [sources] if isinstance(sources, str) else list(sources)
    opened = [_opened(source, options) for source in sources]
    _require_used(sources, opened, options)
    for source, inputs in zip(sources, opened, strict=True):
        _require_inputs(source, inputs)
    return SourceInputs(tuple(zip(_prefixes(opened), opened, strict=True)), options.questions)


def _opened(source: str, options: InputOptions) -> Iterable[AnyInput]:
    try:
        return _open_source(source, options)
    except OSError as error:
        raise GITError(f"{source}: {error.strerror or error}") from None


def _open_source(source: str, options: InputOptions) -> Iterable[AnyInput]:
    path, lower = Path(source), source.lower()
    suffixes = MEDIA_SUFFIXES if options.videos else IMAGE_SUFFIXES
    if not source:  # or else an empty variable of a shell would mean the working folder
        raise GITError("a source is empty, expected a folder, an image or a list")
    if source == "-":
        return StreamInputs.of(sys.stdin.buffer, options.root or Path())
    if is_url(source):
        return SingleInput(Input(source, WebAddress(source)))
    if path.is_dir():
        return FolderInputs(path, suffixes, options.recursive)
    if lower.endswith(PACKED_SUFFIXES):
        raise GITError(
            f"{source}: a compressed file, expected a folder, a plain tar or the like: unpack it "
            "first"
        )
    if lower.endswith(".tar"):
        return TarInputs(tuple(shard_paths(source)), suffixes)
    if lower.endswith(MEDIA_SUFFIXES) and os.path.lexists(path):
        return SingleInput(Input(path.name, path))
    if path.is_file():
        return _open_file_of_inputs(path, options)
    if has_magic(source):
        return GlobInputs.of(source, MEDIA_SUFFIXES)
    raise GITError(f"{source}: there is no such file or folder")


@dataclass(frozen=True)
class SingleInput:
    """An image or a video by its own name."""

    item: Input

    def __iter__(self) -> Iterator[AnyInput]:
        yield self.item


def _open_file_of_inputs(path: Path, options: InputOptions) -> Iterable[AnyInput]:
    """The inputs of a file that names or holds them."""
    suffix, root = path.suffix.lower(), options.root or path.parent
    if suffix in LIST_SUFFIXES:
        _require_text(path)
        return ListInputs(path, str(path), root)
    images = parquet_inputs(path, options.path_column, options.question_column)
    if images is not None:
        return images
    if suffix in TABLE_READERS:
        return table_inputs(path, root, options.path_column, options.question_column)
    if suffix == ".tsv":
        return TsvInputs(path)
    with open_file(path) as file:
        if MEDIA_STARTS.match(file.read(START_BYTES)):  # an image under another name
            return SingleInput(Input(path.name, path))
    suffixes = ", ".join(BATCH_SUFFIXES)
    raise GITError(f"{path}: expected a folder, an image, or a file that ends in {suffixes}")


def _require_text(path: Path) -> None:
    """Refuse a file that is not a list, even if it has the name of one."""
    with open_file(path) as file:
        if b"\0" in file.read(1 << 12):
            raise GITError(f"{path}: not a list: expected a text with a path on each line")


def _require_used(
    sources: Sequence[str], opened: Sequence[Iterable[AnyInput]], options: InputOptions
) -> None:
    """Refuse options that no source uses."""
    lists = ListInputs | StreamInputs | TableInputs
    names = sources[0] if len(sources) == 1 else "the sources"
    if options.root is not None and not any(isinstance(inputs, lists) for inputs in opened):
        raise GITError(f"{names}: --root is for lists and tables of paths")
    if any(isinstance(inputs, TableInputs | ParquetInputs) for inputs in opened):
        return
    for name in ("path_column", "question_column"):
        if getattr(options, name) is not None:
            option = "--" + name.replace("_", "-")
            raise GITError(f"{names}: {option} is for tables ({', '.join(TABLE_READERS)})")


def _require_inputs(source: str, inputs: Iterable[AnyInput]) -> None:
    """Refuse a source without inputs, and a list of which no line names a file that exists."""
    name = "standard input" if source == "-" else source
    if next(iter(inputs), None) is None:
        raise GITError(f"{name}: there are no images in it, expected at least one{_others(inputs)}")
    if not isinstance(inputs, ListInputs | StreamInputs | TableInputs):
        return
    n_lines, first = 0, ""
    for item in inputs:
        if isinstance(item, Input) and _may_exist(item):
            return
        n_lines += 1
        first = first or (item.reason if isinstance(item, RefusedInput) else str(item.location))
    raise GITError(
        f"{name}: none of its {n_lines} lines names a file that exists, expected a list of paths, "
        f"which begin at the list's own folder or at --root; the first: {first}"
    )


def _others(inputs: Iterable[AnyInput]) -> str:
    """The other files in a source without inputs, for an error."""
    names = list(islice(getattr(inputs, "untaken", lambda: iter(()))(), 3))
    listed = ", ".join(names)
    return f"; files that are not taken, see `git-model batch --help`: {listed}" if names else ""


def _may_exist(item: Input) -> bool:
    return not isinstance(item.location, Path) or os.path.lexists(item.location)


def _prefixes(opened: Sequence[Iterable[AnyInput]]) -> list[str]:
    """The prefix of the keys of each source: empty for a single source; with several sources the
    folder of each, below their common folder."""
    if len(opened) == 1:
        return [""]
    folders = [os.path.abspath(_folder_of(inputs)) for inputs in opened]  # noqa: PTH100
    local = [
        folder for folder, inputs in zip(folders, opened, strict=True) if not _is_remote(inputs)
    ]
    try:
        top = os.path.commonpath(local) if local else folders[0]
    except ValueError:  # Windows has several roots
        raise GITError("the sources lie on several disks, expected one: run them apart") from None
    below = [os.path.relpath(folder, top).replace(os.sep, "/") for folder in folders]
    return ["" if name == "." else f"{name}/" for name in below]


def _is_remote(inputs: Iterable[AnyInput]) -> bool:
    return isinstance(inputs, SingleInput) and isinstance(inputs.item.location, WebAddress)


def _folder_of(inputs: Iterable[AnyInput]) -> Path:
    """The folder that the keys of a source are paths in."""
    if isinstance(inputs, SingleInput):
        location = inputs.item.location
        return location.parent if isinstance(location, Path) else Path()
    folder = getattr(inputs, "folder", None)
    return cast(Path, inputs.root if folder is None else folder)  # type: ignore[attr-defined]
