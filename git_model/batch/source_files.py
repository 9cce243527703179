"""The file that a text is about, so that no image gets the text of another one with its name.

Two folders may each hold a 1.jpg, and a folder may be renamed or copied. So the record of a text
has, in `source_file`, where the image's file lies and the SHA-256 of the image. A file in the same
place, of the same size and time, is the same; any other file is read and compared.
"""

import hashlib
import os
from pathlib import Path

from git_model.batch.items import ArchiveMember, Input, OutputRecord, ParquetCell, readable
from git_model.preprocessing.image import open_file
from git_model.utils.errors import GITError

SOURCE_FILE = "source_file"  # the field of a record
PIECE = 1 << 20  # bytes that are read at a time


def source_file(item: Input, folder: Path, data: bytes | None = None) -> OutputRecord | None:
    """What a record says about the file of an input. None: a web address, which is its own name.

    Args:
        folder: that the `path` is relative to, so that it stays true if both are moved.
        data: the bytes of the image, if they have been read already.

    Returns:
        `path`, `bytes` and `modified` (microseconds since 1970) of the file on the disk, which may
        be an archive or a table, and `sha256` of the image.

    Raises:
        OSError, GITError: it cannot be read.
    """
    path = _path_of(item)
    return None if path is None else _position(path, folder) | {"sha256": _digest(item, data)}


def is_of_another_file(record: OutputRecord, item: Input, folder: Path) -> bool:
    """Whether a record is about another file than this input; False if that is unknown."""
    recorded, path = record.get(SOURCE_FILE), _path_of(item)
    if not isinstance(recorded, dict) or path is None:
        return False
    try:
        if _position(path, folder).items() <= recorded.items():
            return False
        return _digest(item) != recorded.get("sha256")
    except (OSError, GITError):
        return False


def rival_of(record: OutputRecord, item: Input, folder: Path) -> Path | None:
    """The file that a record is about, if it still exists and does not hold this input."""
    recorded, path = record.get(SOURCE_FILE), _path_of(item)
    if not isinstance(recorded, dict) or path is None:
        return None
    rival = Path(os.path.normpath(folder / str(recorded.get("path"))))
    try:
        return rival if rival.exists() and not rival.samefile(path) else None
    except (OSError, ValueError):  # a path that no system has
        return None


def _path_of(item: Input) -> Path | None:
    """The file on the disk that holds an input."""
    location = item.location
    if isinstance(location, ArchiveMember):
        return location.archive
    if isinstance(location, ParquetCell):
        return location.path
    return location if isinstance(location, Path) else None


def _position(path: Path, folder: Path) -> OutputRecord:
    status = path.stat()
    try:
        name = os.path.relpath(path, folder)
    except ValueError:  # Windows has several roots
        name = os.path.abspath(path)  # noqa: PTH100  (`Path` keeps ..)
    return {
        "path": readable(name.replace(os.sep, "/")),
        "bytes": status.st_size,
        "modified": status.st_mtime_ns // 1000,
    }


def _digest(item: Input, data: bytes | None = None) -> str:
    if data is not None or not isinstance(item.location, Path):
        return hashlib.sha256(item.read() if data is None else data).hexdigest()
    digest = hashlib.sha256()
    with open_file(item.location) as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()
