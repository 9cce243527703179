"""A run over a data set from its first input to its last file, by one process or by many.

During a run a folder beside its sink, named `….run`, holds the journals, the settings with which
the run began, and the records that the sink had before. The folder is removed when the sink is
complete.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TextIO

import torch

from git_model.batch.caption_filters import RecordEditor
from git_model.batch.distinct_inputs import DistinctInputs
from git_model.batch.items import AnyInput, Input, OutputRecord
from git_model.batch.journal import (
    NOTED,
    SETTINGS,
    Outcome,
    RunFolder,
    close_run,
    disk_set,
    foreign_file,
    old_records_path,
    open_journal,
    open_run,
    removed_path,
)
from git_model.batch.loop import BatchJob, BatchOptions, Tally
from git_model.batch.origin import origin_of
from git_model.batch.sink_tables import write_jsonl_line
from git_model.batch.sinks import RECORDS, InputRecord, Sink, companion_path
from git_model.captioner import Captioner
from git_model.data.manifests import DataError, parse
from git_model.utils.atomic import new_file
from git_model.utils.distributed import ProcessGroup, StopRequest
from git_model.utils.errors import GITError
from git_model.utils.serialize import to_dict

ERRORS = "errors.jsonl"
REPORT = "batch.json"
RUN = "batch.run"
ONE_PROCESS = ProcessGroup(torch.device("cpu"))


def caption_dataset(
    captioner: Captioner,
    inputs: Iterable[AnyInput],
    sink: Sink,
    options: BatchOptions,
    *,
    model: OutputRecord,
    source: OutputRecord,
    group: ProcessGroup = ONE_PROCESS,
    stop: StopRequest | None = None,
    progress: bool = False,
) -> OutputRecord:
    """Caption all inputs, or answer their questions; continue a run that was interrupted.

    Args:
        model: its name and revision, for the records.
        source: where the inputs come from, for the file of metadata.
        progress: draw a bar on stderr, if it is a terminal.

    Returns:
        the counts and the speed, as in `….batch.json`.

    Raises:
        GITError: the run cannot begin or continue, was asked to stop, or the disk is full.
    """
    settings = source | {"extension": sink.extension} | model
    settings |= {"style": captioner.model.config.style} | to_dict(options)
    for name in ("batch_size", "workers"):  # the texts do not depend on them
        del settings[name]
    folder = companion_path(sink.path, RUN)
    inputs = DistinctInputs(inputs, sink, folder)
    if group.is_first:
        _require_own(sink)
        prepare(folder, settings, sink, anew=options.mode == "overwrite")
    group.barrier()
    with open_run(folder, group.rank) as run:
        editor = record_editor(captioner, options, model)
        job = BatchJob(captioner, options, editor, sink, run, group, stop or StopRequest())
        job.execute(inputs, progress=progress and group.is_first)
        summary = _summary(group.all_gather_object(job.tally))
        if group.is_first:
            summary["failed"] = finish(run, sink, inputs)
            summary["files_sha256"] = sorted(_companion_digests(sink).values())
            metadata = settings | summary | {"ended": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
            with new_file(companion_path(sink.path, REPORT)) as path:
                path.write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    if group.is_first:
        close_run(folder)
    return group.broadcast(summary)


def _require_own(sink: Sink) -> None:
    """Refuse to replace files that have the names of a run's files, but that no run wrote.

    Raises:
        GITError: there is such a file.
    """
    path = companion_path(sink.path, REPORT)
    report = _report_of(path)
    own = _own_digests(sink, report or {})
    digests = _companion_digests(sink)
    files = [path] if path.exists() and report is None else []
    for path in files + [path for path, digest in digests.items() if digest not in own]:
        raise GITError(
            f"{path}: no run of `git-model batch` wrote this file, or it was changed since, and "
            "this run needs its name: move it, or name another --out"
        )


def _own_digests(sink: Sink, report: OutputRecord) -> set[str]:
    """The digests of the files that a run wrote: the last complete one, or one that was killed."""
    noted = companion_path(sink.path, RUN) / NOTED
    lines = noted.read_text(encoding="utf-8").split() if noted.is_file() else []
    return {*map(str, report.get("files_sha256") or ()), *lines}


def _report_of(path: Path) -> OutputRecord | None:
    """The report of the last complete run, or None if there is no such file."""
    try:
        report = parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, DataError):
        return None
    return report if isinstance(report, dict) and {"written", "model_busy"} <= {*report} else None


def _companion_digests(sink: Sink) -> dict[Path, str]:
    """The SHA-256 of the files that a run writes beside its sink, of those that are there."""
    paths = (companion_path(sink.path, name) for name in _companions(sink))
    return {path: _digest(path) for path in paths if path.is_file()}


def _companions(sink: Sink) -> list[str]:
    """The names of the files of lines that a run writes beside its sink."""
    return [ERRORS] if sink.has_whole_records else [ERRORS, RECORDS]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_editor(captioner: Captioner, options: BatchOptions, model: OutputRecord) -> RecordEditor:
    """The editor that makes the records; each record names its origin."""
    style = captioner.model.config.style
    return RecordEditor(
        filters=options.filters,
        min_confidence=options.min_confidence,
        mode=options.mode,
        multiple=options.decoding.num_return_sequences > 1,
        stamp=origin_of(model, style, options.decoding, options.filters, options.reading),
    )


def _summary(tallies: Sequence[Tally]) -> OutputRecord:
    """The counts of all processes together, and their speed."""
    total = Tally()
    for tally in tallies:
        total.add(tally)
    seconds = max(tally.seconds for tally in tallies)
    return {
        "written": total.written,
        "rejected": total.rejected,
        "failed": total.failed,
        "kept": total.kept,
        "kept_from_others": dict(total.others),
        "unsuited": total.unsuited,
        "sideways": total.sideways,
        "repeated": total.repeated,
        "done_before": total.done_before,
        "seconds": round(seconds, 1),
        "per_second": round((total.written + total.rejected) / seconds, 2),
        "model_busy": round(total.busy_seconds / total.seconds, 3),
    }


def prepare(folder: Path, settings: OutputRecord, sink: Sink, *, anew: bool) -> None:
    """Make a run's folder, or require that the run in it can continue.

    Args:
        settings: the settings that determine the texts; they must not change within a run.
        sink: the records that it holds now are kept for the run.
        anew: do not keep them if the sink is one file, which is then written without them.

    Raises:
        GITError: the run began with other settings, a record is damaged, the folder holds files
            that no run wrote, or it cannot be written.
    """
    settings = json.loads(json.dumps(settings))  # as they are read from the file
    old = old_records_path(folder)
    foreign = foreign_file(folder) or foreign_file(removed_path(folder))
    if foreign is not None:
        raise _foreign(foreign, folder)
    continues = (folder / SETTINGS).exists()
    if continues:
        _require_same(folder, settings)
    try:
        old.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GITError(f"{folder}: cannot be made: {error.strerror or error}") from None
    if continues:
        return
    records = () if anew and not sink.writes_at_once else sink.old_records()
    with open_journal(old) as journal:
        journal.note(Outcome(sink.slot(record), record) for record in records)
    with new_file(folder / SETTINGS) as path:  # last, because it says that the rest is there
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _foreign(path: Path, folder: Path) -> GITError:
    return GITError(
        f"{path}: no run of `git-model batch` wrote this file, and a run needs the name "
        f"{folder.name} for a folder of its own: move it, or name another --out"
    )


def _require_same(folder: Path, settings: OutputRecord) -> None:
    try:
        begun = parse((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, DataError) as error:
        raise GITError(f"{folder / SETTINGS}: {error}: delete {folder} to begin anew") from None
    if not isinstance(begun, dict) or not {"style", "decoding"} <= {*begun}:
        raise _foreign(folder / SETTINGS, folder)
    for name in sorted({*begun, *settings}):
        before, now = begun.get(name), settings.get(name)
        if before != now:
            raise GITError(
                f"{folder}: this run was begun with {name} = {json.dumps(before)}, now it is "
                f"{json.dumps(now)}: continue with the former, or delete {folder} to begin anew"
            )


def finish(run: RunFolder, sink: Sink, inputs: Iterable[AnyInput]) -> int:
    """Write the sink, and a line for each input that failed, after every process is done.

    Returns:
        the number of inputs that failed.

    Raises:
        GITError: a file cannot be written; the next run tries again.
    """
    names = _companions(sink)
    with ExitStack() as stack:
        # Opened again: other processes may have begun their journals after this one looked.
        journal = stack.enter_context(open_journal(run.journal_path))
        errors, *tables = (
            stack.enter_context(_noted_lines(companion_path(sink.path, name), run.path))
            for name in names
        )
        results = OrderedResults(replace(run, journal=journal), sink, errors)
        records = results.records(inputs)
        for table in tables:
            records = _copied(records, table)
        for item, reason in sink.finish(records):
            results.fail(item, reason)
    for path in (companion_path(sink.path, name) for name in names):
        if not path.stat().st_size:
            path.unlink()
    return results.n_failed


@contextmanager
def _noted_lines(path: Path, run: Path) -> Iterator[TextIO]:
    """A new file of lines. Its digest is stored in the run's folder before the file gets its name,
    so that the next run knows that this run wrote it."""
    with new_file(path) as beside:
        with beside.open("w", encoding="utf-8", errors="backslashreplace") as lines:
            yield lines
        with (run / NOTED).open("a", encoding="utf-8") as digests:
            digests.write(_digest(beside) + "\n")


def _copied(records: Iterable[InputRecord], lines: TextIO) -> Iterator[InputRecord]:
    """The records, unchanged; each is also written as a line of JSON."""
    for item, record in records:
        write_jsonl_line(lines, record)
        yield item, record


class OrderedResults:
    """The results of a whole run, in the order of its inputs.

    Args:
        errors: gets a line of JSON for each input that failed.

    Attributes:
        n_failed: how many failed.
    """

    def __init__(self, run: RunFolder, sink: Sink, errors: TextIO) -> None:
        self._run, self._sink, self._errors = run, sink, errors
        self.n_failed = 0

    def records(self, inputs: Iterable[AnyInput]) -> Iterator[InputRecord]:
        """The record of each input that has one, once, and then the records whose inputs no longer
        exist. An old record stays if there is no new text or the new text is rejected."""
        with disk_set() as keys, disk_set() as slots:
            for item in inputs:
                if keys.add(item.identity):
                    record = self._record(item)
                    if record is not None and isinstance(item, Input):
                        slots.add(self._sink.slot(record))
                        yield item, record
            for outcome in chain(self._run.journal, self._run.old):
                record = outcome.record
                if record is not None and slots.add(self._sink.slot(record)):
                    yield None, record

    def fail(self, item: AnyInput, reason: str) -> None:
        """Write a line about an input that failed."""
        self.n_failed += 1
        line = item.fields | {"error": reason}
        self._errors.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _record(self, item: AnyInput) -> OutputRecord | None:
        new = self._run.journal.find(item.identity)
        old = self._run.old.find(self._sink.slot(item.fields))
        if new is not None and new.failure is not None:
            self.fail(item, new.failure)
        if new is None or new.record is None or "rejected" in new.record:
            new = old or new
        return None if new is None else new.record
