"""Inputs that are files: those of a folder, or that match a pattern, or that a list names.

A walk holds the names of one folder at a time, never those of all inputs.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from git_model.input_items import Input, Refused, one_line


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
        for found in walk(self.folder, self.suffixes, self.recursive):
            yield found if isinstance(found, Refused) else _input(self.folder, found)


def walk(folder: Path, suffixes: tuple[str, ...], recursive: bool) -> Iterator[str | Refused]:
    """Names of files below a folder, with / between their parts; see `FolderInputs`."""
    waiting, above = [("", 0)], list[tuple[int, int]]()
    while waiting:
        name, depth = waiting.pop()
        del above[depth:]
        try:
            status = (folder / name).stat()
            if (status.st_dev, status.st_ino) in above:
                reason = "a link to a folder that it lies in, expected no loops"
                yield Refused(name, one_line(f"{folder / name}: {reason}"))
                continue
            files, folders = _names(folder / name, suffixes)
        except OSError as error:
            yield Refused(name, one_line(f"{folder / name}: {error.strerror or error}"))
            continue
        above.append((status.st_dev, status.st_ino))
        yield from (_join(name, file) for file in files)
        if recursive:
            waiting += [(_join(name, inner), depth + 1) for inner in reversed(folders)]


def _names(folder: Path, suffixes: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """What lies in a folder: the names with such suffixes, and of the others those of folders."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.name.lower().endswith(suffixes):
                files.append(entry.name)
            elif _is_folder(entry):
                folders.append(entry.name)
    return sorted(files), sorted(folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _input(folder: Path, key: str) -> Input:
    return Input(key, folder / key)
