"""The journal of a run: for each input a record or a failure, kept on disk.

Every process of a run writes its own SQLite file into the run's folder, in one transaction for each
batch. So a process may be killed at any moment, and a batch is stored whole or not at all. A run
that continues reads all files, written by any number of processes.
"""

import json
import re
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from filelock import FileLock, Timeout

from git_model.batch.items import OutputRecord
from git_model.utils.errors import GITError

SETTINGS = "settings.json"  # of a run, in its folder
NOTED = "files.sha256"  # digests of the files that a run will write beside its sink
OWN_FILES = re.compile(  # that a run makes in its folder; SQLite and `new_file` have temporary ones
    r"(\d+\.(lock|sqlite(-journal|-wal|-shm)?)|old/records\.sqlite(-journal|-wal|-shm)?"
    r"|settings\.json|\.settings\.json\.[0-9a-f]{8}\.new|files\.sha256)"
)
LOCK_TIMEOUT = 60.0  # seconds, for another process to end its transaction
TABLE = """CREATE TABLE IF NOT EXISTS outcome
    (number INTEGER PRIMARY KEY, key BLOB UNIQUE, record TEXT, failure TEXT, settled INTEGER)"""
INSERT = """INSERT INTO outcome (key, record, failure, settled) VALUES (?, ?, ?, ?)
    ON CONFLICT (key) DO UPDATE
    SET record = excluded.record, failure = excluded.failure, settled = excluded.settled"""
SELECT = "SELECT key, record, failure, settled FROM outcome"


class JournalError(GITError):
    """A journal that cannot be used: the disk is full, or a file of it is damaged."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of an input: a record, or a failure in one line.

    is_settled: whether the text is written, if it is to be written at once beside its image.
    """

    key: bytes
    record: OutputRecord | None = None
    failure: str | None = None
    is_settled: bool = True


class Journal:
    """The outcomes in some SQLite files; new ones are written to the first file.

    One thread may read while another one writes.
    """

    def __init__(self, files: list[sqlite3.Connection], name: str) -> None:
        self._files, self._name = files, name
        self._lock = Lock()

    def find(self, key: bytes) -> Outcome | None:
        """The outcome of an input, or None. If several processes stored one, a settled outcome is
        preferred."""
        outcome = None
        with self._guarded():
            for file in self._files:
                row = file.execute(f"{SELECT} WHERE key = ?", (key,)).fetchone()
                if row is not None and (outcome is None or not outcome.is_settled):
                    outcome = _outcome(*row)
        return outcome

    def note(self, outcomes: Iterable[Outcome]) -> None:
        """Store the outcomes of some inputs: all of them, or none if that fails."""
        rows = (
            (
                outcome.key,
                None if outcome.record is None else json.dumps(outcome.record, allow_nan=False),
                outcome.failure,
                outcome.is_settled,
            )
            for outcome in outcomes
        )
        with self._guarded(), self._files[0] as transaction:
            transaction.executemany(INSERT, rows)

    def __iter__(self) -> Iterator[Outcome]:
        """All outcomes: file by file, in the order in which they were stored. Not while another
        thread writes."""
        for file in self._files:
            with self._guarded():
                rows = file.execute(f"{SELECT} ORDER BY number")
            yield from (_outcome(*row) for row in rows)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise JournalError(f"{self._name}: {error}") from None


@contextmanager
def open_journal(file: Path) -> Iterator[Journal]:
    """The journal of all files in a folder. New outcomes are written to `file`, which is made if
    necessary.

    Raises:
        JournalError: a file is damaged or cannot be written.
    """
    others = sorted(path for path in file.parent.glob("*.sqlite") if path != file)
    connections: list[sqlite3.Connection] = []
    try:
        for path in (file, *others):
            connections.append(_connect(path))
        yield Journal(connections, str(file.parent))
    finally:
        for connection in connections:
            connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, timeout=LOCK_TIMEOUT, check_same_thread=False)
        connection.execute(TABLE)
    except sqlite3.Error as error:
        raise JournalError(f"{path}: {error}: expected the journal of a run") from None
    return connection


