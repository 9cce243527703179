"""Refuses inputs that would share a key or a text file: no input gets another's text."""

import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from git_model.batch.items import (
    AnyInput,
    ArchiveMember,
    Input,
    ParquetCell,
    RefusedInput,
    WebAddress,
    readable,
)
from git_model.batch.journal import DiskOwners, disk_owners, disk_set
from git_model.batch.sinks import Sink
from git_model.utils.errors import GITError, one_line


@dataclass(frozen=True)
class DistinctInputs:
    """The inputs of a run. A key, and a text file, belong to the first input that has them. Another
    input with the same key or text file is refused, with an error that names the first one. The
    same input a second time is not refused.

    sink: None: there are no text files.
    folder: of the run, on the same disk as the text files.
    """

    inputs: Iterable[AnyInput]
    sink: Sink | None = None
    folder: Path = Path()

    def __iter__(self) -> Iterator[AnyInput]:
        is_case_blind = self.sink is not None and case_blind(self.folder)
        with disk_owners() as keys, disk_owners() as outputs:
            for item in self.inputs:
                refused = _refused_key(item, keys)
                path = None if refused or isinstance(item, RefusedInput) else self._output(item)
                if path is not None and isinstance(item, Input):
                    refused = _refused_output(item, path, outputs, is_case_blind)
                yield refused or item

    def _output(self, item: Input) -> Path | None:
        try:
            return None if self.sink is None else self.sink.output_path(item)
        except GITError:
            return None  # `Sink.write` reports it


def each_once(inputs: Iterable[AnyInput]) -> Iterator[AnyInput]:
    """The inputs, each at its first occurrence only."""
    with disk_set() as identities:
        yield from (item for item in inputs if identities.add(item.identity))


def _refused_key(item: AnyInput, keys: DiskOwners) -> RefusedInput | None:
    """The refusal of an input whose key another one has."""
    if isinstance(item, RefusedInput):
        location, reason = f"refused: {item.reason}", item.reason
    else:
        location = _location(item)
        reason = f"{item.name}: another input has this name, expected each name once"
    if keys.claim(_bytes(item.name), _bytes(location)) == _bytes(location):
        return None
    return RefusedInput(f"{item.key} ({location})", one_line(f"{reason} ({readable(location)})"))


def _location(item: Input) -> str:
    if isinstance(item.location, ArchiveMember):
        return f"at byte {item.location.offset} of {item.location.archive}"
    if isinstance(item.location, ParquetCell):
        return f"row {item.location.row + 1} of {item.location.path}"
    if isinstance(item.location, WebAddress):
        return item.location.url
    return os.path.abspath(item.location)  # noqa: PTH100  (`Path` keeps ..)


def _refused_output(
    item: Input, path: Path, outputs: DiskOwners, is_case_blind: bool
) -> RefusedInput | None:
    """The refusal of an input whose text file belongs to another one."""
    name = str(path)
    if is_case_blind:
        name = unicodedata.normalize("NFC", name).casefold()
    owner = outputs.claim(_bytes(name), _bytes(item.key))
    if owner == _bytes(item.key):
        return None
    other = readable(owner.decode("utf-8", "surrogateescape"))
    reason = f"{item.name}: {other} would have the same text file: rename one of them"
    return RefusedInput(item.key, one_line(reason))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def case_blind(path: Path) -> bool:
    """Whether the disk of this file or folder ignores case in names."""
    other = path.with_name(path.name.swapcase())
    try:
        return other.samefile(path)
    except OSError:  # there is no such file
        return False
