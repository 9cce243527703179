"""The files in tars, and in the rows of the original's TSV. Only headers and keys are read, and
nothing is unpacked to a disk."""

import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import BinaryIO

from git_model.batch.items import MAX_NAME_BYTES, AnyInput, ArchiveMember, Input, RefusedInput
from git_model.data.manifests import DataError, path_within
from git_model.data.tar import tar_members
from git_model.data.tsv import line_starts
from git_model.preprocessing.formats import START_BYTES, looks_like_media
from git_model.preprocessing.image import open_file, reason_of
from git_model.utils.errors import bounded_line


@dataclass(frozen=True)
class TarInputs:
    """Files with certain suffixes in tars. With several tars a key begins with the tar's name,
    because each of them may have a 0001.jpg."""

    paths: tuple[Path, ...]
    suffixes: tuple[str, ...]

    def __iter__(self) -> Iterator[AnyInput]:
        for path in self.paths:
            yield from self._members(path, self._prefix(path))

    @property
    def folder(self) -> Path:
        """The folder that the keys are relative to: the common folder of several tars; for one tar
        a folder of its name."""
        if len(self.paths) == 1:
            return self.paths[0].with_suffix("")
        return Path(os.path.commonpath([path.parent.absolute() for path in self.paths]))

    def untaken(self) -> Iterator[str]:
        """The names of members that look like images or videos and are not inputs."""
        for path in self.paths:
            prefix = self._prefix(path)
            with suppress(Exception):  # damage is an input's refusal
                for member in tar_members(path):
                    start = partial(_start_of, path, member)
                    is_other = not member.name.lower().endswith(self.suffixes)
                    is_file = member.isreg() and not member.issparse()
                    if is_file and is_other and looks_like_media(Path(member.name).name, start):
                        yield prefix + member.name

    def _prefix(self, path: Path) -> str:
        if len(self.paths) == 1:
            return ""
        name = path.absolute().relative_to(self.folder).with_suffix("").as_posix()
        return f"{name}/"

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
                reason = f"the tar is damaged, the rest is not read: {reason}"
            yield RefusedInput(prefix.rstrip("/") or path.name, bounded_line(f"{path}: {reason}"))


def _start_of(path: Path, member: tarfile.TarInfo) -> bytes:
    with open_file(path) as file:
        file.seek(member.offset_data)
        return file.read(min(START_BYTES, member.size))


def _member_input(path: Path, prefix: str, member: tarfile.TarInfo) -> AnyInput | None:
    """A member as an input; None if it is hidden."""
    if len(os.fsencode(member.name)) > MAX_NAME_BYTES:
        error = DataError(f"a name of more than {MAX_NAME_BYTES} bytes, expected a shorter one")
        return RefusedInput.at(str(path), f"member at byte {member.offset}", error)
    try:
        key = path_within(Path(), member.name).as_posix()
        if any(part.startswith(".") for part in key.split("/")):
            return None
        if not member.isreg() or member.issparse():
            raise DataError("a link, a folder or the like, expected a file")
    except DataError as error:
        return RefusedInput(prefix + member.name, bounded_line(f"{path}: {member.name}: {error}"))
    return Input(prefix + key, ArchiveMember(path, member.offset_data, member.size))


@dataclass(frozen=True)
class TsvInputs:
    """The rows of the original's file of images, which are key TAB base64; see `data/tsv.py`."""

    path: Path

    @property
    def folder(self) -> Path:
        """The folder that the keys are relative to if there are other sources: the file's name."""
        return self.path.with_suffix("")

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
            reason = DataError(f"{reason_of(error)}, the rest is not read")
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
    row = file.read(min(end - start, MAX_NAME_BYTES) + (start > 0))
    if start > 0 and row[:1] != b"\n":
        raise DataError("the file .lineidx is of another TSV, expected the beginnings of its rows")
    row = row[start > 0 :]
    key, tab, _ = row.partition(b"\t")
    if b"\n" not in key and not tab and len(row) >= MAX_NAME_BYTES:
        raise DataError(f"its key has more than {MAX_NAME_BYTES} bytes, expected a shorter one")
    if not key or not tab or b"\n" in key:
        raise DataError(f"begins {row[:40]!r}, expected a key, a tab and base64")
    return key
