"""The command `convert`."""

from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(path_type=Path)
FORMATS = ("hf", "microsoft", "open_clip")
ONLY_FOR = {
    "microsoft": ("bos_id", "eos_id", "pad_id"),
    "open_clip": ("pretrained", "activation", "heads", "config", "seed"),
}


@click.command()
@click.argument("source", metavar="SOURCE")
@click.argument("destination", type=FOLDER, metavar="FOLDER")
@click.option(
    "--from",
    "origin",
    type=click.Choice(FORMATS),
    help="The format of SOURCE: Hugging Face's, the original's, or an image encoder of open_clip.  "
    "[default: hf or microsoft, as the files tell]",
)
@click.option(
    "--to",
    type=click.Choice(["native", "hf"]),
    default="native",
    show_default=True,
    help="Our own format, or Hugging Face's.",
)
@click.option("--tokenizer", type=FOLDER, help="Folder with the vocabulary, for sources without.")
@click.option("--revision", help="Branch, tag or commit of a hub id.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Number format to store.  [default: as it is]",
)
@click.option("--bos-id", type=int, help="microsoft: id of [CLS].  [default: 101]")
@click.option("--eos-id", type=int, help="microsoft: id of [SEP].  [default: 102]")
@click.option("--pad-id", type=int, help="microsoft: id of [PAD].  [default: 0]")
@click.option(
    "--pretrained", metavar="TAG", help="open_clip: SOURCE is a model's name; take these weights."
)
@click.option(
    "--activation",
    type=click.Choice(["quick_gelu", "gelu"]),
    help="open_clip: what a file was trained with.  [default: quick_gelu, as OpenAI's]",
)
@click.option(
    "--heads",
    type=click.IntRange(min=1),
    help="open_clip: what a file was trained with.  [default: width / 64]",
)
@click.option(
    "--config",
    help="open_clip: everything but the encoder, a configuration's name or .toml file.  "
    "[default: git_base]",
)
@click.option("--seed", type=int, help="open_clip: seed of the new weights.  [default: 0]")
def convert(source: str, destination: Path, origin: str | None, **options: Any) -> None:
    """Convert a checkpoint to another format.

    SOURCE is a Hugging Face folder or hub id, an original folder with snapshot/model.pt, or an
    open_clip file of tensors. The result is written to the new FOLDER, whole or not at all.
    """
    from git_model.checkpoints.loading import converters

    chosen = {name: value for name, value in options.items() if value is not None}
    for name in chosen:
        needed = next((form for form, names in ONLY_FOR.items() if name in names), origin)
        if needed != origin:
            raise click.UsageError(f"--{name.replace('_', '-')} goes with --from {needed}")
    if "revision" in chosen and origin in ("microsoft", "open_clip"):
        raise click.UsageError("--revision is for hub ids of Hugging Face")
    click.echo(converters().convert(source, destination, origin=origin, **chosen))
