"""The batches of each training step: a function of the step's number.

No position is stored. A run that continues at step 1001, on any number of processes, asks for step
1001 and gets the same examples, the same crops and the same answers.
"""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from random import Random

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from git_model.config import GITConfig
from git_model.data.augmentation import AugmentConfig
from git_model.data.collation import Batch, Collator
from git_model.data.example import BrokenExamples, OpenExample, Source, Stream
from git_model.data.sampler import EpochIndex, epoch_indices
from git_model.preprocessing.image import reason_of
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.utils.errors import ConfigError, GITError


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How the data become training steps."""

    batch_size: int  # images per step, over all processes
    micro_batch: int | None = None  # images per forward pass; None: all of the process's share
    workers: int = 0  # worker processes per process that load ahead; 0: the process loads itself
    max_tokens: int = 40  # maximum number of tokens of a text; the original's max_text_len
    max_texts: int | None = None  # texts per image and step; None: all
    augment: AugmentConfig | None = None  # random changes of images; None: none, as at inference
    broken_limit: int = 100  # maximum number of unreadable examples in each process

    def __post_init__(self) -> None:
        for name, minimum in (
            ("batch_size", 1),
            ("micro_batch", 1),
            ("workers", 0),
            ("max_tokens", 3),
            ("max_texts", 1),
            ("broken_limit", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise ConfigError(f"{name} is {value}, expected at least {minimum}")


@dataclass(frozen=True)
class StepData:
    """The batches of a step for one process, or the reason why there are none."""

    batches: list[Batch]
    broken: list[str]  # the reasons why examples are left out: a line for each, with its name
    failure: str | None = None


@dataclass(frozen=True, kw_only=True)
class StepShare:
    """A process's share of each step: every n_ranks-th example of batch_size.

    seed: of the order, the crops and the answers.
    """

    batch_size: int
    rank: int
    n_ranks: int
    seed: int

    @property
    def size(self) -> int:
        """The number of examples per step of this process."""
        return len(range(self.rank, self.batch_size, self.n_ranks))


class StepLoader:
    """The batches of each step.

    Args:
        source: examples by index, or a stream of them. The order of a stream depends on the numbers
            of processes and workers, and a run that continues reads it again from the start.
        seed: of the order, the crops and the answers; 0 or more.

    Attributes:
        broken: the examples that `steps` has left out so far.

    Raises:
        ConfigError: the source has fewer examples than a batch; max_tokens exceeds the model's
            positions; or the seed is below 0.
    """

    def __init__(
        self,
        source: Source | Stream,
        tokenizer: Tokenizer,
        config: GITConfig,
        options: LoaderConfig,
        *,
        seed: int = 0,
    ) -> None:
        n = None if isinstance(source, Stream) else len(source)
        _require_usable(n, config, options, seed)
        limit = options.broken_limit if n is None else min(options.broken_limit, n - 1)
        self.broken = BrokenExamples(limit)
        self._options, self._source, self._seed = options, source, seed
        self._collator = Collator(
            tokenizer=tokenizer,
            config=config,
            max_tokens=options.max_tokens,
            max_texts=options.max_texts,
            micro_batch=options.micro_batch,
            augment=options.augment,
        )

    def steps(
        self, first: int, last: int, rank: int = 0, n_ranks: int = 1
    ) -> Iterator[list[Batch]]:
        """For each step from `first` to `last`, counted from 1, the batches of process `rank`:
        each of one shape of pixels, of at most micro_batch images.

        With a source they are the same for any number of workers. Examples that cannot be read are
        left out and counted in `broken`; if a process can read none of its share, its list is
        empty.

        Raises:
            ConfigError: there are more processes than images in a batch.
            GITError: more than broken_limit examples, or all, cannot be read.
        """
        if n_ranks > self._options.batch_size:
            raise ConfigError(
                f"batch_size is {self._options.batch_size}, but there are {n_ranks} processes: "
                "expected at least one image for each"
            )
        share = StepShare(
            batch_size=self._options.batch_size, rank=rank, n_ranks=n_ranks, seed=self._seed
        )
        for data in self._load(self._dataset(range(first, last + 1), share)):
            if data.failure is not None:
                raise GITError(data.failure)
            for reason in data.broken:
                self.broken.add(reason)
            yield data.batches

    def _dataset(self, steps: range, share: StepShare) -> Dataset[StepData]:
        if isinstance(self._source, Stream):
            return _StreamSteps(self._source, self._collator, steps, share, self._options.workers)
        return _SourceSteps(self._source, self._collator, steps, share)

    def _load(self, steps: Dataset[StepData]) -> Iterator[StepData]:
        """One step after the other; workers load the next ones while the model trains."""
        loader: DataLoader[StepData] = DataLoader(
            steps,
            batch_size=None,
            num_workers=self._options.workers,
            worker_init_fn=leave_signals_to_parent,
            generator=torch.Generator(),  # its own, so that dropout's random numbers stay the same
        )
        try:
            yield from loader
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            reason = reason_of(error).rstrip(".")
            raise GITError(
                f"a worker process was killed, as when memory runs out: {reason}: use fewer "
                "workers, or a smaller batch_size"
            ) from None


def _require_usable(n: int | None, config: GITConfig, options: LoaderConfig, seed: int) -> None:
    """Refuse options that do not fit n examples (None: a stream), the model, or the seed."""
    if n is not None and options.batch_size > n:
        raise ConfigError(
            f"batch_size is {options.batch_size}, but there are only {n} examples: expected at "
            "most as many"
        )
    n_extra = 2 if config.style == "microsoft" else 0  # start and end, which it does not count
    if options.max_tokens + n_extra > config.decoder.positions:
        raise ConfigError(
            f"max_tokens is {options.max_tokens}, but the model has positions for "
            f"{config.decoder.positions} tokens: expected at most "
            f"{config.decoder.positions - n_extra}"
        )
    if seed < 0:
        raise ConfigError(f"seed is {seed}, expected 0 or more")


def leave_signals_to_parent(_: int) -> None:
    """Ignore Ctrl-C and SIGTERM in a worker: a cluster sends them to the whole process group, the
    parent still has to save, and a worker ends when its parent does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class _SourceSteps(Dataset[StepData]):
    """The data of some steps, from a source; it does not depend on the worker that loads it."""

    def __init__(self, source: Source, collator: Collator, steps: range, share: StepShare) -> None:
        self._source, self._collator, self._steps, self._share = source, collator, steps, share

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> StepData:
        step, share = self._steps[index], self._share
        positions = epoch_indices(
            step, len(self._source), share.batch_size, share.seed, share.rank, share.n_ranks
        )
        examples = [
            (position, partial(self._source.__getitem__, position[1])) for position in positions
        ]
        return _step_data(self._collator, share.seed, examples, indexed=True)


