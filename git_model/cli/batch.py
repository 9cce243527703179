"""The command `batch`: captions, or answers, for a whole data set."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from git_model.cli.batch_options import (
    kohya_options,
    run_options,
    source_options,
    target_options,
    wording_options,
)
from git_model.cli.options import Decoding, ModelOptions, decoding_options, model_options
from git_model.utils.errors import GITError
from git_model.utils.serialize import to_dict

if TYPE_CHECKING:
    from git_model.batch.inputs import Input, InputOptions, Refused
    from git_model.batch.loop import BatchOptions
    from git_model.batch.records import Mode, Record
    from git_model.batch.sinks import Target
    from git_model.captioner import Captioner

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # of processes that are done, with those that are not


@click.command()
@click.argument("source", metavar="SOURCE")
@target_options
@source_options
@wording_options
@run_options
@kohya_options
@model_options
@decoding_options
def batch(
    source: str,
    out: str | None,
    caption_extension: str | None,
    mode: "Mode | None",
    engine: str,
    decoding: Decoding,
    **given: Any,
) -> None:
    """Write a caption, or answers, for every picture and clip in SOURCE.

    SOURCE is a folder, a pattern such as 'photos/*.jpg', a list (.txt, or - for stdin), a table
    (.jsonl, .csv, .parquet) with a column of paths, the original's .tsv, or WebDataset's .tar
    files such as 'train-{000..099}.tar'.

    A run that is interrupted, however it is, goes on with the same command. What cannot be read
    is named in errors.jsonl, and the exit code is 1. Under torchrun each process takes its part.
    """
    from git_model.batch.caption_filters import Wording
    from git_model.batch.inputs import InputOptions
    from git_model.batch.sinks import find_target

    model, search = _taken(ModelOptions, given), _taken(InputOptions, given)
    mode = mode or "skip"
    _refuse_questions(search, mode)
    try:
        wording = _taken(Wording, given)
        target = None if engine == "ray" else find_target(out, caption_extension, source)
    except GITError as error:
        raise click.UsageError(str(error)) from None
    plan = _Plan(source, search, model, decoding, given | {"wording": wording, "mode": mode})
    if target is not None:
        _refuse_sidecars(search, target)
        done = _write_here(plan, target)
    elif out is None or caption_extension is not None or mode in ("append", "prepend"):
        raise click.UsageError("--engine ray writes a new folder of Parquet files: name --out")
    else:
        done = _write_on_cluster(plan, Path(out))
    sys.exit(1 if done["failed"] else 0)


@dataclass(frozen=True)
class _Plan:
    """What is to be done. `options` are the fields of BatchOptions but for the decoding."""

    source: str
    search: "InputOptions"
    model: ModelOptions
    decoding: Decoding
    options: dict[str, Any]

    def inputs(self, git: "Captioner") -> "Iterable[Input | Refused]":
        """What is to be written about; a model without temporal embeddings sees no videos."""
        from git_model.batch.inputs import find_inputs

        return find_inputs(self.source, replace(self.search, videos=git.model.config.frames > 0))

    def options_for(self, git: "Captioner") -> "BatchOptions":
        """The options, with the decoding that a checkpoint brings along."""
        from git_model.batch.loop import BatchOptions

        return BatchOptions(decoding=self.decoding(git.model.config.decoding), **self.options)

    def about_inputs(self) -> "Record":
        """Where the inputs come from, as plain values."""
        search, root = to_dict(self.search), self.search.root
        search["root"] = None if root is None else str(root)
        return {"source": self.source, "dtype": self.model.dtype} | search

    def name(self) -> "Record":
        """The model's name, and which weights it means."""
        from git_model.checkpoints.loading import exact_revision

        name, revision = self.model.model, self.model.revision
        return {"model": name, "revision": exact_revision(name, revision)}


def _write_here(plan: _Plan, target: "Target") -> "Record":
    """A run of this process, or of those that torchrun started."""
    from git_model.batch.run import write_about
    from git_model.utils.distributed import init, stop_on_sigterm

    with init(plan.model.device, PATIENCE) as group, stop_on_sigterm() as stop:
        git = replace(plan.model, device=str(group.device)).open_model()
        done = write_about(
            git,
            plan.inputs(git),
            target,
            plan.options_for(git),
            model=group.broadcast(plan.name()),
            source=plan.about_inputs(),
            group=group,
            stop=stop,
            progress=True,
        )
    if group.is_first:
        click.echo(_summary(done, target))
    return done


def _write_on_cluster(plan: _Plan, out: Path) -> "Record":
    """The same by Ray. What fails is told, too, on stderr."""
    from git_model.batch.ray_engine import write_with_ray
    from git_model.batch.run import editor_of
    from git_model.utils.devices import usable_device

    git = plan.model.open_model()
    options = plan.options_for(git)
    written = failed = 0
    for record in write_with_ray(
        git.model.config,
        plan.model.open_model,
        plan.inputs(git),
        out,
        options,
        editor_of(git, options, plan.name()),
        gpu=usable_device(plan.model.device).type == "cuda",
    ):
        if "error" in record:
            failed += 1
            click.echo(f"Error: {record['error']}", err=True)
        else:
            written += 1
    click.echo(f"{out}: {written} written, {failed} failed")
    return {"failed": failed}


def _taken(kind: type[T], given: dict[str, Any]) -> T:
    """A group of options, taken out of all that were given."""
    names = [item.name for item in fields(kind) if item.name in given]  # type: ignore[arg-type]
    return kind(**{name: given.pop(name) for name in names})


def _refuse_questions(search: "InputOptions", mode: "Mode") -> None:
    if (search.questions or search.question_column) and mode in ("append", "prepend"):
        raise click.UsageError(f"--{mode} is for captions, not for answers")


def _refuse_sidecars(search: "InputOptions", target: "Target") -> None:
    if target.at_once and (len(search.questions) > 1 or search.question_column):
        raise click.UsageError(
            "a text file beside a picture holds no answers to several questions: name a table, "
            "such as --out answers.jsonl"
        )


def _summary(done: "Record", target: "Target") -> str:
    """What was done, as a line for people."""
    from git_model.batch.files import beside

    counts = (
        (done["written"], "written"),
        (done["rejected"], "rejected"),
        (done["failed"], f"failed, see {beside(target.place, 'errors.jsonl')}"),
        (done["kept"], "had a text already"),
        (done["done_before"], "were done before the interruption"),
    )
    told = ", ".join(f"{count} {what}" for count, what in counts if count or what == "written")
    if done["per_second"]:
        busy = f"the model busy {done['model_busy']:.0%} of the time"
        told += f"; {done['per_second']} a second, {busy}"
    return f"{target.place}: {told}"
