"""The options of `batch`, as decorators: inputs, outputs, filters of captions, the run."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from git_model.cli.options import Command, option, text_list
from git_model.cli.reading import reading_options

MODES = {
    "skip": "Skip inputs that have a text already.  [default]",
    "overwrite": "Replace all texts.",
    "overwrite-if-other": "Replace texts that another model, revision, style or other options "
    "wrote, but not texts that were written or changed by hand.",
    "append": "Put the new text after the old one.",
    "prepend": "Put the new text before the old one.",
}


def in_order(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator; the help lists them in this order."""

    def decorate(command: Command) -> Command:
        for add_option in reversed(options):
            command = add_option(command)
        return command

    return decorate


input_options = in_order(
    option(
        "Input",
        "--recursive/--no-recursive",
        default=True,
        show_default=True,
        help="Search the folders in a folder, too.",
    ),
    option(
        "Input",
        "--root",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Folder that the paths in a list or table are relative to, and may not leave.  "
        "[default: the folder of the list; for stdin the working folder]",
    ),
    option(
        "Input",
        "--path-column",
        metavar="NAME",
        help="Column of a table with the paths, or of Parquet with the images.",
    ),
    option(
        "Input",
        "--question-column",
        metavar="NAME",
        help="Column of a table with a question about each image.",
    ),
    text_list(
        "question", "A question about every image; may be given several times.", required=False
    ),
    reading_options,
)
output_options = in_order(
    option(
        "Output",
        "--out",
        "-o",
        metavar="OUT",
        help="A folder for text files, or one file: .jsonl, .csv, .parquet, .tsv, .tar.  "
        "[default: text files beside the images]",
    ),
    option(
        "Output",
        "--caption-extension",
        "--caption_extension",
        metavar="EXTENSION",
        help="Suffix of the text files beside images.  [default: .txt]",
    ),
    option(
        "Output",
        "--csv-safe/--no-csv-safe",
        default=True,
        show_default=True,
        help="In CSV, put an apostrophe before texts that a spreadsheet would run as formulas.",
    ),
    option(
        "Output",
        "--preview",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="SHEET",
        help="Write no captions: draw the model's input of the first images on one sheet, such as "
        "sheet.png.",
    ),
    option(
        "Output",
        "--preview-count",
        type=click.IntRange(1, 1000),
        default=100,
        show_default=True,
        help="Number of inputs on the sheet of --preview.",
    ),
    *(
        option("Output", f"--{mode}", "mode", flag_value=mode, help=meaning)
        for mode, meaning in MODES.items()
    ),
)
filter_options = in_order(
    option("Captions", "--trigger", default="", metavar="WORD", help="Begin every text with WORD."),
    option("Captions", "--prefix", default="", help="Put this before every text."),
    option("Captions", "--postfix", default="", help="Put this after every text."),
    option(
        "Captions",
        "--remove",
        multiple=True,
        metavar="PHRASE",
        help="Remove this from the texts; may be given several times.",
    ),
    option(
        "Captions",
        "--remove-words",
        "--remove_words",
        is_flag=True,
        help="Remove phrases about writing in the image, such as 'with the words …'.",
    ),
    option(
        "Captions",
        "--min-words",
        type=click.IntRange(min=0),
        default=1,
        show_default=True,
        help="Reject shorter texts.",
    ),
    option("Captions", "--max-words", type=click.IntRange(min=1), help="Reject longer texts."),
    option(
        "Captions",
        "--min-confidence",
        type=click.FloatRange(0, 1),
        default=0.0,
        help="Reject texts of a lower confidence: the geometric mean of the tokens' probabilities.",
    ),
)
run_options = in_order(
    option(
        "Run",
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="ray: on the cluster that RAY_ADDRESS names, into a new folder of Parquet files.",
    ),
    option(
        "Run",
        "--batch-size",
        "--batch_size",
        type=click.IntRange(min=1),
        default=8,
        show_default=True,
        help="Images that are encoded together.",
    ),
    option(
        "Run",
        "--workers",
        "--max_data_loader_n_workers",
        type=click.IntRange(min=0),
        default=1,
        show_default=True,
        help="Processes that load images while the model works; 0: none.",
    ),
)


def kohya_options(command: Command) -> Command:
    """Two options of kohya's make_captions_by_git.py that have other names here."""

    @functools.wraps(command)
    def translated(kohya_max_length: int | None, model_id: str | None, **values: Any) -> Any:
        if kohya_max_length is not None:
            if values["max_new_tokens"] is not None:
                raise click.UsageError("give --max_length or --max-new-tokens, not both")
            values["max_new_tokens"] = kohya_max_length - 1  # less the start token
        return command(**values | ({"model": model_id} if model_id else {}))

    return in_order(
        option("Model", "--model_id", metavar="MODEL", help="kohya's name for --model."),
        option(
            "Decoding",
            "--max_length",
            "kohya_max_length",
            type=click.IntRange(min=2),
            help="kohya's name for --max-new-tokens; it counts the start token.",
        ),
    )(translated)
