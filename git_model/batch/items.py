"""The two ends of a run: an input that is not opened yet, and its output record.

An input is small and pickles cheaply, because it is sent to the processes that open it.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from git_model.data.manifests import DataError
from git_model.data.parquet import read_image
from git_model.data.tsv import decode_base64
from git_model.preprocessing.clip import Clip
from git_model.preprocessing.fetch import fetch
from git_model.preprocessing.image import ImageError, open_file
from git_model.preprocessing.sampling import ReadOptions
from git_model.preprocessing.video import decode_media, read_media, with_video_advice
from git_model.utils.errors import GITError, bounded_line

MAX_NAME_BYTES = 2**12  # of an input's key: a path, an address, a row's key
MAX_ARCHIVED_BYTES = 2**30  # of a file within another, which is held in memory
# Python keeps a byte of a file name that is not UTF-8 as half a character (`os.fsdecode`).
NOT_UTF8 = re.compile("[\udc80-\udcff]")

OutputRecord = dict[str, Any]  # of an input, fit for JSON


def readable(text: str) -> str:
    r"""A file's name as text that can be written anywhere: bytes that are not UTF-8 as \xNN."""
    return NOT_UTF8.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", text)


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """The position of a file within another file: in a tar, or in a row of the original's TSV."""

    archive: Path
    offset: int
    size: int  # in the archive
    is_base64: bool = False

    def read(self) -> bytes:
        """The file's bytes.

        Raises:
            ImageError: the archive cannot be read, is shorter than it was, or has no base64 there.
        """
        if self.size > MAX_ARCHIVED_BYTES:
            raise ImageError(f"a file of {self.size} bytes, expected at most {MAX_ARCHIVED_BYTES}")
        try:
            with open_file(self.archive) as file:
                # checked first, because `read` allocates the memory at once
                if os.fstat(file.fileno()).st_size < self.offset + self.size:
                    raise ImageError("the file is cut short")
                file.seek(self.offset)
                data = file.read(self.size)
            return decode_base64(data.rstrip(b"\r\n")) if self.is_base64 else data
        except OSError as error:
            raise ImageError(error.strerror or str(error)) from None
        except DataError as error:
            raise ImageError(f"{error}, expected an image file in it") from None


@dataclass(frozen=True, slots=True)
class ParquetCell:
    """Where an image stands in a Parquet file. row: counts from 0."""

    path: Path
    column: str
    row: int

    def read(self) -> bytes:
        """The image file's bytes.

        Raises:
            ImageError: the row cannot be read, is empty or too large.
        """
        try:
            return read_image(self.path, self.column, self.row)
        except OSError as error:
            raise ImageError(error.strerror or str(error)) from None
        except GITError as error:
            raise ImageError(str(error)) from None


@dataclass(frozen=True, slots=True)
class WebAddress:
    """A file on the web, fetched when it is read; see `preprocessing.fetch`."""

    url: str


@dataclass(frozen=True, slots=True)
class Input:
    """An image or a clip, not opened yet, for a caption or for the answer to a question.

    key: its name: a file's path below the source's folder, with / between its parts; a row's key; a
        member's name in its tar; a web address. It may hold bytes that are not UTF-8, as
        `os.fsdecode` keeps them.
    question_key: the name of the question, such as VQA's question_id.
    """

    key: str
    location: Path | ArchiveMember | ParquetCell | WebAddress
    question: str | None = None
    question_key: str = ""

    @property
    def name(self) -> str:
        r"""The key as text for JSON and for people: bytes that are not UTF-8 become \xNN."""
        return readable(self.key)

    @property
    def identity(self) -> bytes:
        """Bytes that are different for all inputs: the key and the question."""
        return record_identity(self.fields)

    @property
    def fields(self) -> OutputRecord:
        """The fields of a record that say which input it belongs to."""
        fields: OutputRecord = {"file_name": self.name}
        if self.question is not None:
            fields["question"] = self.question
        if self.question_key:
            fields["question_id"] = self.question_key
        return fields

    def open(
        self, frames: int, options: ReadOptions | None = None, data: bytes | None = None
    ) -> Image.Image | Clip:
        """The image, or a clip of at most `frames` frames; see `video.read_media`.

        Args:
            data: the bytes of its file, if they have been read already.

        Raises:
            GITError: it cannot be opened; the message begins with its position.
        """
        with with_video_advice():
            if isinstance(self.location, Path) and data is None:
                return read_media(self.location, frames, options)
            content = self.read() if data is None else data
            return decode_media(content, self._position, frames, options)

    def read(self) -> bytes:
        """The bytes of its file, without a check of their format.

        Raises:
            ImageError: they cannot be read; the message begins with their position.
        """
        try:
            if isinstance(self.location, ArchiveMember | ParquetCell):
                return self.location.read()
            if isinstance(self.location, WebAddress):
                return fetch(self.location.url)
            with open_file(self.location) as file:
                return file.read()
        except OSError as error:
            raise ImageError(f"{self._position}: {error.strerror or error}") from None
        except ImageError as error:
            raise ImageError(f"{self._position}: {error}") from None

    @property
    def _position(self) -> str:
        if isinstance(self.location, Path):
            return str(self.location)
        if isinstance(self.location, WebAddress):
            return self.location.url
        if isinstance(self.location, ParquetCell):
            return f"{self.location.path}: row {self.location.row + 1}"
        return f"{self.location.archive}: {self.key}"


@dataclass(frozen=True, slots=True)
class RefusedInput:
    """An entry of a source that cannot be an input: a row that leaves its folder, a damaged line.

    key: the name of the entry, the same in each walk over the source.
    reason: one line that begins with the position of the entry.
    """

    key: str
    reason: str

    @classmethod
    def at(cls, source: str, position: str, error: Exception) -> "RefusedInput":
        """A line or a row of a source that is not an input."""
        key = f"{Path(source).name}: {position}"
        return cls(key, bounded_line(f"{source}: {position}: {error}"))

    @property
    def name(self) -> str:
        """As an input's."""
        return readable(self.key)

    @property
    def identity(self) -> bytes:
        """As an input's."""
        return record_identity(self.fields)

    @property
    def fields(self) -> OutputRecord:
        """As an input's."""
        return {"file_name": self.name}


AnyInput = Input | RefusedInput


def record_identity(record: OutputRecord) -> bytes:
    """The identity of the input that a record belongs to."""
    parts = (str(record.get(name) or "") for name in ("file_name", "question_id", "question"))
    return "\0".join(parts).encode("utf-8", "surrogateescape")


def record_text(record: OutputRecord) -> str | None:
    """The text of a record, several texts joined to one; None if there is none."""
    text = record.get("answer" if "question" in record else "text")
    if isinstance(text, list):
        text = ", ".join(map(str, text))
    return str(text) if text and "rejected" not in record else None
