"""A source of the user's own: what it gives is checked, example by example."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from PIL import Image

from git_model.data.example import Annotation, Example, OpenExample, Source, Stream
from git_model.data.python import require_source
from git_model.data.sources import untaken_files
from git_model.utils.dotted import own_code
from git_model.utils.errors import ConfigError, GITError
from git_model.utils.serialize import short_repr


class CheckedSource:
    """A source whose examples are checked by `require_example`: a `Source`."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        return require_example(self._source[index], f"source[{index}]")

    def untaken(self) -> Iterator[str]:
        """See `PartOfFolder`."""
        return untaken_files(self._source)


class CheckedStream:
    """A stream whose examples are checked by `require_example`: a `Stream`."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def stream(self, epoch: int, seed: int, reader: int, n_readers: int) -> Iterator[OpenExample]:
        """See `Stream`."""
        for open_example in self._stream.stream(epoch, seed, reader, n_readers):
            yield partial(_opened, open_example)


def _opened(open_example: Callable[[], Any]) -> Example:
    return require_example(open_example(), "an example of the source's stream")


def checked(source: Source | Stream) -> Source | Stream:
    """The source, with a check of every example. The first example is checked at once.

    Raises:
        ConfigError: it is no source, is empty, or its first example is of a wrong type.
    """
    if isinstance(source, Stream):
        return CheckedStream(source)
    require_source(source, "source")
    try:
        with own_code("source[0] cannot be opened"):
            first = source[0]
    except ConfigError:
        raise
    except GITError:  # a broken example is counted when its step comes
        return CheckedSource(source)
    require_example(first, "source[0]")
    return CheckedSource(source)


def require_example(example: Any, where: str) -> Example:
    """The example, unless it or a part of it is of a wrong type; errors begin with `where`.

    Raises:
        ConfigError: the message names the part.
    """
    if not isinstance(example, Example):
        raise ConfigError(f"{where} is {short_repr(example)}, expected an Example")
    frames = example.media if isinstance(example.media, list) else [example.media]
    for name, value, valid, expected in (
        ("key", example.key, isinstance(example.key, str), "a text"),
        ("media", example.media, _all_of(frames, Image.Image) and bool(frames),
         "a Pillow image, or a list of them"),
        ("annotations", example.annotations, _all_of(example.annotations, Annotation),
         "a tuple of Annotation"),
    ):  # fmt: skip
        if not valid:
            raise ConfigError(f"{where}: {name} is {short_repr(value)}, expected {expected}")
    for note in example.annotations:
        if not _all_of(note.texts, str):
            raise ConfigError(
                f"{where}: texts is {short_repr(note.texts)}, expected a tuple of texts"
            )
        if not isinstance(note.question, str | None):
            raise ConfigError(
                f"{where}: question is {short_repr(note.question)}, expected a text or None"
            )
    return example


def _all_of(values: Any, kind: type) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(value, kind) for value in values)
