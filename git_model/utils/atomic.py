"""Files and folders that appear whole or not at all: they are written beside, then renamed."""

import errno
import os
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from git_model.utils.errors import GITError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(GITError):
    """The disk is full, so the next file cannot be written either."""


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary file to fill, in the folder of `path`; it replaces `path` when the block ends
    without an error. Its name depends on `path` alone, so the next run overwrites what a killed
    process left behind.

    Raises:
        DiskFullError: the disk is full.
        GITError: the folder is missing, or the file cannot be written.
    """
    temporary = path.with_name(f".{path.name[:60]}.{zlib.crc32(os.fsencode(path.name)):08x}.new")
    require_file(path)
    try:
        temporary.unlink(missing_ok=True)
        temporary.touch(0o644, exist_ok=False)  # never follows a link of this name
        yield temporary
        _sync(temporary)  # otherwise a power failure could leave the new name with no content
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        error_type = DiskFullError if error.errno in DISK_FULL else GITError
        raise error_type(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        try_unlink(temporary)


def require_file(path: Path) -> None:
    """Refuse to replace a pipe, a socket or a device: its reader would wait for ever.

    Raises:
        GITError: it is such a thing.
    """
    try:
        mode = path.stat().st_mode
    except OSError:  # there is nothing, or writing will say what is wrong
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise GITError(f"{path}: a pipe, socket or device, expected a file or a new name")


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without fsync
            raise
    finally:
        os.close(descriptor)


def try_unlink(path: Path) -> None:
    """Delete a file if it exists; an error of the system is ignored."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


@contextmanager
def new_folder(folder: Path, *, replaces: Sequence[str] = ()) -> Iterator[Path]:
    """A temporary folder to fill, beside `folder`; it takes that name when the block ends without
    an error.

    Args:
        replaces: patterns of file names that `folder` may hold already; those files are deleted.

    Raises:
        GITError: `folder` exists and holds other files, or cannot be written.
    """
    if folder.is_symlink():
        folder = Path(os.path.realpath(folder))  # the link stays, and its target is replaced
    temporary = None
    try:
        _require_free(folder, replaces)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        temporary.chmod(0o755)
        yield temporary
        for path in temporary.rglob("*"):
            # some libraries write for their owner only
            path.chmod(0o755 if path.is_dir() else 0o644)
            _sync(path)
        _sync(temporary)
        _require_free(folder, replaces)  # again: what was put there meanwhile is not deleted
        _swap(temporary, folder)
    except OSError as error:
        raise GITError(f"{folder}: cannot be written: {error}") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _swap(temporary: Path, folder: Path) -> None:
    """Rename the temporary folder to `folder`; if that fails, an old folder is restored."""
    old = temporary.with_name(f"{temporary.name}.old")
    if folder.exists():
        folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _require_free(folder: Path, replaces: Sequence[str]) -> None:
    """Refuse to replace a file of any other name; the error names it."""
    if folder.is_dir():
        for path in folder.iterdir():
            if not any(fnmatch(path.name, pattern) for pattern in replaces) or path.is_dir():
                holds = f" and holds {path.name}" if replaces else ""
                raise GITError(f"{folder}: already exists{holds}; name a new folder")
    elif folder.exists():
        raise GITError(f"{folder}: already exists; name a new folder")
