"""The command `verify`."""

import sys
from pathlib import Path

import click


@click.command()
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="Number format to compare in.",
)
@click.option("--revision", help="Branch, tag or commit of a hub id.")
@click.option(
    "--released",
    metavar="NAME",
    help="The released checkpoint it is, such as git-base-coco.  [default: by its id]",
)
@click.option(
    "--image",
    type=click.Path(path_type=Path),
    help="The image of its published logits.  [default: downloaded]",
)
@click.argument("model", metavar="MODEL")
def verify(
    model: str, image: Path | None, released: str | None, revision: str | None, dtype: str
) -> None:
    """Compare MODEL, a folder or a hub id, with its references, stage by stage.

    The exit code is 1 if any difference is above its tolerance.
    """
    if image is not None and released is None and not model.startswith("microsoft/"):
        raise click.UsageError("--image is for released checkpoints, say which with --released")
    from git_model.captioner import Captioner
    from git_model.checkpoints.loading import converters

    git = Captioner.from_pretrained(model, revision=revision, dtype=dtype).model
    checks = converters().verify(git, model, revision=revision, released=released, image=image)
    n_failed = 0
    for check in checks:
        click.echo(str(check))
        n_failed += check.failed
    sys.exit(1 if n_failed else 0)