class _StreamSteps(IterableDataset[StepData]):
    """The data of some steps, from a stream. Each worker reads its own part, and makes every n-th
    step; to continue at a step it skips the examples of the steps before."""

    def __init__(
        self, stream: Stream, collator: Collator, steps: range, share: StepShare, workers: int
    ) -> None:
        self._stream, self._collator, self._steps, self._share = stream, collator, steps, share
        self._workers = max(workers, 1)

    def __iter__(self) -> Iterator[StepData]:
        """This worker's steps. A DataLoader takes a step from each worker in turn."""
        worker = get_worker_info()
        first = self._steps.start + (worker.id if worker else 0)
        part = (first - 1) % self._workers  # the part that holds this step in any run
        examples = self._endless(self._share.rank * self._workers + part)
        if first >= self._steps.stop:
            return  # nothing to make, so do not skip through the stream
        for step in range(part + 1, self._steps.stop, self._workers):
            try:
                chunk = list(islice(examples, self._share.size))
            except GITError as error:
                yield StepData([], [], failure=str(error))
                return
            if step >= first:
                yield _step_data(self._collator, self._share.seed, chunk)

    def _endless(self, reader: int) -> Iterator[tuple[EpochIndex, OpenExample]]:
        """All epochs of a reader's part, one after the other."""
        n_readers = self._share.n_ranks * self._workers
        for epoch in count():
            number = -1
            stream = self._stream.stream(epoch, self._share.seed, reader, n_readers)
            for number, open_example in enumerate(stream):
                yield (epoch, number * n_readers + reader), open_example
            if number < 0:
                raise GITError(
                    f"reader {reader + 1} of {n_readers} finds no example in its part of the "
                    "stream: expected fewer processes, fewer workers, or more examples"
                )


def _step_data(
    collator: Collator,
    seed: int,
    examples: Sequence[tuple[EpochIndex, OpenExample]],
    *,
    indexed: bool = False,
) -> StepData:
    """The batches of a step; each example's random numbers follow from the seed and its index.

    Args:
        indexed: give each sample its index in the source.
    """
    samples, broken = [], []
    for position, open_example in examples:
        try:
            rng = Random(f"{seed} {position}")  # noqa: S311  (crops, not secrets)
            sample = collator.sample(open_example(), rng)
            samples.append(replace(sample, index=position[1]) if indexed else sample)
        except GITError as error:
            broken.append(reason_of(error))
    return StepData(collator.batches(samples), broken)
