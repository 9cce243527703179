"""The files of a folder, or those that match a pattern. A walk holds the names of one folder at a
time, not those of all inputs."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from glob import has_magic
from pathlib import Path
from typing import Literal

from git_model.batch.items import AnyInput, Input, RefusedInput
from git_model.data.manifests import DataError
from git_model.data.untaken import looks_like_media_file
from git_model.utils.errors import bounded_line, shortened


@dataclass(frozen=True)
class FolderInputs:
    """The files of a folder with certain suffixes: the files of each folder, sorted, before those
    of the folders in it.

    Hidden files (the name begins with a dot) are not inputs. Links to folders are followed. A
    folder with the name of an image is searched; a broken link with such a name is an input that
    cannot be opened.
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

    def untaken(self) -> Iterator[str]:
        """The names of files that look like images or videos and are not inputs."""
        for listing in _walk(self.folder, "", self.suffixes, self.recursive):
            if not isinstance(listing, RefusedInput):
                keys = (_join(listing.key, name) for name in listing.others)
                yield from (key for key in keys if looks_like_media_file(self.folder / key))


@dataclass(frozen=True)
class GlobInputs:
    """The files below a folder that match a pattern and have certain suffixes. Each part of the
    pattern stands for one name, or, as **, for any folders. See `FolderInputs`."""

    folder: Path
    parts: tuple[str, ...]
    suffixes: tuple[str, ...]

    @classmethod
    def of(cls, pattern: str, suffixes: tuple[str, ...]) -> "GlobInputs":
        """Split a pattern. Keys are relative to its parts before the first * or ?.

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
        for match in self._matches("", self.parts, "files"):
            yield match if isinstance(match, RefusedInput) else Input(match, self.folder / match)

    def untaken(self) -> Iterator[str]:
        """The names of files that match, look like images or videos, and are not inputs."""
        for match in self._matches("", self.parts, "others"):
            if isinstance(match, str) and looks_like_media_file(self.folder / match):
                yield match

    def _matches(
        self, key: str, parts: tuple[str, ...], kind: Literal["files", "others"]
    ) -> Iterator[str | RefusedInput]:
        """The names of the matches of this kind, see `_Listing`."""
        first, rest = parts[0], parts[1:]
        for listing in _walk(self.folder, key, self.suffixes, recursive=first == "**"):
            if isinstance(listing, RefusedInput):
                yield listing
            elif first == "**":
                yield from self._matches(listing.key, rest, kind)
            else:
                names = listing.folders if rest else getattr(listing, kind)
                for key in (_join(listing.key, name) for name in names if fnmatch(name, first)):
                    yield from self._matches(key, rest, kind) if rest else (key,)


@dataclass(frozen=True)
class _Listing:
    """What lies in a folder: the names of files with certain suffixes, of folders, and of other
    files; hidden folders are left out, and hidden files are among the others."""

    key: str
    files: list[str]
    folders: list[str]
    others: list[str]


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
                raise OSError(errno.ELOOP, "a link to a folder that contains the link")
            listing = _list_folder(root, key, suffixes)
        except OSError as error:
            reason = bounded_line(f"{shortened(str(root / key))}: {error.strerror or error}")
            yield RefusedInput(key or ".", reason)
            continue
        above.append((status.st_dev, status.st_ino))
        yield listing
        if recursive:
            waiting += [(_join(key, name), depth + 1) for name in reversed(listing.folders)]


def _list_folder(root: Path, key: str, suffixes: tuple[str, ...]) -> _Listing:
    files, folders, others = [], [], []
    with os.scandir(root / key) as entries:
        for entry in entries:
            is_hidden = entry.name.startswith(".")
            if _is_folder(entry):  # also one that is named as an image
                if not is_hidden:
                    folders.append(entry.name)
            elif not is_hidden and entry.name.lower().endswith(suffixes):
                files.append(entry.name)
            else:
                others.append(entry.name)
    return _Listing(key, sorted(files), sorted(folders), sorted(others))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
