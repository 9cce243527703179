"""What becomes of a step's examples: opened, cropped, counted, padded, or noted as broken.

This is the work that helpers do ahead of a training process.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from random import Random

from torch.utils.data import Dataset, IterableDataset, get_worker_info

from git_model.config import GITConfig
from git_model.data import Batch, Example, Lesson, Source, batches_of, lesson_of
from git_model.datasets.augment import AugmentConfig, random_crop, training_preprocess
from git_model.datasets.order import Visit, visits
from git_model.datasets.shards import Sealed, Stream
from git_model.preprocess import reason_of
from git_model.settings import GITError
from git_model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Broken:
    """An example that could not be learned: at which step, and why in one line, which names it."""

    step: int
    reason: str


@dataclass(frozen=True)
class Reading:
    """What came of a step's examples. A reading that failed has nothing but the reason."""

    batches: list[Batch]
    broken: list[Broken]
    failure: str | None = None


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which part of each step a process learns: every n_ranks-th example of batch_size."""

    batch_size: int
    rank: int
    n_ranks: int

    @property
    def size(self) -> int:
        """Examples a step."""
        return len(range(self.rank, self.batch_size, self.n_ranks))


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Makes lessons of examples. What is drawn at random follows from the seed and the visit."""

    tokenizer: Tokenizer
    config: GITConfig
    seed: int
    max_tokens: int
    max_texts: int | None
    micro_batch: int
    augment: AugmentConfig | None

    def read(self, step: int, examples: Sequence[tuple[Visit, Sealed]]) -> Reading:
        """The batches of some examples, each given with its visit, which makes its luck."""
        lessons, broken = [], []
        for visit, sealed in examples:
            try:
                lessons.append(self._lesson(sealed(), visit))
            except GITError as error:
                broken.append(Broken(step, reason_of(error)))
        return Reading(batches_of(lessons, self.config.pad_id, self.micro_batch), broken)

    def _lesson(self, example: Example, visit: Visit) -> Lesson:
        luck = Random(f"{self.seed} {visit}")  # noqa: S311  (crops, not secrets)
        config = self.config
        if self.augment is not None:
            view = random_crop(example.view, self.augment, config.preprocess, luck)
            example = replace(example, view=view)
            config = replace(config, preprocess=training_preprocess(config.preprocess))
        try:
            lesson = lesson_of(
                example,
                self.tokenizer,
                config,
                luck=luck,
                max_tokens=self.max_tokens,
                max_texts=self.max_texts,
            )
        except GITError as error:
            named = example.key in str(error)
            raise GITError(f"{error}" if named else f"{example.key}: {error}") from None
        if self.augment is not None and luck.random() < self.augment.flip:
            lesson = replace(lesson, pixels=lesson.pixels.flip(-1))
        return lesson


class SourceReadings(Dataset[Reading]):
    """The readings of some steps, from a source: whichever helper makes one, it is the same."""

    def __init__(self, source: Source, teacher: Teacher, steps: range, share: Share) -> None:
        self._source, self._teacher, self._steps, self._share = source, teacher, steps, share

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> Reading:
        step, share = self._steps[index], self._share
        seen = visits(
            step, len(self._source), share.batch_size, self._teacher.seed, share.rank, share.n_ranks
        )
        examples = [(visit, partial(self._source.__getitem__, visit[1])) for visit in seen]
        return self._teacher.read(step, examples)


class StreamReadings(IterableDataset[Reading]):
    """The readings of some steps, from a stream. Each helper reads a part of its own, and makes
    every n-th step; to go on at a step it passes over what the steps before it took."""

    def __init__(
        self, stream: Stream, teacher: Teacher, steps: range, share: Share, helpers: int
    ) -> None:
        self._stream, self._teacher, self._steps, self._share = stream, teacher, steps, share
        self._helpers = max(helpers, 1)

    def __iter__(self) -> Iterator[Reading]:
        """This helper's readings; a DataLoader takes one from each helper in turn."""
        helper = get_worker_info()
        first = self._steps.start + (helper.id if helper else 0)
        part = (first - 1) % self._helpers  # the one that this step is made from in any run
        examples = self._endless(self._share.rank * self._helpers + part)
        if first >= self._steps.stop:
            return  # rather than pass over all that was, for nothing
        for step in range(part + 1, self._steps.stop, self._helpers):
            try:
                taken = list(islice(examples, self._share.size))
            except GITError as error:
                yield Reading([], [], failure=str(error))
                return
            if step >= first:
                yield self._teacher.read(step, taken)

    def _endless(self, reader: int) -> Iterator[tuple[Visit, Sealed]]:
        """One epoch after the other."""
        n_readers = self._share.n_ranks * self._helpers
        for epoch in count():
            number = -1
            stream = self._stream.stream(epoch, self._teacher.seed, reader, n_readers)
            for number, sealed in enumerate(stream):
                yield (epoch, number * n_readers + reader), sealed
            if number < 0:
                raise GITError(
                    f"reader {reader + 1} of {n_readers} finds no example in its part of the "
                    "stream: expected fewer processes, fewer workers, or more examples"
                )
