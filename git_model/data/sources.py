"""All kinds of data sets that a recipe can name, and mixtures of them."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from git_model.data.coco import CocoData, KarpathyData, VqaData
from git_model.data.example import Example, Source
from git_model.data.folder import FolderData
from git_model.data.python import PythonData
from git_model.data.tsv import TsvData
from git_model.data.webdataset import WebDatasetData
from git_model.shapes.source import ShapesData
from git_model.utils.errors import ConfigError
from git_model.utils.serialize import from_dict

# The kinds that have a length.
ListedData = ShapesData | CocoData | KarpathyData | VqaData | FolderData | TsvData | PythonData


@dataclass(frozen=True, kw_only=True)
class MixedData:
    """Several data sets as one, in order; in a recipe a table [[data.parts]] for each."""

    kind: Literal["mixed"] = "mixed"
    parts: tuple[ListedData, ...]  # each with a kind
    repeats: tuple[int, ...] | None = None  # of each part in an epoch; None: once

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


DataConfig = ListedData | MixedData | WebDatasetData


@dataclass(frozen=True)
class _Table:
    data: DataConfig


def read_data(table: Mapping[str, Any], where: str) -> DataConfig:
    """The data set of a table: its `kind`, and that kind's fields.

    Raises:
        ConfigError: an unknown kind or key, a missing one, or a value of a wrong type.
    """
    return from_dict(_Table, {"data": table}, where).data
