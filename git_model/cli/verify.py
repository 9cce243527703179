"""The command `verify`."""

import sys
from pathlib import Path

import click

from git_model.cli.options import GroupedCommand, option
from git_model.utils.errors import GITError


@click.command(cls=GroupedCommand)
@option("Model", "--revision", help="Branch, tag or commit of a hub id.")
@option(
    "Model",
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    help="Number format of the comparison.  [default: float32]",
)
@option(
    "Published logits",
    "--released",
    metavar="NAME",
    help="Name of the released checkpoint, such as git-base-coco.  [default: from the hub id]",
)
@option(
    "Published logits",
    "--image",
    type=click.Path(path_type=Path),
    help="The image that its published logits belong to.  [default: downloaded]",
)
@option(
    "Exported models",
    "--source",
    metavar="MODEL",
    help="The checkpoint to compare an exported MODEL with.  [default: its source]",
)
@click.argument("model", metavar="MODEL")
def verify(
    model: str,
    image: Path | None,
    released: str | None,
    revision: str | None,
    dtype: str | None,
    source: str | None,
) -> None:
    """Check MODEL, a folder or a hub id, and compare it with its references, stage by stage.

    It checks that all weights are finite and that the vocabulary fits, and prints the sha256 of
    every file. Then it compares this implementation with Transformers, with published logits, and
    its cache with one uncached pass over image and text.

    A comparison loads the same file on both sides: it finds mistakes of an implementation, but not
    a flipped weight or swapped layers in the file. Digests find those: compare them with the
    publisher's, or let --integrity of other commands compare them with SHA256SUMS, which `convert`
    writes.

    A folder that `git-model export` wrote is compared with its source instead: image prefix,
    logits, greedy and beam search, scores.

    The exit code is 1 if a check fails or a difference is above its tolerance.
    """
    if image is not None and released is None and not model.startswith("microsoft/"):
        raise click.UsageError("--image is for released checkpoints, say which with --released")
    from git_model.checkpoints.loading import converters, open_model
    from git_model.checkpoints.native import is_exported

    if is_exported(Path(model)):
        if image is not None or released is not None or dtype is not None:
            raise click.UsageError(
                "--image, --released and --dtype are for checkpoints, this is exported"
            )
        sys.exit(_compare_with_source(Path(model), source, revision))
    if source is not None:
        raise click.UsageError("--source is for exported models, this is a checkpoint")
    network, tokenizer = open_model(model, revision=revision, dtype=dtype or "float32")
    n_failed = 0
    for check in converters().verify(
        network, model, tokenizer=tokenizer, revision=revision, released=released, image=image
    ):
        click.echo(str(check))
        n_failed += check.failed
    sys.exit(1 if n_failed else 0)


def _compare_with_source(folder: Path, source: str | None, revision: str | None) -> int:
    """Print the comparison of an exported model with its source; the exit code."""
    from git_model.checkpoints.loading import open_model
    from git_model.checkpoints.native import folder_of, refuse_exported
    from git_model.export.model import open_exported
    from git_model.export.verification import verify as compare

    exported = open_exported(folder, integrity=True)
    name = source or exported.info.source
    refuse_exported(folder_of(name), "a source")
    try:
        network, _ = open_model(name, revision=revision, style=exported.config.style)
    except GITError as error:
        hint = f"; {folder} was exported from {name}: if that was moved, name it with --source"
        raise GITError(f"{error}{'' if source else hint}") from None
    n_failed = 0
    for comparison in compare(exported, network):
        click.echo(str(comparison))
        n_failed += comparison.failed
    return 1 if n_failed else 0
