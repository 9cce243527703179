"""The original's data format: a file of images and a file of texts, a row for each image.

Images: key TAB base64. Texts: key TAB JSON, which is [{"caption": …}, …] or [{"question": …,
"answer": …, "question_id": …}, …]. A file .lineidx beside them may hold the offsets of the rows
(the original's tsv_io.py, `TSVFile`).
"""

import base64
import binascii
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np

from git_model.data.example import Annotation, Example, OpenStored, StoredExample
from git_model.data.manifests import (
    DataError,
    annotation_of,
    merge_captions,
    parse,
    parse_each,
    read_lines,
)
from git_model.preprocessing.image import decode_image, open_file

BLOCK_BYTES = 1 << 20  # of one read
MAX_DIGITS = 32  # of a line of a text index


@dataclass(frozen=True, kw_only=True)
class TsvData:
    """A pair of the original's files, their rows in the same order."""

    kind: Literal["tsv"] = "tsv"
    images: str  # the file with a key and an image, in base64, on each row
    texts: str  # the file with a key and the texts on each row

    def open(self) -> "TsvSource":
        """Read the texts, and the offsets of the images."""
        lines = read_lines(Path(self.texts))
        texts = list(parse_each(lines, parse_texts, f"{self.texts}: row"))
        images = Rows(Path(self.images), row_starts(Path(self.images)))
        if not len(images) == len(texts) > 0:
            raise DataError(
                f"{self.images} has {len(images)} rows and {self.texts} has {len(texts)}: "
                "expected as many, at least one"
            )
        source = TsvSource(images, texts)
        source.data_of(0)  # an error now if the files do not belong together
        return source


class TsvSource:
    """Images in the rows of a file: a `Source`."""

    def __init__(self, images: "Rows", texts: list[tuple[str, tuple[Annotation, ...]]]) -> None:
        self._images, self._texts = images, texts

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> Example:
        stored = self._stored(index)
        return Example(stored.key, decode_image(stored.data, stored.where), stored.annotations)

    def stored(self) -> Iterator[OpenStored]:
        """See `StoredSource`."""
        return (partial(self._stored, index) for index in range(len(self)))

    def _stored(self, index: int) -> StoredExample:
        key, annotations = self._texts[index]
        where = f"{self._images.path}: row {index + 1}, {key}"
        return StoredExample(key, where, self.data_of(index), annotations)

    def data_of(self, index: int) -> bytes:
        """The bytes of an image's file.

        Raises:
            DataError: the row has another key than its texts, or is not base64.
        """
        where, key = f"{self._images.path}: row {index + 1}", self._texts[index][0]
        name, tab, data = self._images[index].rstrip(b"\r\n").partition(b"\t")
        if not tab or name.decode(errors="replace") != key:
            raise DataError(
                f"{where} begins {name[:40]!r}, expected the key {key!r}, as in the texts"
            )
        try:
            return decode_base64(data)
        except DataError as error:
            raise DataError(f"{where}: the image is {error}") from None


def decode_base64(data: bytes) -> bytes:
    """The second column of a row, decoded."""
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise DataError(f"no base64: {error}") from None


def parse_texts(line: str) -> tuple[str, tuple[Annotation, ...]]:
    """The key and the annotations in a row of texts."""
    key, *rest = line.split("\t")
    if len(rest) != 1:
        raise DataError(f"{1 + len(rest)} columns, expected two: the key and JSON")
    records = parse(rest[0])
    if not isinstance(records, list):
        raise DataError(f"{rest[0][:40]!r}, expected a JSON list")
    return key, merge_captions(parse_each(records, annotation_of, "text"))


@dataclass(frozen=True)
class Rows:
    """The lines of a file, by index."""

    path: Path
    starts: np.ndarray  # byte offset of each line, and the size of the file

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> bytes:
        start, end = self.starts[index : index + 2].tolist()
        try:
            # opened for each row, so that processes do not share a position in the file
            with self.path.open("rb") as file:
                file.seek(start)
                return file.read(end - start)
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror or error}") from None


def row_starts(path: Path) -> np.ndarray:
    """The byte offset of each line of a file, and the file's size: from an index beside it, or else
    by reading the file.

    Raises:
        DataError: a file cannot be read, or the index does not fit the file.
    """
    try:
        starts = np.fromiter(line_starts(path), np.int64)
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{error.filename or path}: {error.strerror or error}") from None
    except OverflowError:
        raise DataError(f"{_index_of(path)}: expected a number of 63 bits on each line") from None
    starts = np.append(starts, size)
    # checked first, because differences of huge offsets could overflow
    is_outside = (starts < 0).any() or (starts > size).any()
    if starts[0] != 0 or is_outside or (np.diff(starts) <= 0).any():
        raise DataError(
            f"{_index_of(path)} is not of {path}, expected rising offsets from 0 to below {size}"
        )
    return starts


def line_starts(path: Path) -> Iterator[int]:
    """The byte offset of each line of a file, without holding all of them: from an index beside it,
    the original's .lineidx.8b or .lineidx, or else by reading the file. An index is not checked
    against the file here.

    Raises:
        OSError: a file cannot be read.
        DataError: an index does not hold numbers; the message names it.
    """
    index = _index_of(path)
    if index is None:
        return _scan_lines(path)
    return _binary_index(index) if index.suffix == ".8b" else _text_index(index)


def _index_of(path: Path) -> Path | None:
    indexes = (path.with_suffix(".lineidx.8b"), path.with_suffix(".lineidx"))
    return next((index for index in indexes if index.is_file()), None)


def _binary_index(path: Path) -> Iterator[int]:
    with open_file(path) as file:
        while numbers := file.read(BLOCK_BYTES):
            if len(numbers) % 8 > 0:
                raise DataError(f"{path} is cut short")
            yield from np.frombuffer(numbers, "<i8").tolist()


def _text_index(path: Path) -> Iterator[int]:
    with open_file(path) as file:
        for number in count(1):
            line = file.readline(MAX_DIGITS)
            if not line:
                return
            try:
                start = int(line if len(line) < MAX_DIGITS else b"")
            except ValueError:
                raise DataError(
                    f"{path}: expected a number on each line, line {number} has none"
                ) from None
            yield start


def _scan_lines(path: Path) -> Iterator[int]:
    with open_file(path) as file:
        start, size = 0, os.fstat(file.fileno()).st_size
        if size > 0:
            yield 0
        while block := file.read(BLOCK_BYTES):
            ends = (start + match.end() for match in re.finditer(b"\n", block))
            yield from (end for end in ends if end < size)
            start += len(block)
