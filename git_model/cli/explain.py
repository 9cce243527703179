"""The command `explain`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from git_model.cli.options import (
    Decoding,
    ModelOptions,
    Words,
    decoding_options,
    frame_sampling_option,
    uncompiled_model_options,
)

if TYPE_CHECKING:
    from git_model.preprocessing.video import Sampling

REPORT = "report.html"


@click.command()
@click.argument("image", metavar="IMAGE")
@click.option("--question", "-q", type=Words(), help="Explain the answer to this, not a caption.")
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="The new folder for the report and its pictures.",
)
@click.option("--overwrite", is_flag=True, help="Replace a report that is in DIR.")
@frame_sampling_option
@uncompiled_model_options
@decoding_options
def explain(
    image: str,
    question: str | None,
    out: Path,
    overwrite: bool,
    sampling: "Sampling",
    decoding: Decoding,
    **model: Any,
) -> None:
    """Show how a text about IMAGE came about.

    Writes DIR/report.html, one page that needs no network: what the model saw, who may look at
    whom, where it looked for each word, how each word formed layer by layer, what else it might
    have said, and with --num-beams the branches of the search. Beside it lie pictures of the same as
    PNG files.

    IMAGE may be a clip if the model has temporal embeddings. Needs matplotlib: pip install
    'git-model[plot]'.
    """
    from git_model.explain.explanation import explain as run
    from git_model.explain.pictures import FILES, save_pictures
    from git_model.explain.plotting import require_matplotlib
    from git_model.explain.report import report
    from git_model.utils.atomic import new_folder

    require_matplotlib()
    options = ModelOptions(**model)
    with new_folder(out, replaces=(REPORT, *FILES) if overwrite else ()) as folder:
        git = options.open_model()
        found = run(git, image, question, decoding(git.model.config.decoding), sampling)
        save_pictures(found, folder)
        page = report(found, Path(image).name, options.model)
        (folder / REPORT).write_text(page, encoding="utf-8")
    click.echo(found.caption.text)
    click.echo(str(out / REPORT))
