"""The images in a Parquet file, as Hugging Face stores data sets. A walk reads keys and questions;
an image is read when it is opened.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from git_model.batch.input_tables import PATH_COLUMNS, QUESTION_ID, first_column, question_of
from git_model.batch.items import MAX_NAME_BYTES, AnyInput, Input, ParquetCell, RefusedInput
from git_model.batch.table_readers import ParquetReader, Row, unwrap
from git_model.data.manifests import DataError, id_of
from git_model.data.parquet import KEY_COLUMNS, image_columns, open_parquet


@dataclass(frozen=True)
class ParquetInputs:
    """The rows of a table that has the images in a column.

    key_column: None: the row's number is the key.
    question_column: "": there are no questions. Beside it may stand a column question_id.
    """

    path: Path
    image_column: str
    key_column: str | None
    question_column: str

    @property
    def folder(self) -> Path:
        """The folder that the keys are relative to if there are other sources: the file's name."""
        return self.path.with_suffix("")

    def __iter__(self) -> Iterator[AnyInput]:
        columns = [self.question_column, QUESTION_ID] if self.question_column else [self.key_column]
        rows = ParquetReader(self.path).rows([name for name in columns if name])
        for number, (position, row) in enumerate(rows):
            try:
                yield self._input(number, unwrap(row))
            except DataError as error:
                yield RefusedInput.at(str(self.path), position, error)

    def _input(self, number: int, row: Row) -> Input:
        key = str(number + 1) if self.key_column is None else id_of(row, self.key_column)
        if not key:
            raise DataError(f"{self.key_column} is empty, expected a key")
        if len(key.encode()) > MAX_NAME_BYTES:
            raise DataError(
                f"its {self.key_column} has more than {MAX_NAME_BYTES} bytes, expected fewer"
            )
        question, question_key = question_of(row, self.question_column)
        cell = ParquetCell(self.path, self.image_column, number)
        return Input(key, cell, question, question_key)


def parquet_inputs(
    path: Path, path_column: str | None, question_column: str | None
) -> ParquetInputs | None:
    """The inputs of a Parquet file with images in it; None of another file.

    The images stand in `path_column`, or else in the first column of records with bytes, or in the
    first one of bytes if no column has paths. Their keys are in the first of KEY_COLUMNS; with
    questions, of which an image may have several, they are the rows' numbers.

    Raises:
        DataError: this is not a Parquet file, or has no such column of questions.
    """
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return None
    with open_parquet(path) as file:
        records, images = image_columns(file, records_only=True), image_columns(file)
    columns = ParquetReader(path).columns()
    if path_column is not None:
        image = path_column if path_column in images else None
    else:
        has_paths = any(name in columns for name in PATH_COLUMNS)
        image = next(iter(records or ([] if has_paths else images)), None)
    if image is None:
        return None
    if question_column is not None:
        first_column(path, columns, (question_column,), "--question-column")
    keys = () if question_column else KEY_COLUMNS
    key = next((name for name in keys if name in columns), None)
    return ParquetInputs(path, image, key, question_column or "")
