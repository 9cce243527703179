"""The command `batch`: captions, or answers, for a whole data set."""

import functools
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from git_model.cli_options import (
    Command,
    Decoding,
    ModelOptions,
    decoding_options,
    model_options,
    text_list,
)
from git_model.settings import GITError, to_dict

if TYPE_CHECKING:
    from git_model.inputs import InputOptions
    from git_model.records import Mode, Record
    from git_model.targets import Target

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # of processes that are done, with those that are not
MODES = {
    "skip": "Leave inputs alone that have a text already.  [default]",
    "overwrite": "Write all texts anew.",
    "append": "Put the new text behind the one that is there.",
    "prepend": "Put it before.",
}


def _grouped(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, which stand in the help in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


source_options = _grouped(
    click.option(
        "--recursive/--no-recursive",
        default=True,
        show_default=True,
        help="Whether the folders in a folder are searched, too.",
    ),
    click.option(
        "--root",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Where the paths in a list or table begin; they may not leave it.  [default: the "
        "file's own folder; of stdin the working folder]",
    ),
    click.option("--path-column", metavar="NAME", help="The column of a table that has the paths."),
    click.option(
        "--question-column", metavar="NAME", help="The column that has a question about each."
    ),
    text_list("question", "Ask this about every input; may come several times.", required=False),
    click.option(
        "--sampling",
        type=click.Choice(["uniform", "ends"]),
        default="uniform",
        show_default=True,
        help="Which frames of a clip a video model sees.",
    ),
)
target_options = _grouped(
    click.option("--out", "-o", metavar="TARGET", help="Where the texts go.  [default: beside]"),
    click.option(
        "--caption-extension",
        "--caption_extension",
        metavar="EXTENSION",
        help="Of the text files beside pictures.  [default: .txt]",
    ),
    *(
        click.option(f"--{mode}", "mode", flag_value=mode, help=meaning)
        for mode, meaning in MODES.items()
    ),
)
wording_options = _grouped(
    click.option(
        "--trigger", default="", metavar="WORD", help="A word that every text begins with."
    ),
    click.option("--prefix", default="", help="Put before every text."),
    click.option("--postfix", default="", help="Put behind every text."),
    click.option(
        "--remove",
        multiple=True,
        metavar="PHRASE",
        help="Take this out of the texts; may come several times.",
    ),
    click.option(
        "--remove-words",
        "--remove_words",
        is_flag=True,
        help="Take out what a picture says in writing, such as 'with the words …'.",
    ),
    click.option(
        "--min-words",
        type=click.IntRange(min=0),
        default=1,
        show_default=True,
        help="Reject shorter texts.",
    ),
    click.option("--max-words", type=click.IntRange(min=1), help="Reject longer texts."),
    click.option(
        "--min-confidence",
        type=click.FloatRange(0, 1),
        default=0.0,
        help="Reject texts below it: the geometric mean of the tokens' probabilities.",
    ),
)
run_options = _grouped(
    click.option(
        "--batch-size",
        "--batch_size",
        type=click.IntRange(min=1),
        default=8,
        show_default=True,
        help="Pictures that are read together.",
    ),
    click.option(
        "--workers",
        "--max_data_loader_n_workers",
        type=click.IntRange(min=0),
        default=1,
        show_default=True,
        help="Processes that open pictures while the model works; 0: none.",
    ),
)


def kohya_options(command: Command) -> Command:
    """Two options of kohya's make_captions_by_git.py that have other names here."""

    @functools.wraps(command)
    def translated(max_length: int | None, model_id: str | None, **given: Any) -> Any:
        if max_length is not None:
            if given["max_new_tokens"] is not None:
                raise click.UsageError("give --max-length or --max-new-tokens, not both")
            given["max_new_tokens"] = max_length - 1
        return command(**given | ({"model": model_id} if model_id else {}))

    return _grouped(
        click.option(
            "--max-length",
            "--max_length",
            type=click.IntRange(min=2),
            help="--max-new-tokens as Transformers counts: with the start token, so one more.",
        ),
        click.option("--model_id", metavar="MODEL", help="The same as --model."),
    )(translated)


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
    from git_model.batch import BatchOptions
    from git_model.batch_run import write_about
    from git_model.inputs import InputOptions, find_inputs
    from git_model.opening import exact_revision
    from git_model.ranks import joined, sigterm
    from git_model.targets import find_target
    from git_model.wording import Wording

    mode = mode or "skip"
    model, search = _taken(ModelOptions, given), _taken(InputOptions, given)
    try:
        wording = _taken(Wording, given)
        target = find_target(out, caption_extension, source)
    except GITError as error:
        raise click.UsageError(str(error)) from None
    _refuse_unfit(mode, search, target)
    with joined(model.device, PATIENCE) as ranks, sigterm() as stop:
        git = replace(model, device=str(ranks.device)).open_model()
        config = git.model.config
        done = write_about(
            git,
            find_inputs(source, replace(search, videos=config.frames > 0)),
            target,
            BatchOptions(decoding=decoding(config.decoding), wording=wording, mode=mode, **given),
            model={
                "model": model.model,
                "revision": ranks.same(exact_revision(model.model, model.revision)),
            },
            source={"source": source, "dtype": model.dtype} | to_dict(search),
            ranks=ranks,
            stop=stop,
            progress=True,
        )
    if ranks.is_first:
        click.echo(_summary(done, target))
    sys.exit(1 if done["failed"] else 0)


def _taken(kind: type[T], given: dict[str, Any]) -> T:
    """A group of options, taken out of all that were given."""
    names = [item.name for item in fields(kind) if item.name in given]  # type: ignore[arg-type]
    return kind(**{name: given.pop(name) for name in names})


def _refuse_unfit(mode: "Mode", search: "InputOptions", target: "Target") -> None:
    """Refuse options that contradict each other."""
    questions = bool(search.questions or search.question_column)
    if questions and mode in ("append", "prepend"):
        raise click.UsageError(f"--{mode} is for captions, not for answers")
    if target.at_once and (len(search.questions) > 1 or search.question_column):
        raise click.UsageError(
            "a text file beside a picture holds no answers to several questions: name a table, "
            "such as --out answers.jsonl"
        )


def _summary(done: "Record", target: "Target") -> str:
    """What was done, as a line for people."""
    counts = (
        (done["written"], "written"),
        (done["rejected"], "rejected"),
        (done["failed"], "failed, see errors.jsonl"),
        (done["kept"], "had a text already"),
        (done["done_before"], "were done before the interruption"),
    )
    told = ", ".join(f"{count} {what}" for count, what in counts if count or what == "written")
    speed = f"{done['per_second']} a second, the model busy {done['model_busy']:.0%} of the time"
    return f"{target.place}: {told}; {speed}"
