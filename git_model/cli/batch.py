"""The command `batch`: captions, or answers, for a whole data set."""

import sys
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from git_model.checkpoints.defaults import DEFAULT_MODELS, default_model, model_help
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
from git_model.cli.reading import Reading, sideways_line
from git_model.utils.errors import GITError
from git_model.utils.serialize import to_dict

if TYPE_CHECKING:
    from git_model.batch.caption_filters import Mode
    from git_model.batch.inputs import InputOptions, SourceInputs
    from git_model.batch.items import AnyInput, OutputRecord
    from git_model.batch.loop import BatchOptions
    from git_model.batch.sinks import Sink
    from git_model.captioner import Captioner
    from git_model.checkpoints.defaults import Task

T = TypeVar("T")
GROUP_TIMEOUT = timedelta(days=7)  # how long a process that is done waits for the others


@click.command(cls=GroupedCommand)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE…")
@input_options
@output_options
@filter_options
@run_options
@model_options(f"{model_help('caption')} With questions {DEFAULT_MODELS['ask'].image}.")
@kohya_options
@decoding_options
def batch(
    sources: tuple[str, ...],
    out: str | None,
    caption_extension: str | None,
    csv_safe: bool,
    preview: Path | None,
    preview_count: int,
    mode: "Mode | None",
    engine: str,
    decoding: Decoding,
    **values: Any,
) -> None:
    """Caption every image and clip in SOURCE, or answer questions about them.

    A SOURCE is a folder, a pattern such as 'photos/*.jpg', an image, a web address, a list (.txt,
    .json, or - for stdin), a table (.json, .jsonl, .csv, .parquet) with a column of paths, a
    .parquet with the images in it, the original's .tsv, or WebDataset's .tar files such as
    'train-{000..099}.tar'. Several sources, of any kinds, are allowed.

    If a run is interrupted, the same command continues it. Inputs that cannot be read are named in
    errors.jsonl, and the exit code is 1. Under torchrun each process takes a part of the images.
    """
    from git_model.batch.caption_filters import CaptionFilters
    from git_model.batch.inputs import InputOptions

    reading: Reading = values.pop("reading")
    search = _pop_options(InputOptions, values)
    mode = mode or "skip"
    _refuse_joined_answers(search, mode)
    try:
        filters = _pop_options(CaptionFilters, values)
        if preview is not None:
            _refuse_output_with_preview(out, caption_extension, engine)
            sink = None
        else:
            sink = _sink_of(engine, out, caption_extension, sources, csv_safe=csv_safe)
    except GITError as error:
        raise click.UsageError(str(error)) from None
    if sink is not None:
        _refuse_answers_in_text_files(search, sink)
        if out is None:
            _refuse_texts_beside_rows(search, sources)
    elif preview is None and (
        out is None or caption_extension is not None or mode not in ("skip", "overwrite")
    ):
        raise click.UsageError("--engine ray writes a new folder of Parquet files: name --out")
    values["model"] = values["model"] or _fitting_model(sources, search)
    model = _pop_options(ModelOptions, values)
    options = values | {"filters": filters, "mode": mode}
    plan = _Plan(sources, search, reading, model, decoding, options)
    if preview is not None:
        summary = _preview(plan, preview, preview_count)
    elif sink is not None:
        summary = _run_here(plan, sink)
    else:
        summary = _run_on_cluster(plan, Path(str(out)))
    sys.exit(1 if summary["failed"] else 0)


