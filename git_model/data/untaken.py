"""Files that look like images or videos and are not taken: they are counted and named, never passed
over in silence."""

from collections.abc import Iterable
from pathlib import Path

from git_model.preprocessing.formats import START_BYTES, looks_like_media
from git_model.preprocessing.image import open_file
from git_model.utils.errors import bounded_line

MAX_NAMES = 5
DATA_REASONS = (
    "formats that are not read, other suffixes or none, hidden files, files without a line in "
    "metadata.jsonl, or videos: these need frames in [data]"
)


def looks_like_media_file(path: Path) -> bool:
    """Whether a file that is not taken seems to be an image or a video."""
    return looks_like_media(path.name, lambda: _start_of(path))


def _start_of(path: Path) -> bytes:
    with open_file(path) as file:
        return file.read(START_BYTES)


def untaken_line(names: Iterable[str], reasons: str = DATA_REASONS) -> str | None:
    """A line that counts the files and names the first ones; None if there are none."""
    count, first = 0, list[str]()
    for name in names:
        count += 1
        if count <= MAX_NAMES:
            first.append(bounded_line(name))
    if not count:
        return None
    more = f" and {count - len(first)} more" if count > len(first) else ""
    return (
        f"Not taken, though they look like images or videos: {count}: {', '.join(first)}{more} "
        f"({reasons})"
    )
