"""Sources that name files: a list with a path on each line; JSON lines, CSV or Parquet with a
column of paths, and perhaps one of questions.

Rows are read as they are asked for. A list may come from anyone: its paths must stay in one folder,
and its lines have a bounded length. Parquet needs the package pyarrow, the extra `parquet`, which
is imported when such a file is read.
"""

import csv
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from shutil import copyfileobj
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

from git_model.batch.items import AnyInput, Input, RefusedInput
from git_model.data.manifests import (
    DataError,
    decode,
    id_of,
    parse,
    path_within,
    text_of,
    value_of,
)
from git_model.data.parquet import open_parquet
from git_model.preprocessing.image import open_file, reason_of

if TYPE_CHECKING:
    from tempfile import _TemporaryFileWrapper

T = TypeVar("T")
MAX_LINE_BYTES = 1 << 20
PATH_COLUMNS = ("file_name", "path", "image", "file")  # the first of them in a table counts
QUESTION_ID = "question_id"

Row = Mapping[str, Any]
Position = str  # of a row in its table, for errors: line 3


@dataclass(frozen=True)
class ListInputs:
    """Files that a list names, a path on each line, in any bytes.

    name: what errors call the list.
    root: what the paths are relative to and may not leave.
    """

    path: Path
    name: str
    root: Path

    def __iter__(self) -> Iterator[AnyInput]:
        for number, line in numbered_lines(self.path, self.name):
            try:
                file_name = os.fsdecode(unwrap(line))
                if file_name:
                    key = key_within(self.root, file_name)
                    yield Input(key, self.root / key)
            except DataError as error:
                yield RefusedInput.at(self.name, f"line {number}", error)


@dataclass(frozen=True)
class StreamInputs:
    """The same of a list that comes through a pipe; it stays in a file for as long as this does."""

    file: "_TemporaryFileWrapper[bytes]"
    root: Path

    @classmethod
    def of(cls, stream: BinaryIO, root: Path) -> "StreamInputs":
        """Read a stream to its end."""
        file = NamedTemporaryFile()  # noqa: SIM115  (it lives as long as the inputs)
        copyfileobj(stream, file)
        file.flush()
        return cls(file, root)

    def __iter__(self) -> Iterator[AnyInput]:
        return iter(ListInputs(Path(self.file.name), "standard input", self.root))


class TableReader(Protocol):
    """A file of rows."""

    def columns(self) -> list[str]:
        """The names of its columns."""

    def rows(self, columns: list[str]) -> Iterator[tuple[Position, Row | DataError]]:
        """The values in some columns, row by row."""


@dataclass(frozen=True)
class TableInputs:
    """Files that a table names.

    name: what errors call the table.
    root: what the paths are relative to and may not leave.
    question_column: "": there are no questions. Beside it may stand a column question_id.
    """

    table: TableReader
    name: str
    root: Path
    path_column: str
    question_column: str

    def __iter__(self) -> Iterator[AnyInput]:
        questions = [self.question_column, QUESTION_ID] if self.question_column else []
        for position, row in self.table.rows([self.path_column, *questions]):
            try:
                yield self._input(unwrap(row))
            except DataError as error:
                yield RefusedInput.at(self.name, position, error)

    def _input(self, row: Row) -> Input:
        file_name = value_of(row, self.path_column, str)
        if not file_name:
            raise DataError(f"{self.path_column} is empty, expected a path")
        key = key_within(self.root, file_name)
        if not self.question_column:
            return Input(key, self.root / key)
        question_key = id_of(row, QUESTION_ID) if QUESTION_ID in row else ""
        return Input(key, self.root / key, text_of(row, self.question_column), question_key)


def table_inputs(
    path: Path, root: Path, path_column: str | None, question_column: str | None
) -> TableInputs:
    """The inputs of a table; path_column None: of the first of `PATH_COLUMNS` in it.

    Raises:
        DataError: the table cannot be read, or has no such column.
    """
    table = TABLE_READERS[path.suffix.lower()](path)
    columns = table.columns()
    path_columns = PATH_COLUMNS if path_column is None else (path_column,)
    path_column = _first_column(path, columns, path_columns, "--path-column")
    if question_column is not None:
        _first_column(path, columns, (question_column,), "--question-column")
    return TableInputs(table, str(path), root, path_column, question_column or "")


def _first_column(path: Path, columns: list[str], names: tuple[str, ...], option: str) -> str:
    """The first of these names that a table has as a column."""
    for name in names:
        if name in columns:
            return name
    listed = ", ".join(columns[:20]) or "none at all"
    raise DataError(
        f"{path}: no column of texts is named {' or '.join(names)}, its columns are: {listed}; "
        f"{option} names one"
    )


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
        lines = numbered_lines(self.path, str(self.path))
        # strict: a quote that is not closed would else take all rows below it for one text
        reader = csv.reader(map(_csv_line, lines), strict=True)
        for number in count(1):
            try:
                yield f"row {number}", next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield f"row {number}", DataError(f"not valid CSV: {error}")
            except DataError as error:
                yield f"row {number}", error


def _csv_line(numbered_line: tuple[int, bytes | DataError]) -> str:
    return os.fsdecode(unwrap(numbered_line[1])) + "\n"


@dataclass(frozen=True)
class ParquetReader:
    """A Parquet file."""

    path: Path

    def columns(self) -> list[str]:
        """Those of texts and numbers. Hugging Face's tables hold images, which are not read."""
        with open_parquet(self.path) as file:
            from pyarrow import types

            excluded = (types.is_nested, types.is_binary, types.is_large_binary)
            fields = list(file.schema_arrow)
        return [field.name for field in fields if not any(test(field.type) for test in excluded)]

    def rows(self, columns: list[str]) -> Iterator[tuple[Position, Row | DataError]]:
        """See `TableReader`."""
        number = count(1)
        with open_parquet(self.path) as file:
            try:
                for batch in file.iter_batches(1024, columns=columns, use_threads=False):
                    for row in batch.to_pylist():
                        yield f"row {next(number)}", row
            except Exception as error:  # pyarrow has many kinds
                yield f"row {next(number)}", DataError(f"{reason_of(error)}; the rest is lost")


TABLE_READERS: dict[str, Callable[[Path], TableReader]] = {
    ".jsonl": JsonLinesReader,
    ".csv": CsvReader,
    ".parquet": ParquetReader,
}


def numbered_lines(path: Path, name: str) -> Iterator[tuple[int, bytes | DataError]]:
    """The lines of a file without their ends, with their numbers, one at a time; in place of a line
    that is too long an error, see `unwrap`.

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
    """A value, if it is no error; an error is raised."""
    if isinstance(value, DataError):
        raise value
    return value


def key_within(root: Path, file_name: str) -> str:
    """The path of a file relative to a folder, which it may not leave.

    Raises:
        DataError: it does, or no file can have this name.
    """
    path, top = Path(file_name), root.absolute()
    if "\0" in file_name or not _is_encodable(file_name):
        raise DataError(f"{file_name!r} cannot be the name of a file")
    try:
        name_below = str(path.relative_to(top)) if path.is_relative_to(top) else file_name
        return path_within(top, name_below).relative_to(top).as_posix()
    except DataError:
        raise DataError(
            f"the file name {file_name!r} leads out of {top}; --root says which folder it lies in"
        ) from None


def _is_encodable(file_name: str) -> bool:
    """Whether the operating system can be asked for a file of this name. JSON can spell halves of
    characters; those that stand for a byte may be in a name."""
    try:
        os.fsencode(file_name)
    except UnicodeEncodeError:
        return False
    return True
