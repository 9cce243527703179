"""A picture or a clip that is to be written about and is not opened yet.

It is small and pickles cheaply, for it travels to the processes that open it.
"""

import base64
import binascii
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from git_model.preprocessing.image import ImageError, open_file
from git_model.preprocessing.video import Clip, Sampling, decode_media, read_media
from git_model.utils.errors import GITError

LARGEST_FILE = 2**30  # bytes of a file within another, which is held in memory
# Python keeps a byte of a file name that is not UTF-8 as half a character (`os.fsdecode`).
BYTES = re.compile("[\udc80-\udcff]")
# Characters that would break a line, or steer a terminal.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def readable(text: str) -> str:
    r"""A file's name as text that can be written anywhere: bytes that are not UTF-8 as \xNN."""
    return BYTES.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", text)


def one_line(text: str) -> str:
    r"""A message that may hold any file name, on one line: a line break in it as \n, and so on."""
    return CONTROLS.sub(lambda c: c[0].encode("unicode_escape").decode(), readable(text))


@contextmanager
def printable() -> Iterator[None]:
    """A GITError that is raised meanwhile becomes a line that can be printed, whatever file names
    are in it."""
    try:
        yield
    except GITError as error:
        raise type(error)(one_line(str(error))) from None


@dataclass(frozen=True, slots=True)
class Packed:
    """The bytes of a file that lies within another: in a tar, or in a row of the original's TSV."""

    shard: Path
    offset: int
    size: int  # in the shard
    suffix: str = ""  # of the member's name, such as .jpg; a row has none
    base64: bool = False

    def read(self) -> bytes:
        """The file itself.

        Raises:
            ImageError: the shard cannot be read, is shorter than it was, or holds no base64 there.
        """
        if self.size > LARGEST_FILE:
            raise ImageError(f"a file of {self.size} bytes, expected at most {LARGEST_FILE}")
        try:
            with open_file(self.shard) as file:
                # looked at first, for `read` takes the memory at once
                if os.fstat(file.fileno()).st_size < self.offset + self.size:
                    raise ImageError("the file is cut short")
                file.seek(self.offset)
                data = file.read(self.size)
            if self.base64:
                return base64.b64decode(data.rstrip(b"\r\n"), validate=True)
            return data
        except OSError as error:
            raise ImageError(error.strerror or str(error)) from None
        except binascii.Error as error:
            raise ImageError(f"no base64: {error}, expected a picture's file in it") from None


@dataclass(frozen=True, slots=True)
class Input:
    """A picture or a clip to write about, not opened yet, and the question about it if there is
    one.

    key: names it: a file's path below the folder that was searched, with / between its parts; a
        row's key; a member's name in its tar. It may hold bytes that are not UTF-8, as
        `os.fsdecode` keeps them.
    question_key: names the question, such as VQA's question_id.
    """

    key: str
    place: Path | Packed
    question: str | None = None
    question_key: str = ""

    @property
    def name(self) -> str:
        r"""The key fit for JSON and for people: bytes that are not UTF-8 are \xNN."""
        return readable(self.key)

    def open(self, frames: int, sampling: Sampling) -> Image.Image | Clip:
        """The picture, or a clip of at most so many frames; see `video.read_media`.

        Raises:
            GITError: it cannot be opened; one line that begins with where it lies.
        """
        with printable():
            if isinstance(self.place, Path):
                return read_media(self.place, frames, sampling)
            return decode_media(self.read(), self._where, frames, sampling)

    def read(self) -> bytes:
        """The bytes of its file, whatever they are.

        Raises:
            ImageError: they cannot be read; one line that begins with where they lie.
        """
        with printable():
            try:
                if isinstance(self.place, Packed):
                    return self.place.read()
                with open_file(self.place) as file:
                    return file.read()
            except OSError as error:
                raise ImageError(f"{self._where}: {error.strerror or error}") from None
            except ImageError as error:
                raise ImageError(f"{self._where}: {error}") from None

    @property
    def _where(self) -> str:
        if isinstance(self.place, Path):
            return str(self.place)
        return f"{self.place.shard}: {self.key}"


@dataclass(frozen=True, slots=True)
class Refused:
    """An input that cannot even be named as one: a row that leaves its folder, a damaged line.

    key: says which, and is the same in each walk.
    reason: one line that begins with where it was found.
    """

    key: str
    reason: str

    @property
    def name(self) -> str:
        """The key fit for JSON and for people, as an input's."""
        return readable(self.key)
