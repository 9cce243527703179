"""Parquet with the images in the table, as Hugging Face stores data sets: a stream of rows.

Needs the package pyarrow, the extra `parquet`, which is imported when a file is opened. A table may
come from anyone, so rows are decoded one by one, and the size of an image is limited.
"""

import os
import stat
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import accumulate, islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from git_model.data.example import Annotation, OpenExample, OpenStored, StoredExample, Stream
from git_model.data.manifests import (
    DataError,
    annotation_of,
    id_of,
    merge_captions,
    parse_each,
)
from git_model.data.sampler import epoch_order, shuffled
from git_model.data.webdataset import MAX_MEMBER_BYTES, decoded, shard_paths
from git_model.preprocessing.image import reason_of
from git_model.utils.errors import ConfigError

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

ROWS_AT_ONCE = 1  # a row of 4 KB may unpack to 100 MB, and larger batches are hardly faster
# The first of these columns that a table has is used.
TEXT_COLUMNS = ("texts", "text", "captions", "caption", "sentences")
KEY_COLUMNS = ("key", "__key__", "id", "image_id", "cocoid", "file_name", "filename")
QUESTION_COLUMNS = ("question", "answers", "answer", "question_id")
QUESTIONS = "questions"  # a list of records, each with question, answers and question_id
TEXT_FIELDS = ("raw", "caption", "text", "answer")  # of a text that is a record

Row = Mapping[str, Any]
Group = tuple[Path, int, int]  # a file, one of its row groups, and the group's first row


@dataclass(frozen=True, kw_only=True)
class ParquetData:
    """Parquet files on a local disk whose rows hold an image, as Hugging Face's data sets do: a
    column of bytes, or of records with `bytes` and `path`.

    Captions stand in a column of texts, or of lists of them; questions in `question`, with `answer`
    or `answers` and `question_id`, or in `questions`, a list of such records for each image. Other
    columns are not read.
    """

    kind: Literal["parquet"] = "parquet"
    files: str  # a pattern, such as data/train-*.parquet
    image: str | None = None  # the column of images; None: the first such column
    # the column of captions; None: the first of texts, text, captions, caption and sentences
    text: str | None = None
    shuffle: int = 1000  # size of a reader's shuffle buffer, in undecoded examples; 0: no shuffling

    def __post_init__(self) -> None:
        if self.shuffle < 0:
            raise ConfigError(f"shuffle is {self.shuffle}, expected 0 or more")

    def open(self) -> "ParquetStream":
        """List the row groups, and check the columns of every file.

        Raises:
            DataError: a file is missing or damaged, or has no column of images; or no file has a
                row.
        """
        groups, columns, n_rows = [], {}, 0
        for path in shard_paths(self.files, "a Parquet file"):
            with open_parquet(path) as file:
                columns[path] = _columns(path, file, self.image, self.text)
                first = 0
                for number in range(file.num_row_groups):
                    groups.append((path, number, first))
                    first += file.metadata.row_group(number).num_rows
                n_rows += first
        if not n_rows:
            raise DataError(f"{self.files}: there are no images in it, expected at least one row")
        return ParquetStream(groups, columns, self.shuffle)


def open_parquet(path: Path, read_dictionary: list[str] | None = None) -> "ParquetFile":
    """A Parquet file, read a part at a time.

    Args:
        read_dictionary: columns to read as dictionaries, with a text of many rows only once.

    Raises:
        DataError: pyarrow is missing, or the file is not Parquet.
    """
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise DataError(
            f"{path}: reading Parquet needs pyarrow: pip install 'git-model[parquet]'"
        ) from None
    try:
        # a group at a time, not all of them
        return ParquetFile(path, read_dictionary=read_dictionary, pre_buffer=False)
    except Exception as error:
        raise DataError(f"{path}: not a Parquet file: {reason_of(error)}") from None


@dataclass(frozen=True)
class Columns:
    """The columns of a file that are read."""

    image: str
    text: str | None
    key: str | None
    others: tuple[str, ...]  # of questions

    @property
    def names(self) -> list[str]:
        """All columns that are read."""
        return [name for name in (self.image, self.text, self.key, *self.others) if name]