@dataclass(frozen=True)
class _Plan:
    """What to run. `options` holds the fields of BatchOptions without `decoding` and `reading`."""

    sources: tuple[str, ...]
    search: "InputOptions"
    reading: Reading
    model: ModelOptions
    decoding: Decoding
    options: dict[str, Any]

    @property
    def is_exported(self) -> bool:
        """Whether the model runs in another engine, with its own names of devices."""
        from git_model.checkpoints.native import is_exported

        return is_exported(Path(self.model.model))

    @property
    def torch_device(self) -> str:
        """The device of this process's tensors."""
        return "cpu" if self.is_exported else self.model.device

    def inputs(self, captioner: "Captioner") -> "SourceInputs":
        """The inputs; videos only for a model with temporal embeddings, or by --video-as."""
        from git_model.batch.inputs import find_inputs

        has_videos = captioner.model.config.frames > 0 or self.reading.video_as is not None
        return find_inputs(self.sources, replace(self.search, videos=has_videos))

    def open_model(self) -> "Captioner":
        """The model, with as many frames as `reading` has."""
        captioner = self.model.open_model()
        self.reading.options_for(captioner.model)
        return captioner

    def options_for(self, captioner: "Captioner") -> "BatchOptions":
        """The options, with the checkpoint's decoding options where the command has none."""
        from git_model.batch.loop import BatchOptions

        decoding = self.decoding(captioner.model.config.decoding)
        reading = self.reading.options_for(captioner.model)
        return BatchOptions(decoding=decoding, reading=reading, **self.options)

    def source_fields(self) -> "OutputRecord":
        """Where the inputs come from, as plain values."""
        search, root = to_dict(self.search), self.search.root
        search["root"] = None if root is None else str(root)
        source = self.sources[0] if len(self.sources) == 1 else list(self.sources)
        return {"source": source, "dtype": self.model.dtype} | search

    def model_fields(self) -> "OutputRecord":
        """The model's name, and which weights it means."""
        from git_model.checkpoints.loading import exact_revision

        name, revision = self.model.model, self.model.revision
        return {"model": name, "revision": exact_revision(name, revision, self.model.adapter)}


def _run_here(plan: _Plan, sink: "Sink") -> "OutputRecord":
    """A run of this process, or of those that torchrun started."""
    from git_model.batch.run import caption_dataset
    from git_model.batch.sinks import make_sink_folder
    from git_model.cli.signals import line_on_interrupt, stop_signals
    from git_model.utils.distributed import init

    with (
        line_on_interrupt("stopped by Ctrl-C; the same command continues the run"),
        stop_signals() as stop,
        init(plan.torch_device, GROUP_TIMEOUT) as group,
    ):
        model = plan.model if plan.is_exported else replace(plan.model, device=str(group.device))
        captioner = model.open_model()
        options = plan.options_for(captioner)
        inputs = plan.inputs(captioner)
        make_sink_folder(sink)
        stop.begun = True
        summary = caption_dataset(
            captioner,
            inputs,
            sink,
            options,
            model=group.broadcast(plan.model_fields()),
            source=plan.source_fields(),
            group=group,
            stop=stop,
            progress=True,
        )
    if group.is_first:
        click.echo(_summary_line(summary, sink))
        _report_untaken(inputs)
        _warn(summary, captioner.purpose)
    return summary


def _preview(plan: _Plan, path: Path, count: int) -> "OutputRecord":
    """Draw the model's input of the first images."""
    from git_model.batch.preview import draw_preview

    captioner = plan.model.open_model()
    options, inputs = plan.options_for(captioner), plan.inputs(captioner)
    preview = draw_preview(inputs, captioner.model.config, options.reading, path, count)
    for reason in preview.refusals:
        click.echo(f"Error: {reason}", err=True)
    click.echo(f"{path}: {preview.n_images} inputs drawn, {len(preview.refusals)} refused")
    _report_untaken(inputs)
    return {"failed": len(preview.refusals)}


def _report_untaken(inputs: "SourceInputs") -> None:
    """Name the files that look like images or videos and were not taken."""
    from git_model.data.untaken import untaken_line

    line = untaken_line(
        inputs.untaken(),
        "formats that are not read, other suffixes or none, hidden files, or videos: these need a "
        "model with temporal embeddings, or --video-as",
    )
    if line is not None:
        click.echo(line, err=True)


