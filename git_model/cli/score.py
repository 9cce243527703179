"""The command `score`."""

from typing import TYPE_CHECKING

import click

from git_model.cli.images import ImageRun, Record, as_record, image_command
from git_model.cli.options import GroupedCommand, question_option, text_list

if TYPE_CHECKING:
    from git_model.captioner import BatchScene


@click.command(cls=GroupedCommand)
@text_list("text", "A text to score; may be given several times.")
@question_option
@image_command("score")
def score(run: ImageRun, texts: list[str], question: str | None) -> None:
    """Compute the exact log p(text | image) of each text for each IMAGE.

    If a file cannot be read, a line on stderr says why, the texts are scored for the other images,
    and the exit code is 1.
    """
    captioner = run.open_model()

    def records(scene: "BatchScene") -> list[list[Record]]:
        rows = captioner.score(scene, texts, question=question)
        return [[as_record("text", text) for text in row] for row in rows]

    run.report(captioner, records, "{text}  (log p {logprob:.3f})")
