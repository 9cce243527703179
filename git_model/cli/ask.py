"""The command `ask`."""

from typing import TYPE_CHECKING

import click

from git_model.cli.images import ImageRun, Record, as_record, image_command
from git_model.cli.options import Decoding, GroupedCommand, text_list

if TYPE_CHECKING:
    from git_model.captioner import BatchScene


@click.command(cls=GroupedCommand)
@text_list("question", "A question; may be given several times.")
@image_command("ask", decoding=True)
def ask(run: ImageRun, questions: list[str], decoding: Decoding) -> None:
    """Answer every question about each IMAGE.

    An image is encoded once for all questions. If a file cannot be read, a line on stderr says why,
    the questions are answered for the other images, and the exit code is 1.
    """
    captioner = run.open_model()
    options = decoding(captioner.model.config.decoding)

    def records(scene: "BatchScene") -> list[list[Record]]:
        return [
            [
                {"question": question} | as_record("answer", answer)
                for question, answers in zip(questions, row, strict=True)
                for answer in answers
            ]
            for row in captioner.generate(scene, [questions] * len(scene), options)
        ]

    run.report(captioner, records, "{question}  {answer}  (log p {logprob:.3f})")
