"""Files of rows: JSON, JSON lines, CSV, Parquet; and the lines of a list.

Rows are read one by one; only a JSON file is read whole. The size of lines, rows and cells is
limited. A row that cannot be read gives an error in its place. Parquet needs the package pyarrow,
the extra `parquet`, which is imported when such a file is read.
"""

import csv
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from git_model.data.manifests import DataError, decode, parse
from git_model.data.parquet import open_parquet
from git_model.preprocessing.image import open_file, reason_of

T = TypeVar("T")
MAX_LINE_BYTES = 1 << 20  # of a line, of a row of CSV, of a cell of Parquet
MAX_JSON_BYTES = 1 << 28
MAX_GROUP_BYTES = 1 << 29  # unpacked, of a column in a row group of Parquet
NAME_COLUMN = "file_name"  # of a list of names

Row = Mapping[str, Any]
Position = str  # of a row in its table, for errors: line 3


class TableReader(Protocol):
    """A file of rows."""

    def columns(self) -> list[str]:
        """The names of its columns."""

    def rows(self, columns: list[str]) -> Iterator[tuple[Position, Row | DataError]]:
        """The values in some columns, row by row."""


@dataclass(frozen=True)
class JsonLinesReader:
    """A JSON object on each line, as in a metadata.jsonl."""

    path: Path

    def columns(self) -> list[str]:
        """The names in the first line that is an object."""
        objects = (value for _, value in self._values() if isinstance(value, Mapping))
        return list(map(str, next(objects, {})))

    def rows(self, columns: list[str]) -> Iterator[tuple[Position, Row | DataError]]:
        """See `TableReader`."""
        for position, value in self._values():
            if isinstance(value, Mapping):
                value = {name: value[name] for name in columns if name in value}
            yield position, value

    def _values(self) -> Iterator[tuple[Position, Any]]:
        for number, line in numbered_lines(self.path, str(self.path)):
            if line != b"":
                yield f"line {number}", _parse_json(line)


def _parse_json(line: bytes | DataError) -> Any:
    try:
        return parse(decode(unwrap(line)))
    except DataError as error:
        return error


@dataclass(frozen=True)
class JsonReader:
    """A list in JSON: of names, or of objects. Or an object whose field `images` is such a list, as
    in COCO's annotations."""

    path: Path

    def columns(self) -> list[str]:
        """The names in the first object; a list of names is the column file_name."""
        for value in self._values():
            if isinstance(value, str):
                return [NAME_COLUMN]
            if isinstance(value, Mapping):
                return list(map(str, value))
        return []

    def rows(self, columns: list[str]) -> Iterator[tuple[Position, Row | DataError]]:
        """See `TableReader`."""
        for number, value in enumerate(self._values(), start=1):
            if isinstance(value, str):
                value = {NAME_COLUMN: value}
            if isinstance(value, Mapping):
                value = {name: value[name] for name in columns if name in value}
            yield f"entry {number}", value

    def _values(self) -> list[Any]:
        """The entries.

        Raises:
            DataError: the file is too large, or holds no such list.
        """
        try:
            with open_file(self.path) as file:
                data = file.read(MAX_JSON_BYTES + 1)
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror or error}") from None
        if len(data) > MAX_JSON_BYTES:
            raise DataError(
                f"{self.path}: more than {MAX_JSON_BYTES} bytes, expected fewer: JSON lines "
                "(.jsonl) may have any number"
            )
        try:
            value = parse(decode(data.removeprefix(b"\xef\xbb\xbf")))
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from None
        values = value.get("images") if isinstance(value, dict) else value
        if not isinstance(values, list):
            raise DataError(
                f"{self.path}: expected a list of paths, a list of objects, or an object with the "
                "field images"
            )
        return values


@dataclass(frozen=True)
class CsvReader:
    """Comma-separated values below a line of names. File names may be in any bytes."""

    path: Path

    def columns(self) -> list[str]:
        """See `TableReader`."""
        return unwrap(next(self._lines(), ("", []))[1])

    def rows(self, columns: list[str]) -> Iterator[tuple[Position, Row | DataError]]:
        """See `TableReader`."""
        lines = self._lines()
        names = unwrap(next(lines, ("", []))[1])
        for position, values in lines:
            if isinstance(values, DataError):
                yield position, values
            elif values:
                row = dict(zip(names, values, strict=False))
                yield position, {name: row[name] for name in columns if name in row}

    def _lines(self) -> Iterator[tuple[Position, list[str] | DataError]]:
        lines = _RowLines(numbered_lines(self.path, str(self.path)))
        # strict: a quote that is not closed would else take all rows below it for one text
        reader = csv.reader(lines, strict=True)
        for number in count(1):
            lines.n_bytes = 0
            try:
                yield f"row {number}", next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield f"row {number}", DataError(f"not valid CSV: {error}")
            except DataError as error:
                yield f"row {number}", error


