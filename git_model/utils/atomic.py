"""Files and folders that appear whole or not at all: written beside their place, then renamed."""

import errno
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from git_model.utils.errors import GITError

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


@contextmanager
def new_folder(folder: Path, *, replaces: Sequence[str] = ()) -> Iterator[Path]:
    """A folder to fill, beside `folder`; it takes that name when the block ends without an error.

    Args:
        replaces: patterns of the files that `folder` may hold already, and that then go.

    Raises:
        GITError: `folder` is in the way, or the disk refuses.
    """
    beside = None
    try:
        _require_free(folder, replaces)
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        beside.chmod(0o755)
        yield beside
        for path in beside.iterdir():
            path.chmod(0o644)  # some libraries write for their owner only
        old = beside.with_name(f"{beside.name}.old")
        if folder.exists():
            folder.rename(old)
        try:
            beside.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise GITError(f"{folder}: cannot be written: {error}") from None
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def _require_free(folder: Path, replaces: Sequence[str]) -> None:
    """Refuse what is in the way of a new folder; what would be lost is named."""
    if folder.is_dir():
        for path in folder.iterdir():
            if not any(fnmatch(path.name, pattern) for pattern in replaces) or path.is_dir():
                lost = f" and holds {path.name}" if replaces else ""
                raise GITError(f"{folder}: already exists{lost}; name a new folder")
    elif folder.exists():
        raise GITError(f"{folder}: already exists; name a new folder")
