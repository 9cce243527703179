"""The inputs of a source as one stream: of a folder, a pattern, a list, a table, tars or a TSV.

Of tars and TSVs only headers and keys are read here, and nothing is unpacked to a disk. A walk
holds the names of one folder at a time, never those of all inputs.
"""

import errno
import os
import sys
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from glob import has_magic
from itertools import chain, pairwise
from pathlib import Path
from typing import BinaryIO

from git_model.batch.input_tables import (
    TABLE_READERS,
    ListInputs,
    StreamInputs,
    TableInputs,
    table_inputs,
)
from git_model.batch.items import AnyInput, ArchiveMember, Input, RefusedInput
from git_model.data.manifests import DataError, path_within
from git_model.data.tar import tar_members
from git_model.data.tsv import line_starts
from git_model.data.webdataset import shard_paths
from git_model.preprocessing.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from git_model.preprocessing.image import open_file, reason_of
from git_model.utils.errors import GITError, one_line

LIST_SUFFIXES = (".txt", ".lst", ".list")
COMPRESSED_TARS = (".tgz", *(f".tar.{end}" for end in ("gz", "bz2", "xz", "zst")))
MAX_KEY_BYTES = 1 << 12


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """How the inputs of a source are found.

    recursive: whether the folders in a folder are searched too.
    root: the folder that a list's or a table's paths lie in; None: the folder of the list itself.
    path_column, question_column: the columns of a table; None: see `find_inputs`.
    questions: asked about every image.
    videos: whether videos count in a folder or a tar, for models with temporal embeddings.
    """

    recursive: bool = True
    root: Path | None = None
    path_column: str | None = None
    question_column: str | None = None
    questions: tuple[str, ...] = ()
    videos: bool = False


def find_inputs(source: str, options: InputOptions) -> Iterable[AnyInput]:
    """The inputs of a source, which can be walked more than once and come in the same order.

    Args:
        source: a folder; a pattern such as photos/**/*.jpg; an image or a video; a list of paths
            (.txt, .lst, .list), or - for one on the standard input; a table (.jsonl, .csv,
            .parquet); the original's file of images (.tsv); WebDataset's shards (.tar, as a
            pattern such as {000..999}.tar or *.tar too).

    Raises:
        GITError: there is no such source, it is empty, or the options do not fit it.
    """
    if options.questions and options.question_column is not None:
        raise GITError("questions come from a column or from a list, expected one of the two")
    try:
        inputs = _open_source(source, options)
    except OSError as error:
        raise GITError(f"{source}: {error.strerror or error}") from None
    _require_used(source, inputs, options)
    if next(iter(inputs), None) is None:
        name = "standard input" if source == "-" else source
        raise GITError(f"{name}: there are no images in it, expected at least one")
    return InputsWithQuestions(inputs, options.questions) if options.questions else inputs


@dataclass(frozen=True)
class InputsWithQuestions:
    """Every input with each of some questions."""

    inputs: Iterable[AnyInput]
    questions: tuple[str, ...]

    def __iter__(self) -> Iterator[AnyInput]:
        for item in self.inputs:
            if isinstance(item, RefusedInput):
                yield item
            else:
                yield from (replace(item, question=question) for question in self.questions)


def _open_source(source: str, options: InputOptions) -> Iterable[AnyInput]:
    path, lower = Path(source), source.lower()
    suffixes = IMAGE_SUFFIXES + VIDEO_SUFFIXES if options.videos else IMAGE_SUFFIXES
    if source == "-":
        return StreamInputs.of(sys.stdin.buffer, options.root or Path())
    if path.is_dir():
        return FolderInputs(path, suffixes, options.recursive)
    if lower.endswith(COMPRESSED_TARS):
        raise GITError(f"{source}: a compressed tar, expected a plain one: unpack it first")
    if lower.endswith(".tar"):
        return TarInputs(tuple(shard_paths(source)), suffixes)
    if lower.endswith(IMAGE_SUFFIXES + VIDEO_SUFFIXES) and os.path.lexists(path):
        return (Input(path.name, path),)
    if path.is_file():
        return _open_file_of_inputs(path, options)
    if has_magic(source):
        return GlobInputs.of(source, IMAGE_SUFFIXES + VIDEO_SUFFIXES)
    raise GITError(f"{source}: there is no such file or folder")


