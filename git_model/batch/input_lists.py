"""Inputs that a list names, a path on each line; and what readers of lists and tables share.

A list may come from anyone: its paths must stay in one folder, and its lines have a bounded length.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from shutil import copyfileobj
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from git_model.batch.input_items import Input, Refused, one_line
from git_model.data.manifests import DataError, inside
from git_model.preprocessing.image import open_file

if TYPE_CHECKING:
    from tempfile import _TemporaryFileWrapper

T = TypeVar("T")
MAX_LINE = 1 << 20  # bytes


@dataclass(frozen=True)
class ListInputs:
    """Files that a list names, a path on each line, in any bytes.

    where: what errors call the list.
    root: what the paths are relative to and may not leave.
    """

    path: Path
    where: str
    root: Path

    def __iter__(self) -> Iterator[Input | Refused]:
        for number, line in read_lines(self.path, self.where):
            try:
                name = os.fsdecode(whole(line))
                if name:
                    key = key_below(self.root, name)
                    yield Input(key, self.root / key)
            except DataError as error:
                yield refused(self.where, f"line {number}", error)


@dataclass(frozen=True)
class StreamInputs:
    """The same of a list that came through a pipe, and is kept in a file for as long as this is."""

    file: "_TemporaryFileWrapper[bytes]"
    root: Path

    @classmethod
    def of(cls, stream: BinaryIO, root: Path) -> "StreamInputs":
        """Read a stream to its end."""
        file = NamedTemporaryFile()  # noqa: SIM115  (it lives as long as the inputs)
        copyfileobj(stream, file)
        file.flush()
        return cls(file, root)

    def __iter__(self) -> Iterator[Input | Refused]:
        return iter(ListInputs(Path(self.file.name), "standard input", self.root))


def read_lines(path: Path, where: str) -> Iterator[tuple[int, bytes | DataError]]:
    """The lines of a file without their ends and their numbers, one at a time; see `whole`.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with open_file(path) as file:
            for number in count(1):
                line = file.readline(MAX_LINE)
                if not line:
                    return
                yield number, _line(line, number, file)
    except OSError as error:
        raise DataError(one_line(f"{where}: {error.strerror or error}")) from None


def _line(line: bytes, number: int, file: BinaryIO) -> bytes | DataError:
    if len(line) < MAX_LINE:
        return line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").rstrip(b"\r\n")
    while line and not line.endswith(b"\n"):
        line = file.readline(MAX_LINE)
    return DataError(f"it is too long, expected fewer than {MAX_LINE} bytes")


def whole(found: T | DataError) -> T:
    """What was found, if it is no error."""
    if isinstance(found, DataError):
        raise found
    return found


def refused(where: str, place: str, error: DataError) -> Refused:
    """A line or a row that is no input."""
    return Refused(f"{Path(where).name}: {place}", one_line(f"{where}: {place}: {error}"))


def key_below(root: Path, name: str) -> str:
    """The path of a file relative to a folder, which it may not leave.

    Raises:
        DataError: it does, or no file can have this name.
    """
    path, top = Path(name), root.absolute()
    if "\0" in name or not _encodable(name):
        raise DataError(f"{name!r} cannot be the name of a file")
    try:
        path = inside(top, str(path.relative_to(top)) if path.is_relative_to(top) else name)
    except DataError:
        raise DataError(
            f"the file name {name!r} leads out of {top}; --root says which folder it lies in"
        ) from None
    return path.relative_to(top).as_posix()


def _encodable(name: str) -> bool:
    """Whether the operating system can be asked for a file of this name. JSON can spell halves of
    characters; those that stand for a byte may be in a name."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True
