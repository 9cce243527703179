"""Inputs that are files: one, or those of a folder, or those that match a pattern.

A walk holds the names of one folder at a time, never those of all inputs.
"""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from glob import has_magic
from pathlib import Path

from git_model.batch.input_items import Input, Refused, one_line
from git_model.data.manifests import DataError


@dataclass(frozen=True)
class FileInputs:
    """One file."""

    path: Path

    def __iter__(self) -> Iterator[Input]:
        yield Input(self.path.name, self.path)


@dataclass(frozen=True)
class FolderInputs:
    """The files of a folder with certain suffixes, each folder's sorted, before those of the
    folders in it.

    What is hidden (its name begins with a dot) is passed over. Links to folders are followed. A
    folder or a broken link that is named like a picture is an input, which cannot be opened.
    """

    folder: Path
    suffixes: tuple[str, ...]
    recursive: bool = True

    def __iter__(self) -> Iterator[Input | Refused]:
        for found in _walk(self.folder, "", self.suffixes, self.recursive):
            if isinstance(found, Refused):
                yield found
            else:
                for name in found.files:
                    key = _join(found.key, name)
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
        """Take a pattern apart; keys will begin after its last part before the first * or ?.

        Raises:
            DataError: there is no folder to look in.
        """
        parts = Path(pattern).parts
        first = next(i for i, part in enumerate(parts) if has_magic(part))
        rest = (*parts[first:], "*") if parts[-1] == "**" else parts[first:]
        folder = Path(*parts[:first])
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder")
        return cls(folder, rest, suffixes)

    def __iter__(self) -> Iterator[Input | Refused]:
        for found in self._matches("", self.parts):
            yield found if isinstance(found, Refused) else Input(found, self.folder / found)

    def _matches(self, key: str, parts: tuple[str, ...]) -> Iterator[str | Refused]:
        first, rest = parts[0], parts[1:]
        for found in _walk(self.folder, key, self.suffixes, recursive=first == "**"):
            if isinstance(found, Refused):
                yield found
            elif first == "**":
                yield from self._matches(found.key, rest)
            else:
                names = found.folders if rest else found.files
                for key in (_join(found.key, name) for name in names if fnmatch(name, first)):
                    yield from self._matches(key, rest) if rest else (key,)


@dataclass(frozen=True)
class _Folder:
    """What lies in a folder: the names of files with certain suffixes, and those of folders."""

    key: str
    files: list[str]
    folders: list[str]


def _walk(
    root: Path, key: str, suffixes: tuple[str, ...], recursive: bool
) -> Iterator[_Folder | Refused]:
    """A folder, and those in it."""
    # no recursion, for folders may lie in each other more deeply than Python allows
    waiting, above = [(key, 0)], list[tuple[int, int]]()
    while waiting:
        key, depth = waiting.pop()
        del above[depth:]
        try:
            status = (root / key).stat()
            if (status.st_dev, status.st_ino) in above:
                raise OSError(errno.ELOOP, "a link to a folder that it lies in itself")
            found = _names(root, key, suffixes)
        except OSError as error:
            yield Refused(key or ".", one_line(f"{root / key}: {error.strerror or error}"))
            continue
        above.append((status.st_dev, status.st_ino))
        yield found
        if recursive:
            waiting += [(_join(key, name), depth + 1) for name in reversed(found.folders)]


def _names(root: Path, key: str, suffixes: tuple[str, ...]) -> _Folder:
    files, folders = [], []
    with os.scandir(root / key) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.name.lower().endswith(suffixes):
                files.append(entry.name)
            elif _is_folder(entry):
                folders.append(entry.name)
    return _Folder(key, sorted(files), sorted(folders))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
