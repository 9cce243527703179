"""Inputs that lie within one big file: the members of tars (WebDataset's shards), the rows of the
original's TSV.

Only headers and keys are read here; what they belong to is read when it is opened. Nothing is
unpacked to a disk.
"""

import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from itertools import chain, pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from git_model.batch.input_items import Input, Packed, Refused, one_line
from git_model.batch.input_lists import read_lines, refused, whole
from git_model.data.manifests import DataError, inside
from git_model.preprocessing.image import open_file, reason_of

MAX_HEADER = 1 << 20  # bytes of one member's headers
MAX_KEY = 1 << 12  # bytes
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True)
class TarInputs:
    """Files with certain suffixes in tars. With several tars a key begins with the tar's name, for
    each may have a 0001.jpg."""

    paths: tuple[Path, ...]
    suffixes: tuple[str, ...]

    def __iter__(self) -> Iterator[Input | Refused]:
        top = os.path.commonpath([path.parent.absolute() for path in self.paths])
        for path in self.paths:
            name = path.absolute().relative_to(top).with_suffix("").as_posix()
            yield from self._members(path, f"{name}/" if len(self.paths) > 1 else "")

    def _members(self, path: Path, prefix: str) -> Iterator[Input | Refused]:
        try:
            with open_file(path) as file:
                for member in _members(file):
                    if member.name.lower().endswith(self.suffixes):
                        found = _input(path, prefix, member)
                        if found is not None:
                            yield found
        except Exception as error:  # a damaged file makes tarfile raise almost anything
            reason = reason_of(error)
            if not isinstance(error, DataError | OSError):
                reason = f"the tar is damaged, what follows is lost: {reason}"
            yield Refused(prefix.rstrip("/") or path.name, one_line(f"{path}: {reason}"))


def _members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The members of a tar, of which none is kept.

    Raises:
        tarfile.ReadError: it is damaged.
        DataError: it is compressed.
    """
    begin = file.read(6)
    for magic, program in COMPRESSED.items():
        if begin.startswith(magic):
            raise DataError(f"compressed with {program}, expected a plain tar: unpack it first")
    headers = _Headers(file.fileno(), closefd=False)
    end = headers.seek(0, os.SEEK_END)
    headers.seek(0)
    with tarfile.open(fileobj=headers, mode="r:") as tar:
        while (member := tar.next()) is not None:
            if not member.offset < tar.offset <= end:  # where the next one begins
                raise tarfile.ReadError(f"{member.name} ends outside of it")
            tar.members = []  # type: ignore[attr-defined]  # it would keep all of them
            headers.left = MAX_HEADER
            yield member
        # tarfile takes any damage for the end
        headers.seek(tar.offset)
        if headers.read(512) != bytes(512):
            raise tarfile.ReadError("it is cut short, or there is no header where one should be")


class _Headers(FileIO):
    """A tar file, of which tarfile can read no more than headers need, whatever they claim."""

    left = MAX_HEADER

    def read(self, size: int | None = -1, /) -> bytes:
        """As a file's."""
        if size is None or not 0 <= size <= self.left:
            raise tarfile.ReadError(f"a header of more than {MAX_HEADER} bytes")
        self.left -= size
        return super().read(size) or b""


def _input(path: Path, prefix: str, member: tarfile.TarInfo) -> Input | Refused | None:
    """A member as an input; None if it is hidden."""
    try:
        key = inside(Path(), member.name).as_posix()
        if any(part.startswith(".") for part in key.split("/")):
            return None
        if not member.isreg() or member.issparse():
            raise DataError("a link, a folder or the like, expected a file")
    except DataError as error:
        return Refused(prefix + member.name, one_line(f"{path}: {member.name}: {error}"))
    suffix = Path(key).suffix
    return Input(prefix + key, Packed(path, member.offset_data, member.size, suffix))


@dataclass(frozen=True)
class TsvInputs:
    """The rows of the original's file of pictures, which are key TAB base64; see `tsv`."""

    path: Path

    def __iter__(self) -> Iterator[Input | Refused]:
        where = str(self.path)
        number = 0
        try:
            with open_file(self.path) as file:
                size = os.fstat(file.fileno()).st_size
                for start, end in pairwise(chain(_starts(self.path), [size])):
                    number += 1
                    if start != size:  # else the last row ends with a line break
                        yield self._row(file, number, start, end)
        except (OSError, ValueError) as error:
            reason = f"{reason_of(error)}, what follows is lost"
            yield refused(where, f"row {number + 1}", DataError(reason))

    def _row(self, file: BinaryIO, number: int, start: int, end: int) -> Input | Refused:
        try:
            key = _key(file, start, end)
        except DataError as error:
            return refused(str(self.path), f"row {number}", error)
        first = start + len(key) + 1
        return Input(os.fsdecode(key), Packed(self.path, first, end - first, base64=True))


def _key(file: BinaryIO, start: int, end: int) -> bytes:
    """The key of the row that lies there."""
    if not 0 <= start < end:
        raise DataError("the file .lineidx is of another TSV, expected rising numbers")
    file.seek(max(start - 1, 0))
    begin = file.read(min(end - start, MAX_KEY) + (start > 0))
    if start > 0 and begin[:1] != b"\n":
        raise DataError("the file .lineidx is of another TSV, expected the beginnings of its rows")
    key, tab, _ = begin[start > 0 :].partition(b"\t")
    if not key or not tab or b"\n" in key:
        raise DataError(f"begins {begin[start > 0 :][:40]!r}, expected a key, a tab and base64")
    return key


def _starts(path: Path) -> Iterator[int]:
    """Where each line of a file begins, from the file beside it or else by reading it; at last
    perhaps its end."""
    binary, text = path.with_suffix(".lineidx.8b"), path.with_suffix(".lineidx")
    if binary.is_file():
        with open_file(binary) as index:
            while numbers := index.read(1 << 16):
                if len(numbers) % 8 > 0:
                    raise DataError(f"{binary.name} is cut short")
                yield from np.frombuffer(numbers, "<i8").tolist()
    elif text.is_file():
        for number, line in read_lines(text, str(text)):
            try:
                yield int(whole(line))
            except ValueError:
                raise DataError(f"line {number} of {text.name} is no number") from None
    else:
        with open_file(path) as file:
            yield 0
            place = 0
            while block := file.read(1 << 20):
                yield from (place + found.end() for found in re.finditer(b"\n", block))
                place += len(block)
