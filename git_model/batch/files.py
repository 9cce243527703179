"""What comes before and after a run over a data set: its folder, and all outcomes in their order.

While a run is on its way, everything about it lies in a folder beside its target, named
`….run`: the journals, the settings it was begun with, and the records that the target had before.
The folder goes when the target is complete.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TextIO

from filelock import FileLock, Timeout

from git_model.batch.inputs import Input, Refused
from git_model.batch.journal import Journal, Outcome, open_journal, seen
from git_model.batch.records import Record, about, identity, identity_in
from git_model.batch.sinks import Target
from git_model.data.manifests import DataError, parse
from git_model.utils.atomic import new_file
from git_model.utils.errors import GITError

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Run:
    """A run on its way, as one process has it.

    Args:
        folder: what lies beside the target until that is complete.
        rank: of the process.
        journal: what was done before, by whomever, and what this process does.
        old: the records that the target had before.
    """

    folder: Path
    rank: int
    journal: Journal
    old: Journal


@contextmanager
def open_run(folder: Path, rank: int) -> Iterator[Run]:
    """One process's hold on a run whose folder is prepared.

    Raises:
        GITError: another process has it already.
    """
    with (
        _locked(folder / f"{rank}.lock"),
        open_journal(_journal_of(folder, rank)) as journal,
        open_journal(folder / "old" / "records.sqlite") as old,
    ):
        yield Run(folder, rank, journal, old)


def _journal_of(folder: Path, rank: int) -> Path:
    return folder / f"{rank}.sqlite"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise GITError(
            f"{path.parent}: another run writes here, expected to be the only one"
        ) from None


def prepare(folder: Path, settings: Record, records: Iterable[Record]) -> None:
    """Make a run's folder, or see to it that the one that is there can be gone on with.

    Args:
        settings: what the texts depend on; they must not change within a run.
        records: of the target as it is, to be kept.

    Raises:
        GITError: the run was begun with other settings; a record is damaged; the disk refuses.
    """
    settings = json.loads(json.dumps(settings))  # as it comes back
    try:
        (folder / "old").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GITError(f"{folder}: cannot be made: {error.strerror or error}") from None
    if (folder / SETTINGS).exists():
        _require_same(folder, settings)
        return
    with open_journal(folder / "old" / "records.sqlite") as old:
        old.note(Outcome(identity_in(record), record) for record in records)
    with new_file(folder / SETTINGS) as path:  # last, for it says that the rest is there
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _require_same(folder: Path, settings: Record) -> None:
    try:
        begun = parse((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, DataError) as error:
        raise GITError(f"{folder / SETTINGS}: {error}: delete {folder} to begin anew") from None
    for name in sorted({*begun, *settings}):
        was, now = begun.get(name), settings.get(name)
        if was != now:
            raise GITError(
                f"{folder}: this run was begun with {name} = {json.dumps(was)}, now it is "
                f"{json.dumps(now)}: go on with the former, or delete {folder} to begin anew"
            )


class Ending:
    """All outcomes of a run, in the order of its inputs.

    Args:
        errors: gets a line of JSON for each input that failed.

    Attributes:
        failed: how many these are.
    """

    def __init__(self, run: Run, errors: TextIO) -> None:
        self._run, self._errors = run, errors
        self.failed = 0

    def pairs(self, inputs: Iterable[Input | Refused]) -> Iterator[tuple[Input | None, Record]]:
        """The record of each input that has one, once; behind them those whose inputs are gone.
        What the target had before stays where there is no new text that is good enough."""
        with seen() as walked:
            for item in inputs:
                if walked.add(identity(item)):
                    record = self._record(item)
                    if record is not None and isinstance(item, Input):
                        yield item, record
            for outcome in chain(self._run.journal, self._run.old):
                if outcome.record is not None and walked.add(outcome.key):
                    yield None, outcome.record

    def fail(self, item: Input | Refused, reason: str) -> None:
        """Write a line about an input that failed."""
        self.failed += 1
        line = about(item) | {"error": reason}
        self._errors.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _record(self, item: Input | Refused) -> Record | None:
        new, old = self._run.journal.find(identity(item)), self._run.old.find(identity(item))
        if new is not None and new.failure is not None:
            self.fail(item, new.failure)
        if new is None or new.record is None or "rejected" in new.record:
            new = old or new
        return None if new is None else new.record


def finish(run: Run, target: Target, inputs: Iterable[Input | Refused]) -> int:
    """Write the target, and a line for each input that failed, once every process is done.

    Returns:
        how many failed.

    Raises:
        GITError: the disk refuses; the next run tries again.
    """
    errors = beside(target.place, "errors.jsonl")
    with (
        # Opened again: other processes may have begun their journals after this one looked.
        open_journal(_journal_of(run.folder, run.rank)) as journal,
        new_file(errors) as path,
        path.open("w", encoding="utf-8", errors="backslashreplace") as lines,
    ):
        ending = Ending(replace(run, journal=journal), lines)
        for item, reason in target.finish(ending.pairs(inputs)):
            ending.fail(item, reason)
    if not ending.failed:
        errors.unlink()
    return ending.failed


def close(folder: Path) -> None:
    """Take a complete run's folder away: at once, for half of one would look like a new run."""
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)  # of a run that was killed right here
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def beside(place: Path, name: str) -> Path:
    """A file that belongs to a target: in it if it is a folder, else named after it."""
    return place / name if place.is_dir() else place.with_name(f"{place.stem}.{name}")