def _open_file_of_inputs(path: Path, options: InputOptions) -> Iterable[AnyInput]:
    """The inputs of a file that names or holds them."""
    suffix, root = path.suffix.lower(), options.root or path.parent
    if suffix in LIST_SUFFIXES:
        return ListInputs(path, str(path), root)
    if suffix in TABLE_READERS:
        return table_inputs(path, root, options.path_column, options.question_column)
    if suffix == ".tsv":
        return TsvInputs(path)
    suffixes = ", ".join([*LIST_SUFFIXES, *TABLE_READERS, ".tsv", ".tar"])
    raise GITError(f"{path}: expected a folder, an image, or a file that ends in {suffixes}")


def _require_used(source: str, inputs: Iterable[AnyInput], options: InputOptions) -> None:
    """Refuse options that this form of source does not use."""
    if options.root is not None and not isinstance(inputs, ListInputs | StreamInputs | TableInputs):
        raise GITError(f"{source}: --root is for lists and tables of paths")
    if isinstance(inputs, TableInputs):
        return
    for name in ("path_column", "question_column"):
        if getattr(options, name) is not None:
            option = "--" + name.replace("_", "-")
            raise GITError(f"{source}: {option} is for tables ({', '.join(TABLE_READERS)})")


@dataclass(frozen=True)
class FolderInputs:
    """The files of a folder with certain suffixes, each folder's sorted, before those of the
    folders in it.

    Hidden files (the name begins with a dot) do not count. Links to folders are followed. A folder
    or a broken link that is named like an image is an input, which cannot be opened.
    """

    folder: Path
    suffixes: tuple[str, ...]
    recursive: bool = True

    def __iter__(self) -> Iterator[AnyInput]:
        for listing in _walk(self.folder, "", self.suffixes, self.recursive):
            if isinstance(listing, RefusedInput):
                yield listing
            else:
                for name in listing.files:
                    key = _join(listing.key, name)
                    yield Input(key, self.folder / key)


@dataclass(frozen=True)
class GlobInputs:
    """The files below a folder that match a pattern, of which each part stands for one name, or
    as ** for any folders; of the matches those with certain suffixes. See `FolderInputs`."""

    folder: Path
    parts: tuple[str, ...]
    suffixes: tuple[str, ...]

    @classmethod
    def of(cls, pattern: str, suffixes: tuple[str, ...]) -> "GlobInputs":
        """Split a pattern; keys will begin after its last part before the first * or ?.

        Raises:
            DataError: there is no folder to search.
        """
        parts = Path(pattern).parts
        first = next(i for i, part in enumerate(parts) if has_magic(part))
        rest = (*parts[first:], "*") if parts[-1] == "**" else parts[first:]
        folder = Path(*parts[:first])
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder")
        return cls(folder, rest, suffixes)

    def __iter__(self) -> Iterator[AnyInput]:
        for match in self._matches("", self.parts):
            yield match if isinstance(match, RefusedInput) else Input(match, self.folder / match)

    def _matches(self, key: str, parts: tuple[str, ...]) -> Iterator[str | RefusedInput]:
        first, rest = parts[0], parts[1:]
        for listing in _walk(self.folder, key, self.suffixes, recursive=first == "**"):
            if isinstance(listing, RefusedInput):
                yield listing
            elif first == "**":
                yield from self._matches(listing.key, rest)
            else:
                names = listing.folders if rest else listing.files
                for key in (_join(listing.key, name) for name in names if fnmatch(name, first)):
                    yield from self._matches(key, rest) if rest else (key,)


@dataclass(frozen=True)
class _Listing:
    """What lies in a folder: the names of files with certain suffixes, and those of folders."""

    key: str
    files: list[str]
    folders: list[str]


def _walk(
    root: Path, key: str, suffixes: tuple[str, ...], recursive: bool
) -> Iterator[_Listing | RefusedInput]:
    """A folder, and those in it."""
    # no recursion, because folders may be nested more deeply than Python allows
    waiting, above = [(key, 0)], list[tuple[int, int]]()
    while waiting:
        key, depth = waiting.pop()
        del above[depth:]
        try:
            status = (root / key).stat()
            if (status.st_dev, status.st_ino) in above:
                raise OSError(errno.ELOOP, "a link to a folder that it lies in itself")
            listing = _list_folder(root, key, suffixes)
        except OSError as error:
            reason = one_line(f"{root / key}: {error.strerror or error}")
            yield RefusedInput(key or ".", reason)
            continue
        above.append((status.st_dev, status.st_ino))
        yield listing
        if recursive:
            waiting += [(_join(key, name), depth + 1) for name in reversed(listing.folders)]


