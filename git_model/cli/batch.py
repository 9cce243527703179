"""The command `batch`: captions, or answers, for a whole data set."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from git_model.cli.batch_options import (
    filter_options,
    input_options,
    kohya_options,
    output_options,
    run_options,
)
from git_model.cli.options import (
    Decoding,
    GroupedCommand,
    ModelOptions,
    decoding_options,
    model_options,
)
from git_model.utils.errors import GITError
from git_model.utils.serialize import to_dict

if TYPE_CHECKING:
    from git_model.batch.caption_filters import Mode
    from git_model.batch.inputs import InputOptions
    from git_model.batch.items import AnyInput, OutputRecord
    from git_model.batch.loop import BatchOptions
    from git_model.batch.sinks import Sink
    from git_model.captioner import Captioner

T = TypeVar("T")
GROUP_TIMEOUT = timedelta(days=7)  # a process that is done waits so long for the others


@click.command(cls=GroupedCommand)
@click.argument("source", metavar="SOURCE")
@input_options
@output_options
@filter_options
@run_options
@model_options
@kohya_options
@decoding_options
def batch(
    source: str,
    out: str | None,
    caption_extension: str | None,
    mode: "Mode | None",
    engine: str,
    decoding: Decoding,
    **values: Any,
) -> None:
    """Caption every image and clip in SOURCE, or answer questions about them.

    SOURCE is a folder, a pattern such as 'photos/*.jpg', a list (.txt, or - for stdin), a table
    (.jsonl, .csv, .parquet) with a column of paths, the original's .tsv, or WebDataset's .tar
    files such as 'train-{000..099}.tar'.

    The same command continues a run that was interrupted, however it was. Inputs that cannot be
    read are named in errors.jsonl, and the exit code is 1. Under torchrun each process takes a
    part of the images.
    """
    from git_model.batch.caption_filters import CaptionFilters
    from git_model.batch.inputs import InputOptions
    from git_model.batch.sinks import find_sink

    model, search = _pop_options(ModelOptions, values), _pop_options(InputOptions, values)
    mode = mode or "skip"
    _refuse_joined_answers(search, mode)
    try:
        filters = _pop_options(CaptionFilters, values)
        sink = None if engine == "ray" else find_sink(out, caption_extension, source)
    except GITError as error:
        raise click.UsageError(str(error)) from None
    plan = _Plan(source, search, model, decoding, values | {"filters": filters, "mode": mode})
    if sink is not None:
        _refuse_answers_in_text_files(search, sink)
        summary = _run_here(plan, sink)
    elif out is None or caption_extension is not None or mode in ("append", "prepend"):
        raise click.UsageError("--engine ray writes a new folder of Parquet files: name --out")
    else:
        summary = _run_on_cluster(plan, Path(out))
    sys.exit(1 if summary["failed"] else 0)


@dataclass(frozen=True)
class _Plan:
    """What to run. `options` are the fields of BatchOptions but for the decoding."""

    source: str
    search: "InputOptions"
    model: ModelOptions
    decoding: Decoding
    options: dict[str, Any]

    @property
    def is_exported(self) -> bool:
        """Whether the model runs in another engine, which has its own names of devices."""
        from git_model.checkpoints.native import is_exported

        return is_exported(Path(self.model.model))

    @property
    def torch_device(self) -> str:
        """The device of this process's tensors."""
        return "cpu" if self.is_exported else self.model.device

    def inputs(self, captioner: "Captioner") -> "Iterable[AnyInput]":
        """The inputs; videos only for a model with temporal embeddings."""
        from git_model.batch.inputs import find_inputs

        has_videos = captioner.model.config.frames > 0
        return find_inputs(self.source, replace(self.search, videos=has_videos))

    def options_for(self, captioner: "Captioner") -> "BatchOptions":
        """The options, with the checkpoint's decoding options where the command has none."""
        from git_model.batch.loop import BatchOptions

        decoding = self.decoding(captioner.model.config.decoding)
        return BatchOptions(decoding=decoding, **self.options)

    def source_fields(self) -> "OutputRecord":
        """Where the inputs come from, as plain values."""
        search, root = to_dict(self.search), self.search.root
        search["root"] = None if root is None else str(root)
        return {"source": self.source, "dtype": self.model.dtype} | search

    def model_fields(self) -> "OutputRecord":
        """The model's name, and which weights it means."""
        from git_model.checkpoints.loading import exact_revision

        name, revision = self.model.model, self.model.revision
        return {"model": name, "revision": exact_revision(name, revision)}


