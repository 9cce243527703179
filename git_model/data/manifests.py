"""The common part of all data formats: strict parsing of records, and a source of image files.

A manifest is read whole when it is opened, and its first fault is an error. An image is opened when
its example is read.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, TypeVar

from git_model.data.example import Annotation, Example, OpenStored, StoredExample
from git_model.utils.errors import ConfigError, GITError
from git_model.utils.serialize import require_file, short_repr

if TYPE_CHECKING:
    from git_model.preprocessing.sampling import Sampling

T = TypeVar("T")
TYPE_NAMES: dict[type, str] = {str: "a text", list: "a list", int: "a whole number"}


class DataError(GITError):
    """A data set that cannot be used; the message names the file and the line or field."""


def parse_each(records: Iterable[Any], read: Callable[[Any], T], where: str) -> Iterator[T]:
    """The results of `read` for each record. Errors begin with `where` and the record's number,
    from 1."""
    for number, record in enumerate(records, start=1):
        try:
            yield read(record)
        except DataError as error:
            raise DataError(f"{where} {number}: {error}") from None


def value_of(record: Any, name: str, kind: type[T]) -> T:
    """The value of a field of a parsed JSON object.

    Raises:
        DataError: the record is not an object, lacks the field, or the value is of another type.
    """
    if not isinstance(record, Mapping):
        raise DataError(f"found {short_repr(record)}, expected an object with {name}")
    if name not in record:
        raise DataError(f"{name} is missing")
    value = record[name]
    if type(value) is not kind:
        raise DataError(f"{name} is {short_repr(value)}, expected {TYPE_NAMES[kind]}")
    return value


def id_of(record: Any, name: str) -> str:
    """An id as a text; some data sets write it as a number. A lone surrogate is a DataError."""
    return require_characters(raw_id_of(record, name), name)


def raw_id_of(record: Any, name: str) -> str:
    """As `id_of`, but lone surrogates are allowed: in predictions about files whose names are not
    UTF-8."""
    kind = int if isinstance(record, Mapping) and type(record.get(name)) is int else str
    return str(value_of(record, name, kind))


def text_of(record: Any, name: str) -> str:
    """A field's text, stripped. An empty text is a DataError."""
    return _require_words(value_of(record, name, str), name)


def _require_words(text: str, name: str) -> str:
    text = clean(text, name)
    if not text:
        raise DataError(f"{name} is empty, expected some words")
    return text


def clean(text: str, name: str) -> str:
    """A text, stripped. A lone surrogate is a DataError."""
    return require_characters(text, name).strip()


def require_characters(text: str, name: str) -> str:
    """The text. A lone surrogate, half a character that JSON can spell, is a DataError."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DataError(f"{name} is {short_repr(text)}, expected whole characters") from None
    return text


def annotation_of(record: Any) -> Annotation:
    """The annotation in a record with `text` or `caption`, or with `question`, `answer` or
    `answers`, and `question_id`. Texts and answers may be a list. Other fields are ignored.

    Raises:
        DataError: there is no text, or a field is not as expected.
    """
    if not isinstance(record, Mapping):
        raise DataError(f"found {short_repr(record)}, expected an object")
    if "question" in record:
        name = "answers" if "answers" in record else "answer"
        answers = _texts(record[name], name, clean) if name in record else ()
        key = id_of(record, "question_id") if "question_id" in record else ""
        return Annotation(answers, text_of(record, "question"), key)
    for name in ("text", "caption"):
        if name in record:
            return Annotation(_texts(record[name], name, _require_words))
    raise DataError("there is no text, expected text, caption or question")


def merge_captions(annotations: Iterable[Annotation]) -> tuple[Annotation, ...]:
    """The annotations of one image: all captions as one annotation, then the questions."""
    annotations = list(annotations)
    questions = [item for item in annotations if item.question is not None]
    captions = [item.texts for item in annotations if item.question is None]
    first = [Annotation(tuple(text for texts in captions for text in texts))] if captions else []
    return (*first, *questions)


def _texts(value: Any, name: str, read: Callable[[str, str], str]) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value]
    return tuple(read(value_of({name: text}, name, str), name) for text in texts)


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, without their ends.

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
    return list(
        parse_each(data.removeprefix(b"\xef\xbb\xbf").splitlines(), decode, f"{path}: line")
    )


def decode(line: bytes) -> str:
    """Bytes as UTF-8."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: {error.reason} at byte {error.start + 1}") from None


def parse(text: str) -> Any:
    """The value of a JSON text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not valid JSON: {error}") from None


def path_within(folder: Path, name: str) -> Path:
    """The path of a file that a manifest names. A path that leaves the folder, or that no file can
    have, is a DataError."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise DataError(f"the file name is {short_repr(name)}, expected whole characters") from None
    for kind in (PurePosixPath, PureWindowsPath):  # a manifest may come from either system
        path = kind(name)
        if path.anchor or ".." in path.parts or "\0" in name:
            raise DataError(
                f"the file name {short_repr(name)} leaves its folder, expected one within it"
            )
    return folder / name


@dataclass(frozen=True, slots=True)
class FileEntry:
    """An image's file, and its annotations."""

    key: str
    path: Path
    annotations: tuple[Annotation, ...]


class FileSource:
    """Image files, or clips if they are videos or animations: a `Source`.

    Args:
        where: its name in errors, such as the manifest's path.
        frames: maximum number of frames of a clip; 0: the first frame of an animation, no videos.
        sampling: the rule that picks the frames, see `sampling.ReadOptions`.

    Raises:
        DataError: there are no entries, or none of their files exists.
    """

    def __init__(
        self,
        entries: Sequence[FileEntry],
        where: str,
        frames: int = 0,
        sampling: "Sampling" = "uniform",
    ) -> None:
        if not entries:
            raise DataError(f"{where}: there are no images in it, expected at least one")
        # Path.exists raises an error for a name that is too long and for a folder without access
        if not any(os.path.exists(entry.path) for entry in entries):  # noqa: PTH110
            raise DataError(
                f"{where}: none of its {len(entries)} image files exists, the first is "
                f"{entries[0].path}: check the folder of images"
            )
        self._entries, self._where = entries, where
        self._frames, self._sampling = frames, sampling

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Example:
        entry = self._entries[index]
        # Imported here, because it loads torch, and the command line uses this file's other parts.
        from git_model.preprocessing.clip import Clip
        from git_model.preprocessing.sampling import ReadOptions
        from git_model.preprocessing.video import NotAnImageError, read_media

        options = ReadOptions(sampling=self._sampling)
        try:
            media = read_media(entry.path, self._frames, options)
        except NotAnImageError as error:
            raise DataError(f"{error}; videos need the kind folder, with frames") from None
        frames = media.frames if isinstance(media, Clip) else media
        return Example(entry.key, frames, entry.annotations)

    def stored(self) -> Iterator[OpenStored]:
        """See `StoredSource`."""
        return (partial(_stored, entry) for entry in self._entries)


def _stored(entry: FileEntry) -> StoredExample:
    from git_model.preprocessing.image import open_file

    try:
        with open_file(entry.path) as file:
            return StoredExample(entry.key, str(entry.path), file.read(), entry.annotations)
    except OSError as error:
        raise DataError(f"{entry.path}: {error.strerror or error}") from None