def _list_folder(root: Path, key: str, suffixes: tuple[str, ...]) -> _Listing:
    files, folders = [], []
    with os.scandir(root / key) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.name.lower().endswith(suffixes):
                files.append(entry.name)
            elif _is_folder(entry):
                folders.append(entry.name)
    return _Listing(key, sorted(files), sorted(folders))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


@dataclass(frozen=True)
class TarInputs:
    """Files with certain suffixes in tars. With several tars a key begins with the tar's name, for
    each may have a 0001.jpg."""

    paths: tuple[Path, ...]
    suffixes: tuple[str, ...]

    def __iter__(self) -> Iterator[AnyInput]:
        top = os.path.commonpath([path.parent.absolute() for path in self.paths])
        for path in self.paths:
            name = path.absolute().relative_to(top).with_suffix("").as_posix()
            yield from self._members(path, f"{name}/" if len(self.paths) > 1 else "")

    def _members(self, path: Path, prefix: str) -> Iterator[AnyInput]:
        try:
            for member in tar_members(path):
                if member.name.lower().endswith(self.suffixes):
                    item = _member_input(path, prefix, member)
                    if item is not None:
                        yield item
        except Exception as error:  # a damaged file makes tarfile raise almost anything
            reason = reason_of(error)
            if not isinstance(error, DataError | OSError):
                reason = f"the tar is damaged, what follows is lost: {reason}"
            yield RefusedInput(prefix.rstrip("/") or path.name, one_line(f"{path}: {reason}"))


def _member_input(path: Path, prefix: str, member: tarfile.TarInfo) -> AnyInput | None:
    """A member as an input; None if it is hidden."""
    try:
        key = path_within(Path(), member.name).as_posix()
        if any(part.startswith(".") for part in key.split("/")):
            return None
        if not member.isreg() or member.issparse():
            raise DataError("a link, a folder or the like, expected a file")
    except DataError as error:
        return RefusedInput(prefix + member.name, one_line(f"{path}: {member.name}: {error}"))
    return Input(prefix + key, ArchiveMember(path, member.offset_data, member.size))


@dataclass(frozen=True)
class TsvInputs:
    """The rows of the original's file of images, which are key TAB base64; see `data/tsv.py`."""

    path: Path

    def __iter__(self) -> Iterator[AnyInput]:
        number = 0
        try:
            with open_file(self.path) as file:
                size = os.fstat(file.fileno()).st_size
                for start, end in pairwise(chain(line_starts(self.path), [size])):
                    number += 1
                    if start != size:  # an index may have the file's end, too
                        yield self._row_input(file, number, start, end)
        except (OSError, ValueError) as error:
            reason = DataError(f"{reason_of(error)}, what follows is lost")
            yield RefusedInput.at(str(self.path), f"row {number + 1}", reason)

    def _row_input(self, file: BinaryIO, number: int, start: int, end: int) -> AnyInput:
        try:
            key = _row_key(file, start, end)
        except DataError as error:
            return RefusedInput.at(str(self.path), f"row {number}", error)
        first = start + len(key) + 1
        location = ArchiveMember(self.path, first, end - first, is_base64=True)
        return Input(os.fsdecode(key), location)


def _row_key(file: BinaryIO, start: int, end: int) -> bytes:
    """The key of the row that lies there."""
    if not 0 <= start < end:
        raise DataError("the file .lineidx is of another TSV, expected rising numbers")
    file.seek(max(start - 1, 0))
    row = file.read(min(end - start, MAX_KEY_BYTES) + (start > 0))
    if start > 0 and row[:1] != b"\n":
        raise DataError("the file .lineidx is of another TSV, expected the beginnings of its rows")
    row = row[start > 0 :]
    key, tab, _ = row.partition(b"\t")
    if not key or not tab or b"\n" in key:
        raise DataError(f"begins {row[:40]!r}, expected a key, a tab and base64")
    return key