def _columns(path: Path, file: "ParquetFile", image: str | None, text: str | None) -> Columns:
    fields = {field.name: field.type for field in file.schema_arrow}
    images = image_columns(file)
    listed = ", ".join(list(fields)[:20]) or "none"
    if image is not None and image not in images:
        raise DataError(
            f"{path}: {image} is no column of images, expected bytes, or records with bytes and "
            f"path; its columns are: {listed}"
        )
    if not images:
        raise DataError(
            f"{path}: there is no column of images, expected bytes, or records with bytes and "
            f"path; its columns are: {listed}. Where the images are files, use metadata.jsonl"
        )
    others = tuple(name for name in (*QUESTION_COLUMNS, QUESTIONS) if name in fields)
    if text is not None and text not in fields:
        raise DataError(f"{path}: there is no column {text}, its columns are: {listed}")
    text = text or next((name for name in TEXT_COLUMNS if name in fields), None)
    if text is None and not {"question", QUESTIONS} & set(others):
        raise DataError(
            f"{path}: there is no column of texts, expected {', '.join(TEXT_COLUMNS)}, question or "
            f"{QUESTIONS}, or one that text names; its columns are: {listed}"
        )
    key = next((name for name in KEY_COLUMNS if name in fields), None)
    return Columns(image or images[0], text, key, others)


def image_columns(file: "ParquetFile", *, records_only: bool = False) -> list[str]:
    """The columns of bytes, or of records with bytes, in which images stand."""
    from pyarrow import types

    def holds_images(kind: Any) -> bool:
        if types.is_struct(kind):
            names = [kind.field(index).name for index in range(kind.num_fields)]
            return "bytes" in names and _is_bytes(kind.field("bytes").type)
        return not records_only and _is_bytes(kind)

    return [field.name for field in file.schema_arrow if holds_images(field.type)]


def _is_bytes(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind))


class ParquetStream(Stream):
    """Examples from the rows of files: a `Stream`. With at least as many row groups as readers,
    each reader has its own groups; otherwise each reads all groups and takes every n-th example."""

    def __init__(self, groups: list[Group], columns: dict[Path, Columns], shuffle: int) -> None:
        self._groups, self._columns, self._shuffle = groups, columns, shuffle

    def stream(self, epoch: int, seed: int, reader: int, n_readers: int) -> Iterator[OpenExample]:
        """See `Stream`. A damaged file gives the examples before the damage, and one example that
        cannot be opened."""
        groups = [self._groups[i] for i in epoch_order(len(self._groups), seed, epoch)]
        if len(groups) >= n_readers:
            examples = self._examples(groups[reader::n_readers])
        else:
            examples = islice(self._examples(groups), reader, None, n_readers)
        rng = Random(f"{seed} {epoch} {reader}")  # noqa: S311  (an order, not a secret)
        return (partial(decoded, example) for example in shuffled(examples, self._shuffle, rng))

    def stored(self) -> Iterator[OpenStored]:
        """See `StoredSource`."""
        return self._examples(self._groups)

    def _examples(self, groups: Iterable[Group]) -> Iterator[OpenStored]:
        for path, group, first in groups:
            columns, index = self._columns[path], first
            try:
                for index, row in enumerate(_rows(path, group, columns), first + 1):
                    yield partial(_open, path, index, row, columns)
            except Exception as error:  # pyarrow has many kinds
                reason = reason_of(error)
                message = f"{path}: row {index + 1}: the file is damaged here: {reason}"
                yield partial(_raise, message)


def _rows(path: Path, group: int, columns: Columns) -> Iterator[Row]:
    with open_parquet(path) as file:
        batches = file.iter_batches(
            ROWS_AT_ONCE, row_groups=[group], columns=columns.names, use_threads=False
        )
        for batch in batches:
            yield from batch.to_pylist()


def _raise(message: str) -> StoredExample:
    raise DataError(message)


def _open(path: Path, number: int, row: Row, columns: Columns) -> StoredExample:
    where = f"{path}: row {number}"
    try:
        data = _image_bytes(row[columns.image], columns.image)
        key = id_of(row, columns.key) if columns.key else f"{path.stem}/{number}"
        return StoredExample(key, where, data, _annotations(row, columns))
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _image_bytes(cell: Any, column: str) -> bytes:
    data: bytes | None = cell.get("bytes") if isinstance(cell, Mapping) else cell
    if not data:
        raise DataError(f"{column} is empty, expected the bytes of an image")
    if len(data) > MAX_MEMBER_BYTES:
        raise DataError(f"{column} has {len(data):,} bytes, expected at most {MAX_MEMBER_BYTES:,}")
    return data


