"""The command `classify`."""

from typing import TYPE_CHECKING

import click

from git_model.cli.images import ImageRun, Record, as_record, image_command
from git_model.cli.options import GroupedCommand, Template, option, question_option, text_list

if TYPE_CHECKING:
    from git_model.captioner import BatchScene

TOP = 5  # labels that are printed


@click.command(cls=GroupedCommand)
@text_list("label", "A label; may be given several times.", distinct=True)
@option(
    "Input",
    "--template",
    type=Template(),
    default="{}",
    help="The text that is made of a label, such as 'a photo of a {}'.",
)
@question_option
@option(
    "Output",
    "--top",
    type=click.IntRange(min=1),
    help=f"Labels to print for each image.  [default: {TOP}]",
)
@option(
    "Decoding",
    "--generate",
    is_flag=True,
    help="Generate one of the labels token by token, as in the paper, instead of scoring all.",
)
@image_command("classify")
def classify(
    run: ImageRun,
    labels: list[str],
    template: str,
    question: str | None,
    top: int | None,
    generate: bool,
) -> None:
    """Rank labels for each IMAGE, by exact probabilities among these labels.

    If a file cannot be read, a line on stderr says why, the other images are classified, and the
    exit code is 1.
    """
    if generate and top is not None:
        raise click.UsageError("--generate gives one label: leave out --top")
    captioner = run.open_model()

    def generated(scene: "BatchScene") -> list[list[Record]]:
        best = captioner.classify(
            scene, labels, template=template, question=question, generate=True
        )
        return [[as_record("label", text)] for text in best]

    def ranked(scene: "BatchScene") -> list[list[Record]]:
        rows = captioner.classify(scene, labels, template=template, question=question)
        return [[vars(label) for label in row[: top or TOP]] for row in rows]

    if generate:
        run.report(captioner, generated, "{label}  (log p {logprob:.3f})")
    else:
        run.report(captioner, ranked, "{label}  {probability:.1%}  (log p {logprob:.3f})")
