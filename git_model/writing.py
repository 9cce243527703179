"""A file comes whole or not at all: it is written beside its place, and then takes its name."""

import errno
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from git_model.settings import GITError

FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(GITError):
    """There is no room for a file: to go on with the next one would be of no use."""


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A file to fill, beside `path`; it takes that name when the block ends without an error, in
    place of what was there. Its own name is always the same, so that what a killed process leaves
    is found and replaced by the next.

    Raises:
        DiskFullError: the disk is full.
        GITError: the folder is missing, or the disk refuses.
    """
    beside = path.with_name(f".{path.name[:60]}.{zlib.crc32(os.fsencode(path.name)):08x}.new")
    try:
        beside.unlink(missing_ok=True)
        beside.touch(0o644, exist_ok=False)  # and no link that somebody has put there
        yield beside
        beside.replace(path)
    except OSError as error:
        kind = DiskFullError if error.errno in FULL else GITError
        raise kind(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        try_unlink(beside)


def try_unlink(path: Path) -> None:
    """Take a file away if it is there and lets itself be taken."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
