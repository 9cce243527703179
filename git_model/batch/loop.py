"""Captions, or answers, for a whole data set, of which no line may be lost.

A run walks over the inputs. Those without an outcome are read, in batches of pictures of one shape,
and what became of a batch is noted in the journal while the model works on the next one. A run that
is killed goes on where its journal ends, on any number of processes. `files.py` has what
comes before and after.
"""

import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from typing import Any

from tqdm import tqdm

from git_model.batch.caption_filters import Wording
from git_model.batch.captioning import Author, Found
from git_model.batch.files import Run
from git_model.batch.inputs import Input, Refused
from git_model.batch.journal import Outcome, Seen, seen
from git_model.batch.pipeline import Look, Reader, batches, by_picture, looks
from git_model.batch.records import Editor, Mode, identity, text_in
from git_model.batch.sinks import Target
from git_model.captioner import Captioner
from git_model.config import DecodingOptions
from git_model.preprocessing.video import Sampling
from git_model.utils.atomic import DiskFullError
from git_model.utils.distributed import ProcessGroup, StopRequest
from git_model.utils.errors import GITError


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How a data set is read and written about."""

    decoding: DecodingOptions
    wording: Wording = field(default_factory=Wording)
    min_confidence: float = 0.0  # a text below it is rejected
    mode: Mode = "skip"  # what to do where there is a text already
    batch_size: int = 8  # pictures that are read together
    workers: int = 1  # processes that read ahead
    sampling: Sampling = "uniform"  # which frames of a clip


@dataclass
class Tally:
    """What a run did with its inputs."""

    written: int = 0  # got a text
    rejected: int = 0  # got one that is not good enough
    failed: int = 0
    kept: int = 0  # had a text before the run
    done: int = 0  # were dealt with before the run was interrupted
    busy: float = 0.0  # seconds in which the model worked
    seconds: float = 0.0  # from first to last

    def add(self, other: "Tally") -> None:
        """Count what another did, too."""
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))


@dataclass
class Batch:
    """One process's part of a run.

    Args:
        editor: makes the records.
        run: what is done; what is done now is noted there.
        stop: once it is asked, the run ends after the batch at hand.
    """

    git: Captioner
    options: BatchOptions
    editor: Editor
    target: Target
    run: Run
    group: ProcessGroup
    stop: StopRequest
    tally: Tally = field(default_factory=Tally, init=False)

    def write(self, inputs: Iterable[Input | Refused], *, progress: bool = False) -> None:
        """Give an outcome to each input that falls to this process; `tally` counts them.

        Args:
            inputs: walked twice, first to count them.
            progress: draw a bar on stderr, if it is a terminal.

        Raises:
            GITError: it was asked to stop, or the disk is full. What is done is noted.
        """
        start = time.monotonic()
        author = Author(self.git, self.options.decoding, self.editor, self._before)
        total = sum(1 for _ in self._mine(inputs))
        bar = tqdm(total=total, unit="input", disable=None if progress else True)
        with bar, seen() as met, ThreadPoolExecutor(1) as writer:
            writing = writer.submit(Tally)
            for batch in self._batches(self._todo(inputs, met, bar)):
                found = author.outcomes(batch)
                self.tally.add(writing.result())  # of the batch before
                writing = writer.submit(self._keep, found)
                bar.update(len(found))
                if self.stop.received:
                    raise GITError("stopped, as it was asked; the same command goes on from here")
            self.tally.add(writing.result())
        self.tally.add(Tally(busy=author.busy, seconds=time.monotonic() - start))

    def _batches(self, todo: Iterable[Input | Refused]) -> Iterator[list[Look]]:
        reader = Reader(self.git.model.config, self.options.sampling)
        size, workers = self.options.batch_size, self.options.workers
        return batches(looks(by_picture(todo), reader, workers=workers, ahead=2 * size), size)

    def _mine(self, inputs: Iterable[Input | Refused]) -> Iterator[Input | Refused]:
        """This process's part: all or nothing of what is about a picture, in any order of them."""
        for item in inputs:
            number = zlib.crc32(item.key.encode("utf-8", "surrogateescape"))
            if number % self.group.size == self.group.rank:
                yield item

    def _todo(
        self, inputs: Iterable[Input | Refused], met: Seen, bar: "tqdm[Any]"
    ) -> Iterator[Input | Refused]:
        """The inputs without an outcome, each once."""
        for item in self._mine(inputs):
            key = identity(item)
            known = self.run.journal.find(key)
            if known is None and met.add(key) and not self._is_kept(item):
                yield item
                continue
            if known is not None:
                self.tally.done += 1
                if not known.settled:  # killed before the text was written beside the picture
                    self._settle([(item, known)])
            bar.update()

    def _is_kept(self, item: Input | Refused) -> bool:
        """Whether an input has a text already, which is to stay."""
        kept = (
            self.options.mode == "skip"
            and isinstance(item, Input)
            and self._before(item) is not None
        )
        self.tally.kept += kept
        return kept

    def _before(self, item: Input) -> str | None:
        """The text that an input had before the run."""
        old = self.run.old.find(identity(item))
        if old is None or old.record is None:
            return self.target.known(item)
        return text_in(old.record)

    def _keep(self, found: Sequence[Found]) -> Tally:
        """Note what became of a batch; write what is to be written at once."""
        unsettled = self.target.at_once
        found = [(item, replace(outcome, settled=not unsettled)) for item, outcome in found]
        self.run.journal.note(outcome for _, outcome in found)
        return _counted(self._settle(found))

    def _settle(self, found: Sequence[Found]) -> list[Outcome]:
        """Write the texts that have not been written yet, and note that they are."""
        settled = [
            outcome if outcome.settled else self._written(item, outcome) for item, outcome in found
        ]
        if any(not outcome.settled for _, outcome in found):
            self.run.journal.note(settled)
        return settled

    def _written(self, item: Input | Refused, outcome: Outcome) -> Outcome:
        """An outcome whose text has been written, or the failure to do so."""
        if isinstance(item, Refused) or outcome.record is None or "rejected" in outcome.record:
            return replace(outcome, settled=True)
        try:
            self.target.write(item, outcome.record)
            return replace(outcome, settled=True)
        except DiskFullError:
            raise
        except GITError as error:
            return Outcome(outcome.key, failure=str(error))


def _counted(outcomes: Iterable[Outcome]) -> Tally:
    tally = Tally()
    for outcome in outcomes:
        if outcome.record is None:
            tally.failed += 1
        elif "rejected" in outcome.record:
            tally.rejected += 1
        else:
            tally.written += 1
    return tally
