"""The command `convert`."""

from pathlib import Path
from typing import Any

import click

from git_model.cli.options import GroupedCommand, option

FOLDER = click.Path(path_type=Path)
FORMATS = ("hf", "microsoft", "open_clip")
ONLY_FOR = {
    "microsoft": ("bos_id", "eos_id", "pad_id"),
    "open_clip": ("pretrained", "activation", "heads", "config", "seed"),
}


@click.command(cls=GroupedCommand)
@click.argument("source", metavar="SOURCE")
@click.argument("destination", type=FOLDER, metavar="FOLDER")
@option(
    "Input",
    "--from",
    "origin",
    type=click.Choice(FORMATS),
    help="Format of SOURCE: Hugging Face's, the original's, or an image encoder of open_clip.  "
    "[default: hf or microsoft, by the files]",
)
@option("Input", "--revision", help="Branch, tag or commit of a hub id.")
@option("Input", "--tokenizer", type=FOLDER, help="Folder with the vocabulary, if SOURCE has none.")
@option(
    "Output",
    "--to",
    type=click.Choice(["native", "hf"]),
    default="native",
    show_default=True,
    help="Our own format, or Hugging Face's.",
)
@option(
    "Output",
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Number format to store.  [default: SOURCE's]",
)
@option("--from microsoft", "--bos-id", type=int, help="Id of [CLS].  [default: 101]")
@option("--from microsoft", "--eos-id", type=int, help="Id of [SEP].  [default: 102]")
@option("--from microsoft", "--pad-id", type=int, help="Id of [PAD].  [default: 0]")
@option(
    "--from open_clip",
    "--pretrained",
    metavar="TAG",
    help="SOURCE is a model's name; load the weights with this tag.",
)
@option(
    "--from open_clip",
    "--activation",
    type=click.Choice(["quick_gelu", "gelu"]),
    help="Activation of the model in a file.  [default: quick_gelu, as OpenAI's]",
)
@option(
    "--from open_clip",
    "--heads",
    type=click.IntRange(min=1),
    help="Number of heads of the model in a file.  [default: width / 64]",
)
@option(
    "--from open_clip",
    "--config",
    help="Everything but the encoder: a configuration's name or .toml file.  [default: git_base]",
)
@option("--from open_clip", "--seed", type=int, help="Seed of the random weights.  [default: 0]")
def convert(source: str, destination: Path, origin: str | None, **options: Any) -> None:
    """Convert a checkpoint to another format.

    SOURCE is a Hugging Face folder or hub id, an original folder with snapshot/model.pt, or an
    open_clip file of tensors. The result is written to the new FOLDER, whole or not at all. The
    sha256 of each written file is printed; our own format stores these in SHA256SUMS.
    """
    from git_model.checkpoints.loading import converters

    values = {name: value for name, value in options.items() if value is not None}
    for name in values:
        required = next((format_ for format_, names in ONLY_FOR.items() if name in names), origin)
        if required != origin:
            raise click.UsageError(f"--{name.replace('_', '-')} goes with --from {required}")
    if "revision" in values and origin in ("microsoft", "open_clip"):
        raise click.UsageError("--revision is for hub ids of Hugging Face")
    for name in ("activation", "heads"):
        if name in values and "pretrained" in values:
            raise click.UsageError(f"--{name} is for files; a model with --pretrained has its own")
    click.echo(converters().convert(source, destination, origin=origin, **values))
