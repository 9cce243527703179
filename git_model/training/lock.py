"""The lock of a run's folder: one process at a time writes there.

The lock is a file that names its process, because file locks of the operating system do not work on
every network file system. A process that was killed leaves the file behind; the next start on the
same machine detects that this process has ended, and takes the lock over.
"""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from git_model.utils.errors import CheckpointError

LOCK = "run.lock"


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder.

    Raises:
        CheckpointError: another process holds it, or the folder cannot be written.
    """
    path, text = folder / LOCK, _owner()
    try:
        if not _create(path, text):
            _remove_stale(path)
            if not _create(path, text):
                raise CheckpointError(f"{folder}: another process has just started to train here")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if path.read_text(encoding="utf-8") == text:
                path.unlink()


def _owner() -> str:
    """This process, as the file names it."""
    pid = os.getpid()
    values = {"process": pid, "host": socket.gethostname(), "start": _start_time(pid)}
    return json.dumps(values) + "\n"


def _create(path: Path, text: str) -> bool:
    """Make the file if there is none. True if it was made."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _remove_stale(path: Path) -> None:
    """Remove the lock of a process that has ended.

    Raises:
        CheckpointError: the process runs, or belongs to another machine, where this cannot be
            checked.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        values = json.loads(text)
        pid, host, start = values["process"], values["host"], values["start"]
    except (ValueError, RecursionError, KeyError, TypeError):
        pid, host, start = "unknown", "an unknown machine", None
    here = isinstance(pid, int) and host == socket.gethostname()
    if not here or _runs(pid, start):
        hint = "" if here else f"; if it has ended, delete {path}"
        raise CheckpointError(
            f"{path.parent}: process {pid} on {host} is training here, expected one run at a "
            f"time{hint}"
        )
    aside = path.with_name(f".{LOCK}.{os.getpid()}.old")
    path.rename(aside)  # of several processes that take over, one gets the file
    if aside.read_text(encoding="utf-8", errors="replace") == text:
        aside.unlink()
    else:  # another process took over in between, and this is its lock
        aside.rename(path)


def _runs(pid: int, start: str | None) -> bool:
    """Whether a process of this machine runs. Without /proc another process with the same number
    cannot be told apart."""
    if os.name == "nt":
        return True  # there, os.kill would end it
    try:
        os.kill(pid, 0)
    except PermissionError:  # another user's
        pass
    except (ProcessLookupError, OverflowError):
        return False
    return start is None or _start_time(pid) == start


def _start_time(pid: int) -> str | None:
    """When a process started, in clock ticks since the start of the machine; None without /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]  # a zombie has ended