def read_image(path: Path, column: str, row: int) -> bytes:
    """The bytes of the image in a row, which counts from 0. Rising rows are read quickly.

    Raises:
        DataError: there is no such row, it is damaged, empty or too large.
        OSError: the file cannot be read.
    """
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise DataError("a folder, pipe or device, expected a file")
    version = (about.st_ino, about.st_size, about.st_mtime_ns)
    owner = (os.getpid(), threading.get_ident())
    return _image_bytes(_cell_reader(_Column(path, column, version, owner)).cell(row), column)


@dataclass(frozen=True)
class _Column:
    """A column of one version of a file, read by one thread of a process."""

    path: Path
    name: str
    version: tuple[int, ...]
    owner: tuple[int, int]


@lru_cache(maxsize=4)
def _cell_reader(column: _Column) -> "_CellReader":
    file, name = open_parquet(column.path), column.name
    is_record = name in image_columns(file, records_only=True)
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    return _CellReader(file, f"{name}.bytes" if is_record else name, [0, *accumulate(sizes)])


@dataclass
class _CellReader:
    """The cells of a column, one after the other; a row before the last one begins its group anew.

    starts: the first row of each group, and the number of rows.
    """

    file: "ParquetFile"
    column: str
    starts: list[int]
    _batches: Iterator[Any] = field(default_factory=lambda: iter(()))
    _group: int = -1
    _next_row: int = 0
    _damage: str = ""  # of the group, from the next row on

    def cell(self, row: int) -> Any:
        """The value in a row."""
        if not 0 <= row < self.starts[-1]:
            raise DataError(f"the file has {self.starts[-1]} rows, it had more before")
        group = bisect_right(self.starts, row) - 1
        if group != self._group or row < self._next_row:
            self._begin(group)
        batch = None
        while self._next_row <= row:
            batch = self._next_batch()
        return batch.column(0)[0].as_py() if batch is not None else None

    def _begin(self, group: int) -> None:
        rows = self.file.metadata.row_group(group)
        for chunk in map(rows.column, range(rows.num_columns)):
            size = chunk.total_uncompressed_size
            if chunk.path_in_schema == self.column and size > MAX_MEMBER_BYTES * rows.num_rows:
                raise DataError(
                    f"{self.column} has {size:,} bytes in {rows.num_rows} rows, expected at most "
                    f"{MAX_MEMBER_BYTES:,} in each"
                )
        self._batches = self.file.iter_batches(
            ROWS_AT_ONCE, row_groups=[group], columns=[self.column], use_threads=False
        )
        self._group, self._next_row, self._damage = group, self.starts[group], ""

    def _next_batch(self) -> Any:
        try:
            if not self._damage:
                batch = next(self._batches)
                self._next_row += 1
                return batch
        except StopIteration:
            self._damage = "the row group is cut short"
        except Exception as error:  # pyarrow has many kinds
            self._damage = f"the file is damaged here: {reason_of(error)}"
        raise DataError(self._damage)


def _annotations(row: Row, columns: Columns) -> tuple[Annotation, ...]:
    """The texts of a row; a column that is empty in it counts as missing."""
    records = [_plain(record) for record in row.get(QUESTIONS) or ()]
    if row.get("question") is not None:
        records.append(_plain({name: row.get(name) for name in QUESTION_COLUMNS}))
    texts = row.get(columns.text) if columns.text else None
    if texts is not None and (texts != [] or not records):
        records.append(_plain({"text": texts}))
    return merge_captions(parse_each(records, annotation_of, "text"))


def _plain(record: Any) -> Any:
    """A record without empty fields; a text that is itself a record, as in {"raw": "a dog"}, is
    that text."""
    if not isinstance(record, Mapping):
        return record
    return {name: _texts(value) for name, value in record.items() if value is not None}


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(item) for item in value]
    if isinstance(value, Mapping):
        return next((value[name] for name in TEXT_FIELDS if name in value), value)
    return value
