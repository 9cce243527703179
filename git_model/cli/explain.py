"""The command `explain`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from git_model.checkpoints.defaults import model_help
from git_model.cli.images import require_files
from git_model.cli.options import (
    Decoding,
    GroupedCommand,
    ModelOptions,
    Words,
    chosen_model,
    decoding_options,
    model_options,
    option,
)
from git_model.cli.reading import Reading, reading_options
from git_model.utils.errors import one_line

if TYPE_CHECKING:
    from git_model.checkpoints.defaults import Task

REPORT = "report.html"


@click.command(cls=GroupedCommand)
@click.argument("image", metavar="IMAGE")
@option(
    "Input",
    "--question",
    "-q",
    type=Words(),
    help="Explain the answer to this question, not a caption.",
)
@reading_options
@model_options(model_help("caption"), can_compile=False)
@decoding_options
@option(
    "Measurement",
    "--occlusion/--no-occlusion",
    default=True,
    show_default=True,
    help="Blank each patch in turn and measure the effect; the encoder runs once for each patch.",
)
@option(
    "Output",
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="New folder for the report and its figures.",
)
@option("Output", "--overwrite", is_flag=True, help="Replace a report in DIR.")
def explain(
    image: str,
    question: str | None,
    out: Path,
    overwrite: bool,
    occlusion: bool,
    reading: Reading,
    decoding: Decoding,
    **model: Any,
) -> None:
    """Explain a text about IMAGE: attention, alternatives, beams.

    Writes DIR/report.html, one page that needs no network: the model's input; the attention of each
    generated token to the image and to the text (by layer and head, averaged, and as rollout); how
    much less probable a token becomes when a patch is blank (occlusion); the alternatives; the
    logit lens; the attention of text to text and in the encoder; the attention mask; and with
    --num-beams the beam tree. The same figures are written beside it as PNG files.

    IMAGE may be a clip if the model has temporal embeddings. Needs matplotlib: pip install
    'git-model[plot]'.
    """
    from git_model.explain.explanation import explain as run
    from git_model.explain.figures import FILES, require_matplotlib, save_figures
    from git_model.explain.report import report
    from git_model.utils.atomic import new_folder

    require_matplotlib()
    require_files([image])
    task: Task = "caption" if question is None else "ask"
    model["model"] = chosen_model(model["model"], task, [image])
    options = ModelOptions(**model)
    with new_folder(out, replaces=(REPORT, *FILES) if overwrite else ()) as folder:
        captioner = options.open_model()
        generation = decoding(captioner.model.config.decoding)
        ways = reading.options_for(captioner.model)
        explanation = run(captioner, image, question, generation, ways, occlude=occlusion)
        save_figures(explanation, folder)
        html = report(explanation, Path(image).name, options.model)
        (folder / REPORT).write_text(html, encoding="utf-8")
    if explanation.image_warning is not None:
        click.echo(f"Warning: {one_line(image)}: {explanation.image_warning}", err=True)
    click.echo(explanation.caption.text)
    click.echo(str(out / REPORT))
