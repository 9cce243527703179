"""The options of `batch`, as decorators: where texts come from, where they go, how they read."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from git_model.cli.options import Command, frame_sampling_option, text_list

MODES = {
    "skip": "Leave inputs alone that have a text already.  [default]",
    "overwrite": "Write all texts anew.",
    "append": "Put the new text behind the one that is there.",
    "prepend": "Put it before.",
}


def grouped(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, which stand in the help in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


source_options = grouped(
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
    frame_sampling_option,
)
target_options = grouped(
    click.option(
        "--out",
        "-o",
        metavar="TARGET",
        help="A folder for text files, or one file: .jsonl, .csv, .parquet, .tsv, .tar.  "
        "[default: text files beside the pictures]",
    ),
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
wording_options = grouped(
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
run_options = grouped(
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="ray: on the cluster that RAY_ADDRESS names, into a new folder of Parquet files.",
    ),
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

    return grouped(
        click.option(
            "--max-length",
            "--max_length",
            type=click.IntRange(min=2),
            help="--max-new-tokens as Transformers counts: with the start token, so one more.",
        ),
        click.option("--model_id", metavar="MODEL", help="The same as --model."),
    )(translated)