def _run_on_cluster(plan: _Plan, out: Path) -> "OutputRecord":
    """A run on a Ray cluster. Failures are printed on stderr, too."""
    from git_model.batch.ray_engine import caption_with_ray
    from git_model.batch.run import record_editor
    from git_model.utils.devices import usable_device

    captioner = plan.open_model()
    options, inputs = plan.options_for(captioner), plan.inputs(captioner)
    n_written = n_failed = n_unsuited = 0
    for record in caption_with_ray(
        captioner.model.config,
        plan.open_model,
        inputs,
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
            n_unsuited += "warning" in record
    click.echo(f"{out}: {n_written} written, {n_failed} failed")
    _report_untaken(inputs)
    _warn({"unsuited": n_unsuited}, captioner.purpose)
    return {"failed": n_failed}


def _warn(summary: "OutputRecord", purpose: str) -> None:
    """Print warnings about the texts on stderr."""
    origins = summary.get("kept_from_others") or {}
    lines = []
    if origins:
        names = "; ".join(f"{count} by {origin}" for origin, count in origins.items())
        lines.append(
            f"{sum(origins.values())} of the existing texts have another origin than this run "
            f"would give them ({names}): --overwrite-if-other replaces only these"
        )
    if summary["unsuited"]:
        lines.append(
            f"{summary['unsuited']} texts are not to be trusted: the image is larger than those "
            f"that the model was made for ({purpose or 'see its card'}), or more than half of it "
            "is cut off; the field `warning` of a record says which"
        )
    if summary.get("sideways"):
        lines.append(sideways_line(summary["sideways"]))
    for line in lines:
        click.echo(f"Warning: {line}", err=True)


def _fitting_model(sources: tuple[str, ...], search: "InputOptions") -> str:
    """The released model for these inputs, if none is named."""
    from git_model.batch.inputs import find_inputs
    from git_model.batch.items import Input
    from git_model.preprocessing.formats import VIDEO_SUFFIXES
    from git_model.preprocessing.video import is_clip

    def is_video(item: "AnyInput") -> bool:
        if isinstance(item, Input) and isinstance(item.location, Path):
            return is_clip(item.location)
        return isinstance(item, Input) and item.key.lower().endswith(VIDEO_SUFFIXES)

    task: Task = "ask" if search.questions or search.question_column else "caption"
    if "-" in sources:  # it can be read once, by the run itself
        return default_model(task)
    return default_model(
        task, videos=all(map(is_video, find_inputs(sources, replace(search, videos=True))))
    )


def _pop_options(kind: type[T], values: dict[str, Any]) -> T:
    """A group of options, removed from the values of all options."""
    names = [item.name for item in fields(kind) if item.name in values]  # type: ignore[arg-type]
    return kind(**{name: values.pop(name) for name in names})


def _sink_of(
    engine: str,
    out: str | None,
    extension: str | None,
    sources: tuple[str, ...],
    *,
    csv_safe: bool,
) -> "Sink | None":
    """The sink; None for Ray, which writes its own folder."""
    from git_model.batch.sinks import find_sink

    if engine != "ray":
        return find_sink(out, extension, sources, csv_safe=csv_safe)
    if not csv_safe:
        raise GITError("--no-csv-safe is for one table of CSV, expected --out NAME.csv")
    return None


def _refuse_output_with_preview(out: str | None, extension: str | None, engine: str) -> None:
    if out is not None or extension is not None or engine == "ray":
        raise GITError("--preview writes no captions: leave out --out and its options")


def _refuse_joined_answers(search: "InputOptions", mode: "Mode") -> None:
    if (search.questions or search.question_column) and mode in ("append", "prepend"):
        raise click.UsageError(f"--{mode} is for captions, not for answers")


def _refuse_answers_in_text_files(search: "InputOptions", sink: "Sink") -> None:
    if sink.writes_at_once and (len(search.questions) > 1 or search.question_column):
        raise click.UsageError(
            "a text file beside an image holds no answers to several questions: name a table, "
            "such as --out answers.jsonl"
        )


def _refuse_texts_beside_rows(search: "InputOptions", sources: tuple[str, ...]) -> None:
    from git_model.batch.input_parquet import parquet_inputs

    for source in sources:
        if parquet_inputs(Path(source), search.path_column, search.question_column) is not None:
            raise click.UsageError(
                f"{source}: no text files can lie beside its images, expected --out"
            )


def _summary_line(summary: "OutputRecord", sink: "Sink") -> str:
    """The summary of a run as a line for people."""
    from git_model.batch.sinks import companion_path

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
