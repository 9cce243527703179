"""Sources that name files or web addresses: a list with one name on each line, or a table with a
column of names, and perhaps a column of questions.

A list may come from anyone, so its paths must stay in one folder, and the length of its lines, rows
and cells is limited.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copyfileobj
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, BinaryIO

from git_model.batch.items import MAX_NAME_BYTES, AnyInput, Input, RefusedInput, WebAddress
from git_model.batch.table_readers import (
    NAME_COLUMN,
    TABLE_READERS,
    Row,
    TableReader,
    numbered_lines,
    unwrap,
)
from git_model.data.manifests import DataError, id_of, path_within, text_of, value_of
from git_model.preprocessing.fetch import is_url

if TYPE_CHECKING:
    from tempfile import _TemporaryFileWrapper

PATH_COLUMNS = (NAME_COLUMN, "path", "image", "file", "url")  # in order of preference
QUESTION_ID = "question_id"
MAX_QUESTION_LENGTH, MAX_ID_LENGTH = 1 << 14, 1 << 8  # characters


@dataclass(frozen=True)
class ListInputs:
    """Files that a list names, a path on each line, in any bytes.

    name: the list's name in errors.
    root: the folder that the paths are relative to and may not leave.
    """

    path: Path
    name: str
    root: Path

    def __iter__(self) -> Iterator[AnyInput]:
        for number, line in numbered_lines(self.path, self.name):
            try:
                file_name = os.fsdecode(unwrap(line))
                if file_name:
                    yield input_of(self.root, file_name)
            except DataError as error:
                yield RefusedInput.at(self.name, f"line {number}", error)


@dataclass(frozen=True)
class StreamInputs:
    """As `ListInputs`, for a list from a pipe; a temporary file holds it while this object
    exists."""

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


@dataclass(frozen=True)
class TableInputs:
    """Files that a table names.

    name: the table's name in errors.
    root: the folder that the paths are relative to and may not leave.
    question_column: "" if there are no questions. The table may also have a column question_id.
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
        item = input_of(self.root, file_name)
        question, question_key = question_of(row, self.question_column)
        return replace(item, question=question, question_key=question_key)


def question_of(row: Row, column: str) -> tuple[str | None, str]:
    """A row's question and its id, "" if it has none; of no column None.

    Raises:
        DataError: the question is missing or empty, or one of them is too long.
    """
    if not column:
        return None, ""
    question_key = id_of(row, QUESTION_ID) if QUESTION_ID in row else ""
    question = text_of(row, column)
    _require_length(column, question, MAX_QUESTION_LENGTH)
    _require_length(QUESTION_ID, question_key, MAX_ID_LENGTH)
    return question, question_key


def _require_length(name: str, text: str, limit: int) -> None:
    if len(text) > limit:
        raise DataError(f"{name} has {len(text)} characters, expected at most {limit}")


def input_of(root: Path, name: str) -> Input:
    """The input of a path below a folder, or of a web address.

    Raises:
        DataError: the path leaves the folder, or no file can have this name.
    """
    is_long = len(name) > MAX_NAME_BYTES
    if is_long or (_is_encodable(name) and len(os.fsencode(name)) > MAX_NAME_BYTES):
        raise DataError(f"a name of more than {MAX_NAME_BYTES} bytes, expected a shorter one")
    if is_url(name):
        return Input(name, WebAddress(name))
    key = key_within(root, name)
    return Input(key, root / key)


def table_inputs(
    path: Path, root: Path, path_column: str | None, question_column: str | None
) -> TableInputs:
    """The inputs of a table. With path_column None, the first of `PATH_COLUMNS` in it is used.

    Raises:
        DataError: the table cannot be read, or has no such column.
    """
    table = TABLE_READERS[path.suffix.lower()](path)
    columns = table.columns()
    path_columns = PATH_COLUMNS if path_column is None else (path_column,)
    path_column = first_column(path, columns, path_columns, "--path-column")
    if question_column is not None:
        first_column(path, columns, (question_column,), "--question-column")
    return TableInputs(table, str(path), root, path_column, question_column or "")


def first_column(path: Path, columns: list[str], names: tuple[str, ...], option: str) -> str:
    """The first of these names that a table has as a column."""
    for name in names:
        if name in columns:
            return name
    listed = ", ".join(columns[:20]) or "none at all"
    is_default = names == PATH_COLUMNS and path.suffix.lower() == ".parquet"
    images = ", and none holds images" if is_default else ""
    raise DataError(
        f"{path}: no column of texts is named {' or '.join(names)}{images}, its columns are: "
        f"{listed}; {option} names one"
    )


def key_within(root: Path, file_name: str) -> str:
    """The path of a file relative to a folder.

    Raises:
        DataError: the path leaves the folder, or no file can have this name.
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
    """Whether a file of this name can exist. JSON can spell halves of characters; a name may only
    have those that stand for a byte."""
    try:
        os.fsencode(file_name)
    except UnicodeEncodeError:
        return False
    return True
