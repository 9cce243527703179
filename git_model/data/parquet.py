"""Parquet with the images in the table, as Hugging Face stores data sets: a stream of rows.

Needs the package pyarrow, the extra `parquet`, which is imported when a file is opened. A table may
come from anyone, so rows are decoded one by one, and the size of an image is limited.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
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
            DataError: a file is missing or damaged, or has no column of images.
        """
        groups, columns = [], {}
        for path in shard_paths(self.files, "a Parquet file"):
            with open_parquet(path) as file:
                columns[path] = _columns(path, file, self.image, self.text)
                first = 0
                for number in range(file.num_row_groups):
                    groups.append((path, number, first))
                    first += file.metadata.row_group(number).num_rows
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
    images = [name for name, kind in fields.items() if _holds_images(kind)]
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


def _holds_images(kind: Any) -> bool:
    """Whether a column's type is bytes, or a record with them."""
    from pyarrow import types

    if types.is_struct(kind):
        names = [kind.field(index).name for index in range(kind.num_fields)]
        return "bytes" in names and _holds_images(kind.field("bytes").type)
    return types.is_binary(kind) or types.is_large_binary(kind)


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
        image = row[columns.image]
        data = image.get("bytes") if isinstance(image, Mapping) else image
        if not data:
            raise DataError(f"{columns.image} is empty, expected the bytes of an image")
        if len(data) > MAX_MEMBER_BYTES:
            raise DataError(
                f"{columns.image} has {len(data):,} bytes, expected at most {MAX_MEMBER_BYTES:,}"
            )
        key = id_of(row, columns.key) if columns.key else f"{path.stem}/{number}"
        return StoredExample(key, where, data, _annotations(row, columns))
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


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
