"""The original's data format: a file of pictures and one of texts, a row for each picture.

Pictures: key TAB base64. Texts: key TAB JSON, which is [{"caption": …}, …] or [{"question": …,
"answer": …, "question_id": …}, …]. Rows are found by their offsets, which may stand in a file
.lineidx beside them (the original's tsv_io.py, `TSVFile`).
"""

import base64
import binascii
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np

from git_model.data.example import Annotation, Example
from git_model.data.manifests import DataError, annotation_of, each, merged, parse, read_lines
from git_model.preprocessing.image import decode_image


@dataclass(frozen=True, kw_only=True)
class TsvData:
    """A pair of the original's files, their rows in the same order."""

    kind: Literal["tsv"] = "tsv"
    images: str
    texts: str

    def open(self) -> "TsvSource":
        """Read the texts, and find where the pictures lie."""
        texts = list(each(read_lines(Path(self.texts)), _texts, f"{self.texts}: row"))
        images = Rows(Path(self.images), row_starts(Path(self.images)))
        if not len(images) == len(texts) > 0:
            raise DataError(
                f"{self.images} has {len(images)} rows and {self.texts} has {len(texts)}: "
                "expected as many, at least one"
            )
        source = TsvSource(images, texts)
        source.data_of(0)  # finds out if the files do not belong together
        return source


class TsvSource:
    """Pictures in rows of a file: a `Source`."""

    def __init__(self, images: "Rows", texts: list[tuple[str, tuple[Annotation, ...]]]) -> None:
        self._images, self._texts = images, texts

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> Example:
        key, targets = self._texts[index]
        name = f"{self._images.path}: row {index + 1}, {key}"
        return Example(key, decode_image(self.data_of(index), name), targets)

    def data_of(self, index: int) -> bytes:
        """A picture's file.

        Raises:
            DataError: the row is of another picture than its texts, or no base64.
        """
        where, key = f"{self._images.path}: row {index + 1}", self._texts[index][0]
        name, tab, data = self._images[index].rstrip(b"\r\n").partition(b"\t")
        if not tab or name.decode(errors="replace") != key:
            raise DataError(
                f"{where} begins {name[:40]!r}, expected the key {key!r}, as in the texts"
            )
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise DataError(f"{where}: the picture is no base64: {error}") from None


def _texts(line: str) -> tuple[str, tuple[Annotation, ...]]:
    key, *rest = line.split("\t")
    if len(rest) != 1:
        raise DataError(f"{1 + len(rest)} columns, expected two: the key and JSON")
    records = parse(rest[0])
    if not isinstance(records, list):
        raise DataError(f"{rest[0][:40]!r}, expected a JSON list")
    return key, merged(each(records, annotation_of, "text"))


@dataclass(frozen=True)
class Rows:
    """The lines of a file, by their numbers."""

    path: Path
    starts: np.ndarray  # where each begins, in bytes, and the end of the file

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> bytes:
        start, end = self.starts[index : index + 2].tolist()
        try:
            # opened anew each time: no position is shared with another process
            with self.path.open("rb") as file:
                file.seek(start)
                return file.read(end - start)
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror or error}") from None


def row_starts(path: Path) -> np.ndarray:
    """Where each line of a file begins, and the end: from a file beside it, else by reading it.

    Raises:
        DataError: a file cannot be read, or the one beside it is of another.
    """
    binary, text = path.with_suffix(".lineidx.8b"), path.with_suffix(".lineidx")
    try:
        size = path.stat().st_size
        if binary.is_file():
            beside, starts = binary, np.fromfile(binary, "<i8")
        elif text.is_file():
            beside, starts = text, np.array(text.read_text().split(), dtype=np.int64)
        else:
            with path.open("rb") as file:
                return np.fromiter(accumulate(map(len, file), initial=0), np.int64)
    except OSError as error:
        raise DataError(f"{error.filename or path}: {error.strerror or error}") from None
    except (ValueError, OverflowError):
        raise DataError(f"{text}: expected a number on each line") from None
    starts = np.append(starts, size)
    # differences of numbers beyond the file might themselves overflow
    is_outside = (starts < 0).any() or (starts > size).any()
    if starts[0] != 0 or is_outside or (np.diff(starts) <= 0).any():
        raise DataError(
            f"{beside} is not of {path}, expected rising offsets from 0 to below {size}"
        )
    return starts