def _outcome(key: bytes, record: str | None, failure: str | None, settled: int) -> Outcome:
    return Outcome(key, None if record is None else json.loads(record), failure, bool(settled))


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, opened by one process.

    path: beside the sink, until the sink is complete.
    rank: of the process.
    journal: the outcomes so far, of all processes; this process adds its own.
    old: the records that the sink had before the run.
    """

    path: Path
    rank: int
    journal: Journal
    old: Journal

    @property
    def journal_path(self) -> Path:
        """The file that this process writes."""
        return journal_path(self.path, self.rank)


@contextmanager
def open_run(folder: Path, rank: int) -> Iterator[RunFolder]:
    """Open a prepared run's folder for one process.

    Raises:
        GITError: another process has it open already.
    """
    with (
        _locked(folder / f"{rank}.lock"),
        open_journal(journal_path(folder, rank)) as journal,
        open_journal(old_records_path(folder)) as old,
    ):
        yield RunFolder(folder, rank, journal, old)


def journal_path(folder: Path, rank: int) -> Path:
    """The file of a process."""
    return folder / f"{rank}.sqlite"


def old_records_path(folder: Path) -> Path:
    """The file of the records that the sink had before the run."""
    return folder / "old" / "records.sqlite"


def foreign_file(folder: Path) -> Path | None:
    """A file or folder in a run's folder that no run makes. None: there is none, or no folder."""
    if folder.is_symlink():
        return folder
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_own = name == "old" if path.is_dir() else OWN_FILES.fullmatch(name)
        if not is_own or path.is_symlink():
            return path
    return None


def close_run(folder: Path) -> None:
    """Remove the files of a complete run, and its folder. It is renamed first, because half a
    folder would be taken for a new run."""
    removed = removed_path(folder)
    _remove_own(removed)  # of a run that was killed right here
    folder.rename(removed)
    _remove_own(removed)


def removed_path(folder: Path) -> Path:
    """The name of a run's folder while it is removed."""
    return folder.with_name(f".{folder.name}.gone")


def _remove_own(folder: Path) -> None:
    if folder.is_dir() and foreign_file(folder) is None:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise GITError(
            f"{path.parent}: another run writes here, expected to be the only one"
        ) from None


class DiskSet:
    """A set of keys in a temporary file, however many there are."""

    def __init__(self, file: sqlite3.Connection) -> None:
        self._file = file

    def add(self, key: bytes) -> bool:
        """Add a key. True if it is new."""
        try:
            query = "INSERT OR IGNORE INTO keys VALUES (?)"
            return self._file.execute(query, (key,)).rowcount == 1
        except sqlite3.Error as error:
            raise JournalError(f"the folder of temporary files: {error}") from None


@contextmanager
def disk_set() -> Iterator[DiskSet]:
    """An empty set."""
    with _temporary_table("key BLOB PRIMARY KEY") as file:
        yield DiskSet(file)


class DiskOwners:
    """Names with their owners in a temporary file, however many there are."""

    def __init__(self, file: sqlite3.Connection) -> None:
        self._file = file

    def claim(self, name: bytes, owner: bytes) -> bytes:
        """The owner of a name. A name without an owner gets this one."""
        try:
            self._file.execute("INSERT OR IGNORE INTO keys VALUES (?, ?)", (name, owner))
            row = self._file.execute("SELECT owner FROM keys WHERE key = ?", (name,)).fetchone()
            return bytes(row[0])
        except sqlite3.Error as error:
            raise JournalError(f"the folder of temporary files: {error}") from None


@contextmanager
def disk_owners() -> Iterator[DiskOwners]:
    """An empty table of names with owners."""
    with _temporary_table("key BLOB PRIMARY KEY, owner BLOB") as file:
        yield DiskOwners(file)


@contextmanager
def _temporary_table(columns: str) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect("", isolation_level=None)) as file:  # "": a file without a name
        file.execute(f"CREATE TABLE keys ({columns}) WITHOUT ROWID")
        file.execute("BEGIN")  # one transaction, because the table is temporary
        yield file