def _run_here(plan: _Plan, sink: "Sink") -> "OutputRecord":
    """A run of this process, or of those that torchrun started."""
    from git_model.batch.run import caption_dataset
    from git_model.cli.batch_signals import stop_signals
    from git_model.utils.distributed import init

    with stop_signals() as stop, init(plan.torch_device, GROUP_TIMEOUT) as group:
        model = plan.model if plan.is_exported else replace(plan.model, device=str(group.device))
        captioner = model.open_model()
        inputs = plan.inputs(captioner)
        stop.begun = True
        summary = caption_dataset(
            captioner,
            inputs,
            sink,
            plan.options_for(captioner),
            model=group.broadcast(plan.model_fields()),
            source=plan.source_fields(),
            group=group,
            stop=stop,
            progress=True,
        )
    if group.is_first:
        click.echo(_summary_line(summary, sink))
    return summary


def _run_on_cluster(plan: _Plan, out: Path) -> "OutputRecord":
    """The same by Ray. Failures are printed on stderr, too."""
    from git_model.batch.ray_engine import caption_with_ray
    from git_model.batch.run import record_editor
    from git_model.utils.devices import usable_device

    captioner = plan.model.open_model()
    options = plan.options_for(captioner)
    n_written = n_failed = 0
    for record in caption_with_ray(
        captioner.model.config,
        plan.model.open_model,
        plan.inputs(captioner),
        out,
        options,
        record_editor(captioner, options, plan.model_fields()),
        gpu=usable_device(plan.torch_device).type == "cuda",
    ):
        if "error" in record:
            n_failed += 1
            click.echo(f"Error: {record['error']}", err=True)
        else:
            n_written += 1
    click.echo(f"{out}: {n_written} written, {n_failed} failed")
    return {"failed": n_failed}


def _pop_options(kind: type[T], values: dict[str, Any]) -> T:
    """A group of options, taken out of the values of all."""
    names = [item.name for item in fields(kind) if item.name in values]  # type: ignore[arg-type]
    return kind(**{name: values.pop(name) for name in names})


def _refuse_joined_answers(search: "InputOptions", mode: "Mode") -> None:
    if (search.questions or search.question_column) and mode in ("append", "prepend"):
        raise click.UsageError(f"--{mode} is for captions, not for answers")


def _refuse_answers_in_text_files(search: "InputOptions", sink: "Sink") -> None:
    if sink.writes_at_once and (len(search.questions) > 1 or search.question_column):
        raise click.UsageError(
            "a text file beside an image holds no answers to several questions: name a table, "
            "such as --out answers.jsonl"
        )


def _summary_line(summary: "OutputRecord", sink: "Sink") -> str:
    """The summary of a run as a line for people."""
    from git_model.batch.run import companion_path

    counts = (
        (summary["written"], "written"),
        (summary["rejected"], "rejected"),
        (summary["failed"], f"failed, see {companion_path(sink.path, 'errors.jsonl')}"),
        (summary["kept"], "had a text already"),
        (summary["repeated"], "named more than once"),
        (summary["done_before"], "were done before the interruption"),
    )
    line = ", ".join(f"{count} {what}" for count, what in counts if count or what == "written")
    if summary["per_second"]:
        busy = f"the model busy {summary['model_busy']:.0%} of the time"
        line += f"; {summary['per_second']} a second, {busy}"
    return f"{sink.path}: {line}"
