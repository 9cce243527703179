"""The command `caption`."""

from typing import TYPE_CHECKING

import click

from git_model.cli.images import ImageRun, Record, as_record, image_command
from git_model.cli.options import Decoding, GroupedCommand

if TYPE_CHECKING:
    from git_model.captioner import BatchScene


@click.command(cls=GroupedCommand)
@image_command("caption", decoding=True)
def caption(run: ImageRun, decoding: Decoding) -> None:
    """Caption each IMAGE.

    If a file cannot be read, a line on stderr says why, the other images are captioned, and the
    exit code is 1.
    """
    captioner = run.open_model()
    options = decoding(captioner.model.config.decoding)

    def records(scene: "BatchScene") -> list[list[Record]]:
        images = captioner.generate(scene, [[None]] * len(scene), options)
        return [[as_record("caption", text) for text in texts] for [texts] in images]

    run.report(captioner, records, "{caption}  (log p {logprob:.3f})")
