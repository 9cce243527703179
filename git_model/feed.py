"""Which examples a training step learns from, and their batches: a function of the step's number.

No position is ever stored. A run that goes on at step 1001 asks for step 1001, on as many processes
as it likes: the same examples, in the same crops, with the same answers drawn.
"""

import functools
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from git_model.augment import AugmentConfig, random_crop, training_preprocess
from git_model.config import GITConfig
from git_model.data import Batch, Example, Lesson, Source, batches_of, lesson_of
from git_model.settings import ConfigError, GITError
from git_model.tokenizer import Tokenizer

Visit = tuple[int, int]  # in which epoch, from 0, which example


@dataclass(frozen=True, kw_only=True)
class FeedConfig:
    """What a training step reads."""

    batch_size: int  # pictures that a step learns from, over all processes
    micro_batch: int | None = None  # most pictures that a process holds at once; None: its share
    workers: int = 0  # helpers of each process that read pictures ahead; 0: it reads them itself
    max_tokens: int = 40  # longest text, with start and end; the original's max_text_len
    max_texts: int | None = None  # most texts of one picture that a step learns; None: all
    augment: AugmentConfig | None = None  # None: pictures are seen whole, as after training
    broken_limit: int = 100  # examples that may be unreadable, for each process

    def __post_init__(self) -> None:
        for name, least in (
            ("batch_size", 1),
            ("micro_batch", 1),
            ("workers", 0),
            ("max_tokens", 3),
            ("max_texts", 1),
            ("broken_limit", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}, expected at least {least}")


@dataclass(frozen=True)
class Broken:
    """An example that could not be read: when, which, and why in one line."""

    step: int
    index: int
    reason: str


@functools.lru_cache(maxsize=2)  # a step may lie in two epochs
def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """0 to n - 1 in the order of one epoch, the same on any machine."""
    # RandomState's numbers never change (NEP 19); those of default_rng and torch may
    bits = np.random.MT19937(np.random.SeedSequence([seed, epoch]))
    return np.random.RandomState(bits).permutation(n)


def visits(
    step: int, n: int, batch_size: int, seed: int, rank: int = 0, n_ranks: int = 1
) -> list[Visit]:
    """What a process learns at a step, counted from 1, from n examples.

    The epochs follow each other without a gap, each in its own order; a step takes the next
    batch_size of them, and a process every n_ranks-th of these.
    """
    places = range((step - 1) * batch_size, step * batch_size)[rank::n_ranks]
    return [(at // n, int(epoch_order(n, seed, at // n)[at % n])) for at in places]


class Feed:
    """The batches of each step.

    Args:
        seed: of the order, the crops, and the answers that are drawn; 0 or more.

    Attributes:
        broken: the examples that `steps` had to leave out so far, each once.

    Raises:
        ConfigError: the source is empty, or smaller than a batch; texts may be longer than the
            model's positions.
    """

    def __init__(
        self,
        source: Source,
        tokenizer: Tokenizer,
        config: GITConfig,
        options: FeedConfig,
        *,
        seed: int = 0,
    ) -> None:
        if options.batch_size > len(source):
            raise ConfigError(
                f"batch_size is {options.batch_size}, but there are only {len(source)} examples: "
                "expected at most as many"
            )
        if options.max_tokens > config.decoder.positions:
            raise ConfigError(
                f"max_tokens is {options.max_tokens}, but the model has positions for "
                f"{config.decoder.positions} tokens: expected at most as many"
            )
        self.broken: list[Broken] = []
        self._options = options
        self._source = source
        self._teacher = _Teacher(tokenizer, config, options, seed)

    def steps(
        self, first: int, last: int, rank: int = 0, n_ranks: int = 1
    ) -> Iterator[list[Batch]]:
        """For each step from `first` to `last`, counted from 1, the batches of process `rank`:
        each of one shape of pixels, of at most micro_batch pictures.

        The same for any number of workers. Examples that cannot be read are left out and noted in
        `broken`; where they are all of a process's share, its list is empty.

        Raises:
            ConfigError: there are more processes than pictures in a batch.
            GITError: more than broken_limit examples, or all, cannot be read.
        """
        if n_ranks > self._options.batch_size:
            raise ConfigError(
                f"batch_size is {self._options.batch_size}, but there are {n_ranks} processes: "
                "expected at least one picture for each"
            )
        readings = _Readings(self._source, self._teacher, range(first, last + 1), rank, n_ranks)
        for reading in _ahead(readings, self._options.workers):
            self._note(reading.broken)
            yield reading.batches

    def _note(self, broken: list[Broken]) -> None:
        known = {item.index for item in self.broken}
        self.broken += [item for item in broken if item.index not in known]
        limit = min(self._options.broken_limit, len(self._source) - 1)
        if len(self.broken) > limit:
            raise GITError(
                f"{len(self.broken)} of {len(self._source)} examples cannot be read, expected at "
                f"most {limit}; the last: {self.broken[-1].reason}"
            )


@dataclass(frozen=True)
class _Reading:
    """What came of a step's examples."""

    batches: list[Batch]
    broken: list[Broken]


class _Teacher:
    """Examples become batches: cropped, drawn, counted, padded."""

    def __init__(
        self, tokenizer: Tokenizer, config: GITConfig, options: FeedConfig, seed: int
    ) -> None:
        self._tokenizer, self._options, self._seed = tokenizer, options, seed
        self._preprocess = config.preprocess
        if options.augment is not None:
            config = replace(config, preprocess=training_preprocess(config.preprocess))
        self._config = config

    def lesson(self, example: Example, visit: Visit) -> Lesson:
        """An example as this visit shows it, whoever does the work."""
        options = self._options
        luck = Random(f"{self._seed} {visit}")  # noqa: S311  (crops, not secrets)
        if options.augment is not None:
            view = random_crop(example.view, options.augment, self._preprocess, luck)
            example = replace(example, view=view)
        lesson = lesson_of(
            example,
            self._tokenizer,
            self._config,
            luck=luck,
            max_tokens=options.max_tokens,
            max_texts=options.max_texts,
        )
        if options.augment is not None and luck.random() < options.augment.flip:
            lesson = replace(lesson, pixels=lesson.pixels.flip(-1))
        return lesson

    def batches(self, lessons: list[Lesson]) -> list[Batch]:
        """Lessons as batches that fit into memory."""
        size = self._options.micro_batch or self._options.batch_size
        return batches_of(lessons, self._config.pad_id, size)

    def visits(self, step: int, n: int, rank: int, n_ranks: int) -> list[Visit]:
        """See the function `visits`."""
        return visits(step, n, self._options.batch_size, self._seed, rank, n_ranks)


class _Readings(Dataset[_Reading]):
    """Steps by their numbers, for the helpers to read ahead."""

    def __init__(
        self, source: Source, teacher: _Teacher, steps: range, rank: int, n_ranks: int
    ) -> None:
        self._source, self._teacher = source, teacher
        self._steps, self._rank, self._n_ranks = steps, rank, n_ranks

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> _Reading:
        step = self._steps[index]
        lessons, broken = [], []
        for visit in self._teacher.visits(step, len(self._source), self._rank, self._n_ranks):
            try:
                lessons.append(self._teacher.lesson(self._source[visit[1]], visit))
            except GITError as error:
                broken.append(Broken(step, visit[1], str(error)))
        return _Reading(self._teacher.batches(lessons), broken)


def _ahead(readings: _Readings, workers: int) -> Iterator[_Reading]:
    """One reading after the other, made by helpers while the model learns from those before."""
    loader: DataLoader[Any] = DataLoader(
        readings,
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_leave_signals_to_parent,
        generator=torch.Generator(),  # or else it takes a number from torch's, which dropout needs
    )
    yield from loader


def _leave_signals_to_parent(_: int) -> None:
    """A helper ends when its parent does: Ctrl-C and a cluster's SIGTERM go to the whole group, and
    the parent still wants to save."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