@dataclass
class _RowLines:
    """The lines of a CSV file; those of one row are bounded together.

    n_bytes: of the lines of the row so far.
    """

    lines: Iterator[tuple[int, bytes | DataError]]
    n_bytes: int = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = unwrap(next(self.lines)[1])
        self.n_bytes += len(line)
        if self.n_bytes >= MAX_LINE_BYTES:
            raise DataError(f"it is too long, expected fewer than {MAX_LINE_BYTES} bytes")
        return os.fsdecode(line) + "\n"


@dataclass(frozen=True)
class ParquetReader:
    """A Parquet file."""

    path: Path

    def columns(self) -> list[str]:
        """The names of the columns of texts and numbers. Columns of images are not read."""
        with open_parquet(self.path) as file:
            from pyarrow import types

            excluded = (types.is_nested, types.is_binary, types.is_large_binary)
            fields = list(file.schema_arrow)
        return [field.name for field in fields if not any(test(field.type) for test in excluded)]

    def rows(self, columns: list[str]) -> Iterator[tuple[Position, Row | DataError]]:
        """See `TableReader`."""
        columns = [name for name in self.columns() if name in columns]
        number = count(1)
        # as dictionaries: a text that stands in many rows is held, and copied, once
        with open_parquet(self.path, read_dictionary=columns) as file:
            try:
                for group in range(file.num_row_groups):
                    require_bounded_group(file.metadata.row_group(group), columns)
                    for batch in file.iter_batches(
                        1024, row_groups=[group], columns=columns, use_threads=False
                    ):
                        for row in _bounded_rows(batch):
                            yield f"row {next(number)}", row
            except Exception as error:  # pyarrow has many kinds
                yield f"row {next(number)}", DataError(f"{reason_of(error)}; the rest is not read")


def require_bounded_group(group: Any, columns: list[str] | None = None) -> None:
    """Refuse a row group of Parquet in which a column is too large when it is unpacked.

    Args:
        columns: the columns that are read; None: all.

    Raises:
        DataError: a column is too large.
    """
    for index in range(group.num_columns):
        column = group.column(index)
        is_read = columns is None or column.path_in_schema in columns
        if is_read and column.total_uncompressed_size > MAX_GROUP_BYTES:
            raise DataError(
                f"the column {column.path_in_schema} has {column.total_uncompressed_size} bytes "
                f"in a row group, expected at most {MAX_GROUP_BYTES}"
            )


def _bounded_rows(batch: Any) -> Iterator[Row | DataError]:
    """The rows of a batch, one at a time; an error in place of a row with a cell that is too
    long."""
    from pyarrow import DictionaryArray

    columns: list[tuple[Any, Callable[[int], Any] | None]] = []
    for array in batch.columns:
        if isinstance(array, DictionaryArray):
            # a batch may refer to few of its dictionary's texts, and to one of them often
            columns.append((array.indices, cache(partial(_bounded_text, array.dictionary))))
        else:
            columns.append((array, None))
    for position in range(batch.num_rows):
        row: dict[str, Any] = {}
        for name, (array, text_of) in zip(batch.schema.names, columns, strict=True):
            value = array[position].as_py()
            row[name] = value if text_of is None or value is None else text_of(value)
        errors = (value for value in row.values() if isinstance(value, DataError))
        yield next(errors, row)


def _bounded_text(dictionary: Any, index: int) -> Any:
    value = dictionary[index]
    size = value.as_buffer().size if value.is_valid and hasattr(value, "as_buffer") else 0
    if size >= MAX_LINE_BYTES:
        return DataError(f"a cell of {size} bytes, expected fewer than {MAX_LINE_BYTES}")
    return value.as_py()


TABLE_READERS: dict[str, Callable[[Path], TableReader]] = {
    ".json": JsonReader,
    ".jsonl": JsonLinesReader,
    ".csv": CsvReader,
    ".parquet": ParquetReader,
}


def numbered_lines(path: Path, name: str) -> Iterator[tuple[int, bytes | DataError]]:
    """The lines of a file without their ends, with their numbers, one at a time. In place of a line
    that is too long there is an error, see `unwrap`.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with open_file(path) as file:
            for number in count(1):
                line = file.readline(MAX_LINE_BYTES)
                if not line:
                    return
                yield number, _bounded_line(line, number, file)
    except OSError as error:
        raise DataError(f"{name}: {error.strerror or error}") from None


def _bounded_line(line: bytes, number: int, file: BinaryIO) -> bytes | DataError:
    if len(line) < MAX_LINE_BYTES:
        return line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").rstrip(b"\r\n")
    while line and not line.endswith(b"\n"):
        line = file.readline(MAX_LINE_BYTES)
    return DataError(f"it is too long, expected fewer than {MAX_LINE_BYTES} bytes")


def unwrap(value: T | DataError) -> T:
    """The value itself. An error in its place is raised."""
    if isinstance(value, DataError):
        raise value
    return value
