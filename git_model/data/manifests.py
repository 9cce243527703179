"""What the readers of data sets share: strict looks into files, and a source of pictures in files.

A manifest is read whole when it is opened, and refused at its first fault; pictures are opened one
by one, when their turn comes.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

from git_model.data.example import Annotation, Example
from git_model.preprocessing.video import Clip, Sampling, read_media
from git_model.utils.errors import ConfigError, GITError
from git_model.utils.serialize import require_file, shown

T = TypeVar("T")
KINDS: dict[type, str] = {str: "a text", list: "a list", int: "a whole number"}


class DataError(GITError):
    """A data set that cannot be used; the message names the file and the place in it."""


def each(records: Iterable[Any], read: Callable[[Any], T], where: str) -> Iterator[T]:
    """What `read` makes of each record; its errors are told where: `where` and a number from 1."""
    for number, record in enumerate(records, start=1):
        try:
            yield read(record)
        except DataError as error:
            raise DataError(f"{where} {number}: {error}") from None


def value_of(record: Any, name: str, kind: type[T]) -> T:
    """The value of a field of a parsed JSON object.

    Raises:
        DataError: it is no object, lacks the field, or the value is of another type.
    """
    if not isinstance(record, Mapping):
        raise DataError(f"found {shown(record)}, expected an object with {name}")
    if name not in record:
        raise DataError(f"{name} is missing")
    value = record[name]
    if type(value) is not kind:
        raise DataError(f"{name} is {shown(value)}, expected {KINDS[kind]}")
    return value


def id_of(record: Any, name: str) -> str:
    """An id, which some data sets write as a number and some as a text, as a text."""
    kind = int if isinstance(record, Mapping) and type(record.get(name)) is int else str
    return str(value_of(record, name, kind))


def text_of(record: Any, name: str) -> str:
    """A field's text, which must have some words."""
    return words(value_of(record, name, str), name)


def words(text: str, name: str) -> str:
    """A text without the space around it, of which something must be left."""
    text = clean(text, name)
    if not text:
        raise DataError(f"{name} is empty, expected some words")
    return text


def clean(text: str, name: str) -> str:
    """A text without the space around it. JSON can spell halves of characters; they are refused."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DataError(f"{name} is {shown(text)}, expected whole characters") from None
    return text.strip()


def annotation_of(record: Any) -> Annotation:
    """What a record says of a picture: `text` or `caption`; or `question`, `answer` or `answers`,
    and `question_id`. Where several are allowed a list may stand. Other fields are not looked at.

    Raises:
        DataError: it says nothing, or not as expected.
    """
    if not isinstance(record, Mapping):
        raise DataError(f"found {shown(record)}, expected an object")
    if "question" in record:
        name = "answers" if "answers" in record else "answer"
        answers = _texts(record[name], name, clean) if name in record else ()
        key = id_of(record, "question_id") if "question_id" in record else ""
        return Annotation(answers, text_of(record, "question"), key)
    for name in ("text", "caption"):
        if name in record:
            return Annotation(_texts(record[name], name, words))
    raise DataError("there is no text, expected text, caption or question")


def merged(targets: Iterable[Annotation]) -> tuple[Annotation, ...]:
    """Targets of one picture: the captions as one target, then the questions."""
    targets = list(targets)
    questions = [target for target in targets if target.question is not None]
    captions = [target.texts for target in targets if target.question is None]
    first = [Annotation(tuple(text for texts in captions for text in texts))] if captions else []
    return (*first, *questions)


def _texts(value: Any, name: str, read: Callable[[str, str], str]) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value]
    return tuple(read(value_of({name: text}, name, str), name) for text in texts)


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text, without their ends.

    Raises:
        DataError: the file cannot be read, or a line is not UTF-8; the message names it.
    """
    try:
        require_file(path)
        data = path.read_bytes()
    except ConfigError as error:
        raise DataError(str(error)) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    return list(each(data.removeprefix(b"\xef\xbb\xbf").splitlines(), decode, f"{path}: line"))


def decode(line: bytes) -> str:
    """Bytes as UTF-8."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: {error.reason} at byte {error.start + 1}") from None


def parse(text: str) -> Any:
    """What a JSON text says."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not valid JSON: {error}") from None


def inside(folder: Path, name: str) -> Path:
    """The path of a file that a manifest names, which must lie in its folder."""
    for kind in (PurePosixPath, PureWindowsPath):  # a manifest may come from either
        path = kind(name)
        if path.anchor or ".." in path.parts or "\0" in name:
            raise DataError(
                f"the file name {shown(name)} leaves its folder, expected one within it"
            )
    return folder / name


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture's file, and what is to be said about it."""

    key: str
    path: Path
    annotations: tuple[Annotation, ...]


class Files:
    """Pictures in files, or clips if they are videos or animations: a `Source`.

    Args:
        where: what errors call it, such as the manifest's path.
        frames: most frames of a clip; 0: of an animation only the first, and no videos.

    Raises:
        DataError: there are no entries, or not one of their files.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        where: str,
        frames: int = 0,
        sampling: Sampling = "uniform",
    ) -> None:
        if not entries:
            raise DataError(f"{where}: there are no pictures in it, expected at least one")
        # Path.exists fails where a name is too long or a folder is closed to us
        if not any(os.path.exists(entry.path) for entry in entries):  # noqa: PTH110
            raise DataError(
                f"{where}: not one of its {len(entries)} pictures is there, the first is "
                f"{entries[0].path}: is the folder of images right?"
            )
        self._entries, self._frames, self._sampling = entries, frames, sampling

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Example:
        entry = self._entries[index]
        media = read_media(entry.path, self._frames, self._sampling)
        return Example(
            entry.key, media.frames if isinstance(media, Clip) else media, entry.annotations
        )
