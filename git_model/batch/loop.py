"""The loop of a run: captions, or answers, for a whole data set. Every input gets one outcome.

A run walks over the inputs. Inputs without an outcome are loaded, in batches of images of one
shape, and the outcomes of a batch are stored in the journal while the model works on the next
batch. A run that was killed continues where its journal ends, on any number of processes. `run.py`
does the work before and after the loop.
"""

import time
import zlib
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from operator import add
from pathlib import Path

from git_model.batch.caption_filters import CaptionFilters, Mode, RecordEditor
from git_model.batch.captioning import (
    BatchCaptioner,
    InputDataset,
    InputOutcome,
    LoadedInput,
    group_by_image,
    load_inputs,
    one_shape_batches,
)
from git_model.batch.items import AnyInput, Input, OutputRecord, RefusedInput, readable, record_text
from git_model.batch.journal import DiskSet, Outcome, RunFolder, disk_set
from git_model.batch.origin import add_counts, other_origin
from git_model.batch.sinks import Sink, file_text, sink_folder
from git_model.batch.source_files import is_of_another_file, rival_of
from git_model.captioner import Captioner
from git_model.config import DecodingOptions
from git_model.preprocessing.sampling import ReadOptions
from git_model.utils.atomic import DiskFullError
from git_model.utils.distributed import ProcessGroup, StopRequest
from git_model.utils.errors import GITError, bounded_line
from git_model.utils.progress import ProgressBar


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How a data set is read and captioned."""

    decoding: DecodingOptions
    filters: CaptionFilters = field(default_factory=CaptionFilters)
    min_confidence: float = 0.0  # texts of a lower confidence are rejected
    mode: Mode = "skip"  # what happens to a text that exists already
    batch_size: int = 8  # images that are encoded together
    workers: int = 1  # processes that load images ahead
    reading: ReadOptions = field(default_factory=ReadOptions)  # how files become images and clips


@dataclass
class Tally:
    """The number of inputs by outcome, and the time."""

    written: int = 0  # got a text
    rejected: int = 0  # got a text that is not good enough
    failed: int = 0
    kept: int = 0  # had a text before the run
    others: Counter[str] = field(default_factory=Counter)  # of the kept texts, by other origin
    repeated: int = 0  # occurred before in the same run
    done_before: int = 0  # had an outcome when the run continued
    unsuited: int = 0  # written, but the model was not made for such an image
    sideways: int = 0  # images that are stored rotated or mirrored, and were left so
    busy_seconds: float = 0.0  # in which the model worked
    seconds: float = 0.0  # from the beginning to the end

    def add(self, other: "Tally") -> None:
        """Add another's counts to these."""
        for item in fields(self):
            plus = add_counts if item.name == "others" else add
            setattr(self, item.name, plus(getattr(self, item.name), getattr(other, item.name)))


