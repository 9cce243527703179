"""What a run over a data set has done so far: for each input a record or a failure, kept on disk.

Every process of a run writes an SQLite file of its own into the run's folder, a transaction for
each batch: a process may be killed at any moment, and a batch is noted whole or not at all. Whoever
goes on reads all the files, whatever the number of processes that wrote them.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from git_model.batch.records import Record
from git_model.utils.errors import GITError

PATIENCE = 60.0  # seconds, for another process to end its transaction
TABLE = """CREATE TABLE IF NOT EXISTS outcome
    (number INTEGER PRIMARY KEY, key BLOB UNIQUE, record TEXT, failure TEXT, settled INTEGER)"""
NOTE = """INSERT INTO outcome (key, record, failure, settled) VALUES (?, ?, ?, ?)
    ON CONFLICT (key) DO UPDATE
    SET record = excluded.record, failure = excluded.failure, settled = excluded.settled"""
COLUMNS = "SELECT key, record, failure, settled FROM outcome"


class JournalError(GITError):
    """A journal that cannot be used: the disk is full, or a file of it is damaged."""


@dataclass(frozen=True)
class Outcome:
    """What became of an input: a record, or a failure in one line.

    settled: whether what is written at once, such as a text beside the picture, is written.
    """

    key: bytes
    record: Record | None = None
    failure: str | None = None
    settled: bool = True


class Journal:
    """The outcomes in some SQLite files; the first is the one that is written.

    It may be asked in one thread while another notes.
    """

    def __init__(self, files: list[sqlite3.Connection], where: str) -> None:
        self._files, self._where = files, where
        self._lock = Lock()

    def find(self, key: bytes) -> Outcome | None:
        """What became of an input, if anything did: in the end, if a process has settled what
        another left."""
        found = None
        with self._guarded():
            for file in self._files:
                row = file.execute(f"{COLUMNS} WHERE key = ?", (key,)).fetchone()
                if row is not None and (found is None or not found.settled):
                    found = _outcome(*row)
        return found

    def note(self, outcomes: Iterable[Outcome]) -> None:
        """Note what became of some inputs: all of it, or nothing if that fails."""
        rows = (
            (
                one.key,
                None if one.record is None else json.dumps(one.record, allow_nan=False),
                one.failure,
                one.settled,
            )
            for one in outcomes
        )
        with self._guarded(), self._files[0] as transaction:
            transaction.executemany(NOTE, rows)

    def __iter__(self) -> Iterator[Outcome]:
        """All outcomes: file by file, in the order in which they were noted. Not while another
        thread notes."""
        for file in self._files:
            with self._guarded():
                rows = file.execute(f"{COLUMNS} ORDER BY number")
            yield from (_outcome(*row) for row in rows)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise JournalError(f"{self._where}: {error}") from None


@contextmanager
def open_journal(file: Path) -> Iterator[Journal]:
    """The journal of all files in a folder, to be written to `file`, which is made if need be.

    Raises:
        JournalError: a file is damaged, or the disk refuses.
    """
    others = sorted(path for path in file.parent.glob("*.sqlite") if path != file)
    opened: list[sqlite3.Connection] = []
    try:
        for path in (file, *others):
            opened.append(_connect(path))
        yield Journal(opened, str(file.parent))
    finally:
        for connection in opened:
            connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, timeout=PATIENCE, check_same_thread=False)
        connection.execute(TABLE)
    except sqlite3.Error as error:
        raise JournalError(f"{path}: {error}: expected the journal of a run") from None
    return connection


def _outcome(key: bytes, record: str | None, failure: str | None, settled: int) -> Outcome:
    return Outcome(key, None if record is None else json.loads(record), failure, bool(settled))


class Seen:
    """A set of keys in a temporary file, however many there are."""

    def __init__(self, file: sqlite3.Connection) -> None:
        self._file = file

    def add(self, key: bytes) -> bool:
        """Whether a key is new to the set; from now on it is not."""
        try:
            query = "INSERT OR IGNORE INTO seen VALUES (?)"
            return self._file.execute(query, (key,)).rowcount == 1
        except sqlite3.Error as error:
            raise JournalError(f"the folder of temporary files: {error}") from None


@contextmanager
def seen() -> Iterator[Seen]:
    """An empty set."""
    with closing(sqlite3.connect("", isolation_level=None)) as file:  # "": a file without a name
        file.execute("CREATE TABLE seen (key BLOB PRIMARY KEY) WITHOUT ROWID")
        file.execute("BEGIN")  # one transaction, for nothing of it is to last
        yield Seen(file)
