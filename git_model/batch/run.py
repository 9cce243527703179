"""A run over a data set from its first input to its last file, by one process or by many."""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import fields

import torch

from git_model.batch.files import beside, close, finish, open_run, prepare
from git_model.batch.inputs import Input, Refused
from git_model.batch.loop import Batch, BatchOptions, Tally
from git_model.batch.records import Editor, Record
from git_model.batch.sinks import Target
from git_model.captioner import Captioner
from git_model.config import DecodingOptions
from git_model.utils.atomic import new_file
from git_model.utils.distributed import ProcessGroup, StopRequest
from git_model.utils.serialize import to_dict

ALONE = ProcessGroup(torch.device("cpu"))


def write_about(
    git: Captioner,
    inputs: Iterable[Input | Refused],
    target: Target,
    options: BatchOptions,
    *,
    model: Record,
    source: Record,
    group: ProcessGroup = ALONE,
    stop: StopRequest | None = None,
    progress: bool = False,
) -> Record:
    """Write about all inputs, or go on with a run that was interrupted.

    Args:
        model: its name and revision, for the records.
        source: where the inputs come from, for the file of metadata.
        progress: draw a bar on stderr, if it is a terminal.

    Returns:
        what was done, as in `….batch.json`.

    Raises:
        GITError: the run cannot begin or go on, was asked to stop, or the disk is full.
    """
    settings = source | {"extension": target.extension} | model
    settings |= {"style": git.model.config.style} | to_dict(options)
    for name in ("batch_size", "workers"):  # the texts do not depend on them
        del settings[name]
    folder = beside(target.place, "batch.run")
    if group.is_first:
        prepare(folder, settings, () if options.mode == "overwrite" else target.old())
    group.barrier()
    with open_run(folder, group.rank) as run:
        editor = editor_of(git, options, model)
        batch = Batch(git, options, editor, target, run, group, stop or StopRequest())
        batch.write(inputs, progress=progress and group.is_first)
        done = _together(group.all_gather_object(batch.tally))
        if group.is_first:
            done["failed"] = finish(run, target, inputs)
            metadata = settings | done | {"ended": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
            with new_file(beside(target.place, "batch.json")) as path:
                path.write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    if group.is_first:
        close(folder)
    return group.broadcast(done)


def editor_of(git: Captioner, options: BatchOptions, model: Record) -> Editor:
    """What makes the records; each tells the model, its style, and how it was decoded."""
    return Editor(
        wording=options.wording,
        min_confidence=options.min_confidence,
        mode=options.mode,
        several=options.decoding.num_return_sequences > 1,
        stamp=model | {"style": git.model.config.style, "decoding": _changes(options.decoding)},
    )


def _changes(options: DecodingOptions) -> Record:
    """What differs from a plain greedy search."""
    plain = DecodingOptions()
    names = (item.name for item in fields(options))
    values = ((name, getattr(options, name)) for name in names)
    return {name: value for name, value in values if value != getattr(plain, name)}


def _together(tallies: Sequence[Tally]) -> Record:
    """What all processes did."""
    total = Tally()
    for tally in tallies:
        total.add(tally)
    seconds = max(tally.seconds for tally in tallies)
    made = total.written + total.rejected
    return {
        "written": total.written,
        "rejected": total.rejected,
        "failed": total.failed,
        "kept": total.kept,
        "done_before": total.done,
        "seconds": round(seconds, 1),
        "per_second": round(made / seconds, 2),
        "model_busy": round(total.busy / total.seconds, 3),
    }
