"""One form for all there is to learn from, and from it to tensors.

An `Example` is a picture or a clip and all that is to be said about it. A `Lesson` is the same as
numbers. A `Batch` is several lessons of one shape: each picture is read once, for all its texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from git_model.config import GITConfig
from git_model.preprocess import preprocess_batch
from git_model.settings import GITError
from git_model.speaker import prompt_tokens
from git_model.tokenizer import Tokenizer

View = Image.Image | list[Image.Image]  # a picture, or the frames of a clip


@dataclass(frozen=True)
class Target:
    """What is right to say about a picture: its captions, or the answers to a question about it.

    question: None for captions.
    key: names the question in predictions, such as VQA's question_id.
    """

    answers: tuple[str, ...]
    question: str | None = None
    key: str = ""


@dataclass(frozen=True)
class Example:
    """A picture or a clip, and all that is to be said about it.

    key: names it in logs and predictions, such as a path or an image id.
    """

    key: str
    view: View
    targets: tuple[Target, ...]


class Source(Protocol):
    """Examples by their numbers."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: int) -> Example:
        """Open one; a GITError says what is wrong with it."""


@dataclass(frozen=True)
class Line:
    """A text to learn: its tokens, of which the first `given` are read and not predicted."""

    tokens: list[int]
    given: int


@dataclass(frozen=True)
class Lesson:
    """An example as numbers: pixels (3, H, W), or (F, 3, H, W) of a clip, and its texts."""

    pixels: Tensor
    lines: list[Line]


@dataclass(frozen=True)
class Batch:
    """What the model learns at once from B pictures and R texts, R a multiple of B: the first R/B
    are about the first picture, and so on. A picture with fewer texts than others has empty ones,
    all padding."""

    pixels: Tensor  # (B, 3, H, W), or (B, F, 3, H, W)
    tokens: Tensor  # (R, T): start, question, answer, end, padding
    mask: Tensor  # (R, T): True for the tokens to predict, which are answer and end

    @property
    def n_predicted(self) -> int:
        """Tokens to predict."""
        return int(self.mask.sum())

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device, on its way while the CPU goes on."""
        pixels, tokens, mask = (
            part.to(device, non_blocking=True) for part in (self.pixels, self.tokens, self.mask)
        )
        return Batch(pixels, tokens, mask)


def lesson_of(
    example: Example,
    tokenizer: Tokenizer,
    config: GITConfig,
    *,
    luck: Random,
    max_tokens: int = 40,
    max_texts: int | None = None,
) -> Lesson:
    """An example as numbers. All captions are learned; of a question's answers one is drawn.

    Args:
        max_tokens: longest text, with question, start and end (the original has 40,
            `max_text_len`). An answer that is longer is cut, and the model does not learn to end
            there.
        max_texts: draw this many of the texts if there are more.

    Raises:
        GITError: the picture cannot be used, a question is empty or too long, or there is no text.
    """
    lines = []
    for target in example.targets:
        given, answers = [config.bos_id], list(target.answers)
        if target.question is not None:
            given = prompt_tokens(target.question, tokenizer, config)
            if not answers:
                raise GITError(
                    f"{example.key}: there is no answer to {target.question[:40]!r}, expected one"
                )
            answers = [answers[int(luck.random() * len(answers))]]
        if len(given) >= max_tokens:
            raise GITError(
                f"{example.key}: the question that begins {str(target.question)[:40]!r} has "
                f"{len(given)} tokens with the start, expected fewer than max_tokens {max_tokens}"
            )
        for answer in answers:
            tokens = [*given, *tokenizer.encode(answer), config.eos_id]
            lines.append(Line(tokens[:max_tokens], len(given)))
    if not lines:
        raise GITError(f"{example.key}: there is no text to learn, expected at least one")
    if max_texts is not None and len(lines) > max_texts:
        lines = sorted(lines, key=lambda _: luck.random())[:max_texts]
    is_clip = isinstance(example.view, list)
    frames = example.view if isinstance(example.view, list) else [example.view]
    pixels = preprocess_batch(frames, config.preprocess)
    return Lesson(pixels if is_clip else pixels[0], lines)


def batches_of(lessons: Sequence[Lesson], pad_id: int, size: int) -> list[Batch]:
    """Lessons as batches, each of one shape of pixels and of at most `size` pictures.

    Batches come in the order in which their shapes first appear.
    """
    by_shape: dict[torch.Size, list[Lesson]] = {}
    for lesson in lessons:
        by_shape.setdefault(lesson.pixels.shape, []).append(lesson)
    return [
        collate(group[first : first + size], pad_id)
        for group in by_shape.values()
        for first in range(0, len(group), size)
    ]


def collate(lessons: Sequence[Lesson], pad_id: int) -> Batch:
    """Lessons of one shape as one batch, as long as its longest text.

    Padding stands on the right, where no real token looks, so the model needs no mask for it.
    """
    each = max(len(lesson.lines) for lesson in lessons)
    nothing = Line([], 0)
    lines = [
        line
        for lesson in lessons
        for line in [*lesson.lines, *[nothing] * (each - len(lesson.lines))]
    ]
    length = max(len(line.tokens) for line in lines)
    tokens = [line.tokens + [pad_id] * (length - len(line.tokens)) for line in lines]
    place = torch.arange(length)
    first, end = (
        torch.tensor(numbers)[:, None]
        for numbers in ([x.given for x in lines], [len(x.tokens) for x in lines])
    )
    return Batch(
        pixels=torch.stack([lesson.pixels for lesson in lessons]),
        tokens=torch.tensor(tokens),
        mask=(place >= first) & (place < end),
    )
