"""Inputs that a table names: JSON lines, CSV or Parquet with a column of paths, and perhaps one of
questions. Rows are read as they are asked for.

Parquet needs the package pyarrow, the extra `parquet`, which is imported when such a file is read.
"""

import csv
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from git_model.batch.input_items import Input, Refused
from git_model.batch.input_lists import key_below, read_lines, refused, whole
from git_model.data.manifests import DataError, decode, id_of, parse, text_of, value_of
from git_model.preprocessing.image import reason_of

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

PATH_COLUMNS = ("file_name", "path", "image", "file")  # the first that a table has is taken
QUESTION_ID = "question_id"

Row = Mapping[str, Any]
Place = str  # of a row in its table, for errors: line 3


class Table(Protocol):
    """A file of rows."""

    def columns(self) -> list[str]:
        """The names of its columns."""

    def rows(self, columns: list[str]) -> Iterator[tuple[Place, Row | DataError]]:
        """What stands in some columns, row by row."""


@dataclass(frozen=True)
class TableInputs:
    """Files that a table names.

    root: what the paths are relative to and may not leave.
    question: the column with questions; "": there are none. Next to it may be one of
        question_id.
    """

    table: Table
    where: str
    root: Path
    path: str
    question: str

    def __iter__(self) -> Iterator[Input | Refused]:
        columns = [self.path, *([self.question, QUESTION_ID] if self.question else [])]
        for place, row in self.table.rows(columns):
            try:
                yield self._input(whole(row))
            except DataError as error:
                yield refused(self.where, place, error)

    def _input(self, row: Row) -> Input:
        name = value_of(row, self.path, str)
        if not name:
            raise DataError(f"{self.path} is empty, expected a path")
        key = key_below(self.root, name)
        if not self.question:
            return Input(key, self.root / key)
        question_key = id_of(row, QUESTION_ID) if QUESTION_ID in row else ""
        return Input(key, self.root / key, text_of(row, self.question), question_key)


def table_inputs(
    path: Path, root: Path, path_column: str | None, question_column: str | None
) -> TableInputs:
    """The inputs of a table; path_column None: of the first of `PATH_COLUMNS` that it has.

    Raises:
        DataError: the table cannot be read, or has no such column.
    """
    table = TABLES[path.suffix.lower()](path)
    columns = table.columns()
    wanted = PATH_COLUMNS if path_column is None else (path_column,)
    found = _column(path, columns, wanted, "--path-column")
    question = ""
    if question_column is not None:
        question = _column(path, columns, (question_column,), "--question-column")
    return TableInputs(table, str(path), root, found, question)


def _column(path: Path, columns: list[str], wanted: tuple[str, ...], option: str) -> str:
    """The first of these columns that a table has."""
    for name in wanted:
        if name in columns:
            return name
    there = ", ".join(columns[:20]) or "none at all"
    raise DataError(
        f"{path}: no column of texts is named {' or '.join(wanted)}, those there are: {there}; "
        f"{option} names one"
    )


@dataclass(frozen=True)
class JsonLines:
    """A JSON object on each line, as in a metadata.jsonl."""

    path: Path

    def columns(self) -> list[str]:
        """What the first line has that is an object."""
        records = (found for _, found in self._records() if isinstance(found, Mapping))
        return list(map(str, next(records, {})))

    def rows(self, columns: list[str]) -> Iterator[tuple[Place, Row | DataError]]:
        """See `Table`."""
        for place, found in self._records():
            if isinstance(found, Mapping):
                found = {name: found[name] for name in columns if name in found}
            yield place, found

    def _records(self) -> Iterator[tuple[Place, Any]]:
        for number, line in read_lines(self.path, str(self.path)):
            if line != b"":
                yield f"line {number}", _parsed(line)


def _parsed(line: bytes | DataError) -> Any:
    try:
        return parse(decode(whole(line)))
    except DataError as error:
        return error


@dataclass(frozen=True)
class CsvTable:
    """Comma-separated values below a line of names. File names may be in any bytes."""

    path: Path

    def columns(self) -> list[str]:
        """See `Table`."""
        return whole(next(self._lines(), ("", []))[1])

    def rows(self, columns: list[str]) -> Iterator[tuple[Place, Row | DataError]]:
        """See `Table`."""
        lines = self._lines()
        names = whole(next(lines, ("", []))[1])
        for place, values in lines:
            if isinstance(values, DataError):
                yield place, values
            elif values:
                row = dict(zip(names, values, strict=False))
                yield place, {name: row[name] for name in columns if name in row}

    def _lines(self) -> Iterator[tuple[Place, list[str] | DataError]]:
        lines = read_lines(self.path, str(self.path))
        texts = (_text(line) for _, line in lines)
        # strict: a quote that is not closed would else take all rows below it for one text
        reader = csv.reader(map(whole, texts), strict=True)
        for number in count(1):
            try:
                yield f"row {number}", next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield f"row {number}", DataError(f"not valid CSV: {error}")
            except DataError as error:
                yield f"row {number}", error


def _text(line: bytes | DataError) -> str | DataError:
    return line if isinstance(line, DataError) else os.fsdecode(line) + "\n"


@dataclass(frozen=True)
class ParquetTable:
    """A Parquet file."""

    path: Path

    def columns(self) -> list[str]:
        """Those of texts and numbers. Hugging Face's tables hold pictures, which are not read."""
        with _parquet(self.path) as file:
            from pyarrow import types

            kinds = (types.is_nested, types.is_binary, types.is_large_binary)
            fields = list(file.schema_arrow)
        return [field.name for field in fields if not any(kind(field.type) for kind in kinds)]

    def rows(self, columns: list[str]) -> Iterator[tuple[Place, Row | DataError]]:
        """See `Table`."""
        number = count(1)
        with _parquet(self.path) as file:
            try:
                for batch in file.iter_batches(1024, columns=columns, use_threads=False):
                    for row in batch.to_pylist():
                        yield f"row {next(number)}", row
            except Exception as error:  # pyarrow has many kinds
                yield f"row {next(number)}", DataError(f"{reason_of(error)}; the rest is lost")


def _parquet(path: Path) -> "ParquetFile":
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise DataError(
            f"{path}: reading Parquet needs pyarrow: pip install 'git-model[parquet]'"
        ) from None
    try:
        return ParquetFile(path, pre_buffer=False)  # a group at a time, not all of them
    except Exception as error:
        raise DataError(f"{path}: not a Parquet file: {reason_of(error)}") from None


TABLES: dict[str, Callable[[Path], Table]] = {
    ".jsonl": JsonLines,
    ".csv": CsvTable,
    ".parquet": ParquetTable,
}
