"""Which examples a training step learns from, and their batches: a function of the step's number.

No position is ever stored. A run that goes on at step 1001 asks for step 1001, on as many processes
as it likes: the same examples, in the same crops, with the same answers drawn.
"""

import signal
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from git_model.config import GITConfig
from git_model.data import Batch, Source
from git_model.datasets.augment import AugmentConfig
from git_model.datasets.readings import (
    Broken,
    Reading,
    Share,
    SourceReadings,
    StreamReadings,
    Teacher,
)
from git_model.datasets.shards import Stream
from git_model.preprocess import reason_of
from git_model.settings import ConfigError, GITError
from git_model.tokenizer import Tokenizer


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


class Feed:
    """The batches of each step.

    Args:
        source: examples by number, or a stream of them. A stream's order depends on the numbers of
            processes and workers, and to go on at a step all that was before it is read again.
        seed: of the order, the crops, and the answers that are drawn; 0 or more.

    Attributes:
        broken: the examples that `steps` had to leave out so far, each once.

    Raises:
        ConfigError: the source is empty, or smaller than a batch; texts may be longer than the
            model's positions; the seed is below 0.
    """

    def __init__(
        self,
        source: Source | Stream,
        tokenizer: Tokenizer,
        config: GITConfig,
        options: FeedConfig,
        *,
        seed: int = 0,
    ) -> None:
        self._n = None if isinstance(source, Stream) else len(source)
        if self._n is not None and options.batch_size > self._n:
            raise ConfigError(
                f"batch_size is {options.batch_size}, but there are only {self._n} examples: "
                "expected at most as many"
            )
        if options.max_tokens > config.decoder.positions:
            raise ConfigError(
                f"max_tokens is {options.max_tokens}, but the model has positions for "
                f"{config.decoder.positions} tokens: expected at most as many"
            )
        if seed < 0:
            raise ConfigError(f"seed is {seed}, expected 0 or more")
        self.broken: list[Broken] = []
        self._options, self._source = options, source
        self._teacher = Teacher(
            tokenizer=tokenizer,
            config=config,
            seed=seed,
            max_tokens=options.max_tokens,
            max_texts=options.max_texts,
            micro_batch=options.micro_batch or options.batch_size,
            augment=options.augment,
        )

    def steps(
        self, first: int, last: int, rank: int = 0, n_ranks: int = 1
    ) -> Iterator[list[Batch]]:
        """For each step from `first` to `last`, counted from 1, the batches of process `rank`:
        each of one shape of pixels, of at most micro_batch pictures.

        With a source they are the same for any number of workers. Examples that cannot be read
        are left out and noted in `broken`; where they are all of a process's share, the step's
        list is empty.

        Raises:
            ConfigError: there are more processes than pictures in a batch.
            GITError: more than broken_limit examples, or all, cannot be read.
        """
        if n_ranks > self._options.batch_size:
            raise ConfigError(
                f"batch_size is {self._options.batch_size}, but there are {n_ranks} processes: "
                "expected at least one picture for each"
            )
        share = Share(batch_size=self._options.batch_size, rank=rank, n_ranks=n_ranks)
        for reading in self._ahead(self._readings(range(first, last + 1), share)):
            if reading.failure is not None:
                raise GITError(reading.failure)
            self._note(reading.broken)
            yield reading.batches

    def _readings(self, steps: range, share: Share) -> Dataset[Reading]:
        source, teacher = self._source, self._teacher
        if isinstance(source, Stream):
            return StreamReadings(source, teacher, steps, share, self._options.workers)
        return SourceReadings(source, teacher, steps, share)

    def _ahead(self, readings: Dataset[Reading]) -> Iterator[Reading]:
        """One reading after the other, made by helpers while the model learns from the last."""
        loader: DataLoader[Reading] = DataLoader(
            readings,
            batch_size=None,
            num_workers=self._options.workers,
            worker_init_fn=leave_signals_to_parent,
            generator=torch.Generator(),  # or else it takes a number that dropout would get
        )
        try:
            yield from loader
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            reason = reason_of(error).rstrip(".")
            raise GITError(
                f"a process that reads pictures was ended from outside, as when memory is short: "
                f"{reason}: use fewer workers, or a smaller batch_size"
            ) from None

    def _note(self, broken: list[Broken]) -> None:
        for item in broken:
            if item.reason not in {known.reason for known in self.broken}:
                self.broken.append(item)
        limit = self._options.broken_limit
        if self._n is not None:
            limit = min(limit, self._n - 1)
        if len(self.broken) > limit:
            raise GITError(
                f"{len(self.broken)} examples cannot be read, expected at most {limit}; the last: "
                f"{self.broken[-1].reason}"
            )


def leave_signals_to_parent(_: int) -> None:
    """A helper ends when its parent does: Ctrl-C and a cluster's SIGTERM go to the whole group, and
    the parent still wants to save."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