@dataclass
class BatchJob:
    """One process's part of a run.

    editor: makes the records.
    run: the outcomes so far; this job stores its own there.
    stop: after this request the run ends with the current batch.
    """

    captioner: Captioner
    options: BatchOptions
    editor: RecordEditor
    sink: Sink
    run: RunFolder
    group: ProcessGroup
    stop: StopRequest
    tally: Tally = field(default_factory=Tally, init=False)

    def execute(self, inputs: Iterable[AnyInput], *, progress: bool = False) -> None:
        """Give an outcome to each input of this process's part; `tally` counts them.

        Args:
            inputs: walked twice, first to count them.
            progress: draw a bar on stderr, if it is a terminal.

        Raises:
            GITError: the run is asked to stop, or the disk is full. Finished batches are stored.
        """
        start = time.monotonic()
        model = BatchCaptioner(self.captioner, self.options.decoding, self.editor, self._old_text)
        total = sum(1 for _ in self._part(inputs))
        bar = ProgressBar(total=total, unit="input", disable=None if progress else True)
        with (
            bar,
            disk_set() as keys,
            ThreadPoolExecutor(1) as writer,
            closing(self._loaded(self._pending(inputs, keys, bar))) as loaded,
        ):
            writing = writer.submit(Tally)
            for batch in one_shape_batches(loaded, self.options.batch_size):
                outcomes = model.outcomes(batch)
                self.tally.add(writing.result())  # of the batch before
                writing = writer.submit(self._note, outcomes)
                bar.update(len(outcomes))
                if self.stop.received:
                    raise GITError("stopped by a signal; the same command continues the run")
            self.tally.add(writing.result())
        seconds = time.monotonic() - start
        sideways = model.n_sideways
        self.tally.add(Tally(busy_seconds=model.busy_seconds, seconds=seconds, sideways=sideways))

    def _loaded(self, pending: Iterable[AnyInput]) -> Generator[LoadedInput, None, None]:
        config, folder = self.captioner.model.config, sink_folder(self.sink)
        dataset = InputDataset(config, self.options.reading, folder)
        workers, ahead = self.options.workers, 2 * self.options.batch_size
        return load_inputs(group_by_image(pending), dataset, workers=workers, ahead=ahead)

    def _part(self, inputs: Iterable[AnyInput]) -> Iterator[AnyInput]:
        """This process's part of the inputs. All inputs about an image belong to the same
        process."""
        for item in inputs:
            number = zlib.crc32(item.key.encode("utf-8", "surrogateescape"))
            if number % self.group.size == self.group.rank:
                yield item

    def _pending(
        self, inputs: Iterable[AnyInput], keys: DiskSet, bar: ProgressBar
    ) -> Iterator[AnyInput]:
        """The inputs without an outcome, each once."""
        for item in self._part(inputs):
            if not keys.add(item.identity):
                self.tally.repeated += 1
                bar.update()
                continue
            outcome = self.run.journal.find(item.identity)
            if outcome is not None:
                self.tally.done_before += 1
                if not outcome.is_settled:  # killed before the text was written beside the image
                    self._settle([(item, outcome)])
            elif self._is_to_do(item):
                yield item
                continue
            bar.update()

    def _is_to_do(self, item: AnyInput) -> bool:
        """Whether an input needs a text. If it does not, it is counted: it has a text that is to
        stay, or fails because its name has the text of another image."""
        mode = self.options.mode
        if mode == "overwrite" or isinstance(item, RefusedInput) or self._old_text(item) is None:
            return True
        record, folder = self._old_record(item), sink_folder(self.sink)
        is_other_file = record is not None and is_of_another_file(record, item, folder)
        other = self._other_origin(item, is_other_file=is_other_file)
        if other is not None and mode == "overwrite-if-other":
            return True
        rival = rival_of(record, item, folder) if record is not None and is_other_file else None
        if rival is not None:
            self.run.journal.note([Outcome(item.identity, failure=self._clash(item, rival))])
            self.tally.failed += 1
            return False
        if mode in ("append", "prepend"):
            return True
        self.tally.kept += 1
        if other is not None:
            self.tally.others = add_counts(self.tally.others, Counter([other]))
        return False

    def _clash(self, item: Input, rival: Path) -> str:
        return bounded_line(
            f"{item.name}: {self.sink.path} has the text of another image under this name, of "
            f"{readable(str(rival))}: caption both in one run, rename one of them, name another "
            "--out, or replace that text with --overwrite-if-other"
        )

    def _old_text(self, item: Input) -> str | None:
        """The text that an input had before the run."""
        if self.sink.writes_at_once:
            return self.sink.old_text(item)
        record = self._old_record(item)
        return None if record is None else record_text(record)

    def _old_record(self, item: Input) -> OutputRecord | None:
        """The record that an input, or another one with its text file, had before the run."""
        old = self.run.old.find(self.sink.slot(item.fields))
        return None if old is None else old.record

    def _other_origin(self, item: Input, *, is_other_file: bool) -> str | None:
        """The origin of an input's old text, if it differs from this run's. None: it does not
        differ, or is unknown, as for a text that was written or changed by hand."""
        record = self._old_record(item)
        if record is None or "rejected" in record:
            return None
        if self.sink.writes_at_once and self.sink.old_text(item) != file_text(record).strip():
            return None
        origin = self.editor.stamp | {"question": item.question}
        return other_origin(record, origin, is_other_file=is_other_file)

    def _note(self, outcomes: Sequence[InputOutcome]) -> Tally:
        """Store the outcomes of a batch, and write the texts that are to be written at once."""
        outcomes = [
            (item, replace(outcome, is_settled=not self.sink.writes_at_once))
            for item, outcome in outcomes
        ]
        self.run.journal.note(outcome for _, outcome in outcomes)
        return _count(self._settle(outcomes))

    def _settle(self, outcomes: Sequence[InputOutcome]) -> list[Outcome]:
        """Write the texts that have not been written yet, and store that they are written."""
        settled = [
            outcome if outcome.is_settled else self._write(item, outcome)
            for item, outcome in outcomes
        ]
        if any(not outcome.is_settled for _, outcome in outcomes):
            self.run.journal.note(settled)
        return settled

    def _write(self, item: AnyInput, outcome: Outcome) -> Outcome:
        """The outcome once its text is written, or the failure to do so."""
        record = outcome.record
        if isinstance(item, RefusedInput) or record is None or "rejected" in record:
            return replace(outcome, is_settled=True)
        try:
            self.sink.write(item, record)
            return replace(outcome, is_settled=True)
        except DiskFullError:
            raise
        except GITError as error:
            return Outcome(outcome.key, failure=str(error))


def _count(outcomes: Iterable[Outcome]) -> Tally:
    tally = Tally()
    for outcome in outcomes:
        if outcome.record is None:
            tally.failed += 1
        elif "rejected" in outcome.record:
            tally.rejected += 1
        else:
            tally.written += 1
            tally.unsuited += "warning" in outcome.record
    return tally
