"""An example of a data set: an image or a clip, and its annotations."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from PIL import Image

from git_model.utils.errors import GITError

Media = Image.Image | list[Image.Image]  # an image, or the frames of a clip


@dataclass(frozen=True)
class Annotation:
    """The reference texts of an image: its captions, or the answers to a question about it.

    question: None for captions.
    key: the name of the question in predictions, such as VQA's question_id.
    """

    texts: tuple[str, ...]
    question: str | None = None
    key: str = ""


@dataclass(frozen=True)
class Example:
    """An image or a clip, and all its annotations.

    key: its name in logs and predictions, such as a path or an image id.
    """

    key: str
    media: Media
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True)
class StoredExample:
    """An example whose image is still the bytes of its file.

    where: its name in errors.
    """

    key: str
    where: str
    data: bytes
    annotations: tuple[Annotation, ...]


OpenExample = Callable[[], Example]  # opens an example; raises a GITError if it is broken
OpenStored = Callable[[], StoredExample]  # likewise


class Source(Protocol):
    """Examples by index."""

    def __len__(self) -> int:
        """The number of examples."""

    def __getitem__(self, index: int) -> Example:
        """Open an example.

        Raises:
            GITError: the example cannot be used.
        """


@runtime_checkable
class Stream(Protocol):
    """Examples in sequence, without an index."""

    def stream(self, epoch: int, seed: int, reader: int, n_readers: int) -> Iterator[OpenExample]:
        """A reader's part of an epoch: all readers together get each example once."""


@runtime_checkable
class StoredSource(Protocol):
    """A source or a stream whose images are files."""

    def stored(self) -> Iterator[OpenStored]:
        """All examples in order, with the bytes of their images."""


@runtime_checkable
class PartOfFolder(Protocol):
    """A source of files in a folder, which may hold others."""

    def untaken(self) -> Iterator[str]:
        """The names of files that look like images or videos, and are not examples."""


@dataclass
class BrokenExamples:
    """Counts the examples that cannot be used, each once, and ends with an error above a limit."""

    limit: int
    reasons: list[str] = field(default_factory=list)  # a line for each example, with its name

    def add(self, reason: str) -> None:
        """Count an example, unless this reason has been counted already.

        Raises:
            GITError: there are now more than `limit`.
        """
        if reason in self.reasons:
            return
        self.reasons.append(reason)
        if len(self.reasons) > self.limit:
            raise GITError(
                f"{len(self.reasons)} examples cannot be read, expected at most {self.limit}; the "
                f"last: {reason}"
            )
