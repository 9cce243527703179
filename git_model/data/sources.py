"""All kinds of data sets that a recipe can name, and mixtures of them."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import accumulate, chain
from typing import Any, Literal

from git_model.data.coco import CocoData, KarpathyData, VqaData
from git_model.data.example import (
    Example,
    OpenExample,
    OpenStored,
    PartOfFolder,
    Source,
    StoredExample,
    StoredSource,
    Stream,
)
from git_model.data.folder import FolderData
from git_model.data.parquet import ParquetData
from git_model.data.python import PythonData
from git_model.data.tsv import TsvData
from git_model.data.webdataset import WebDatasetData
from git_model.shapes.source import ShapesData
from git_model.utils.errors import ConfigError, GITError
from git_model.utils.serialize import from_dict

# The kinds that have a length.
ListedData = ShapesData | CocoData | KarpathyData | VqaData | FolderData | TsvData | PythonData


@dataclass(frozen=True, kw_only=True)
class MixedData:
    """Several data sets as one, in order. A recipe has a table [[data.parts]] for each of them."""

    kind: Literal["mixed"] = "mixed"
    parts: tuple[ListedData, ...]  # data sets of the other kinds, except streams
    repeats: tuple[int, ...] | None = None  # how many times an epoch has each part; None: once

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("parts is empty, expected at least one data set")
        if self.repeats is not None and len(self.repeats) != len(self.parts):
            raise ConfigError(
                f"repeats has {len(self.repeats)} numbers, expected one for each of the "
                f"{len(self.parts)} parts"
            )
        if self.repeats is not None and min(self.repeats) < 1:
            raise ConfigError(f"repeats is {self.repeats}, expected numbers of at least 1")

    def open(self) -> "Mixed":
        """Open every part."""
        repeats = self.repeats or (1,) * len(self.parts)
        return Mixed([part.open() for part in self.parts], repeats)


class Mixed:
    """Several sources in order, each repeated `repeats` times: a `Source`."""

    def __init__(self, sources: Sequence[Source], repeats: Sequence[int]) -> None:
        self._sources = [
            source for source, n in zip(sources, repeats, strict=True) for _ in range(n)
        ]
        self._ends = list(accumulate(map(len, self._sources)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Example:
        part = bisect_right(self._ends, index)
        source = self._sources[part]
        return source[index - self._ends[part] + len(source)]

    def stored(self) -> Iterator[OpenStored]:
        """See `StoredSource`."""
        return chain.from_iterable(map(stored_examples, self._sources))

    def untaken(self) -> Iterator[str]:
        """See `PartOfFolder`."""
        return chain.from_iterable(map(untaken_files, dict.fromkeys(self._sources)))


def untaken_files(source: Source | Stream) -> Iterator[str]:
    """The names of files that look like images or videos, lie beside a source's files, and are no
    examples."""
    return source.untaken() if isinstance(source, PartOfFolder) else iter(())


def stored_examples(source: Source | Stream) -> Iterator[OpenStored]:
    """All examples of a source in order, with the bytes of their image files. A source without
    files gets PNG files."""
    if isinstance(source, StoredSource):
        return source.stored()
    if isinstance(source, Stream):
        examples = source.stream(0, 0, 0, 1)
    else:
        examples = (partial(source.__getitem__, index) for index in range(len(source)))
    return (partial(_as_png, number, example) for number, example in enumerate(examples, 1))


def _as_png(number: int, open_example: OpenExample) -> StoredExample:
    example = open_example()
    if isinstance(example.media, list):
        raise GITError(f"{example.key}: a clip, expected an image: clips stay where they are")
    buffer = BytesIO()
    example.media.save(buffer, "PNG")
    where = f"example {number}, {example.key}"
    return StoredExample(example.key, where, buffer.getvalue(), example.annotations)


DataConfig = ListedData | MixedData | WebDatasetData | ParquetData


@dataclass(frozen=True)
class _Table:
    data: DataConfig


def read_data(table: Mapping[str, Any], where: str) -> DataConfig:
    """The data set of a table: its `kind`, and that kind's fields.

    Raises:
        ConfigError: an unknown kind or key, a missing one, or a value of a wrong type.
    """
    return from_dict(_Table, {"data": table}, where).data
