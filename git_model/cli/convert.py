"""The command `convert`."""

from pathlib import Path
from typing import Any

import click

from git_model.cli.options import GroupedCommand, option

FOLDER = click.Path(path_type=Path)
ENCODERS = ("open_clip", "siglip", "timm")
FORMATS = ("hf", "microsoft", *ENCODERS)
ONLY_FOR = {
    **dict.fromkeys(("bos_id", "eos_id", "pad_id"), ("microsoft",)),
    **dict.fromkeys(("pretrained", "activation", "heads"), ("open_clip",)),
    **dict.fromkeys(("config", "seed"), ENCODERS),
    "weights": ("timm",),
}


@click.command(cls=GroupedCommand)
@click.argument("source", metavar="SOURCE")
@click.argument("destination", type=FOLDER, metavar="FOLDER")
@option(
    "Input",
    "--from",
    "origin",
    type=click.Choice(FORMATS),
    help="Format of SOURCE: Hugging Face's or the original's, or an image encoder of open_clip, "
    "SigLIP or timm.  [default: hf or microsoft, by the files]",
)
@option("Input", "--revision", help="Branch, tag or commit of a hub id.")
@option("Input", "--tokenizer", type=FOLDER, help="Folder with the vocabulary, if SOURCE has none.")
@option(
    "Input",
    "--merge",
    type=FOLDER,
    metavar="ADAPTER",
    help="Merge this adapter, which was trained on SOURCE, into its weights.",
)
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
    type=click.Choice(["quick_gelu", "gelu", "gelu_tanh"]),
    help="Activation of the model in a file.  [default: quick_gelu, as OpenAI's; SigLIP's: "
    "gelu_tanh]",
)
@option(
    "--from open_clip",
    "--heads",
    type=click.IntRange(min=1),
    help="Number of heads of the model in a file.  [default: width / 64; SigLIP's: by its width]",
)
@option(
    "--from timm",
    "--weights",
    type=FOLDER,
    metavar="FILE",
    help="SOURCE's weights, in a .safetensors file.  [default: downloaded]",
)
@option(
    "Image encoders",
    "--config",
    help="Everything but the encoder: a configuration's name or .toml file.  [default: git_base]",
)
@option("Image encoders", "--seed", type=int, help="Seed of the random weights.  [default: 0]")
def convert(source: str, destination: Path, origin: str | None, **options: Any) -> None:
    """Convert a checkpoint to another format.

    SOURCE is a Hugging Face folder or hub id, or an original folder with snapshot/model.pt. Of an
    image encoder it is an open_clip file of tensors, a SigLIP's folder or hub id, or the name of a
    model of timm; it becomes that of an untrained model. The result is written to the new FOLDER,
    whole or not at all. The sha256 of each written file is printed; our own format stores these in
    SHA256SUMS.
    """
    from git_model.checkpoints.loading import converters

    values = {name: value for name, value in options.items() if value is not None}
    for name in values:
        required = ONLY_FOR.get(name, (origin,))
        if origin not in required:
            formats = " or ".join(map(str, required))
            raise click.UsageError(f"--{name.replace('_', '-')} goes with --from {formats}")
    if "revision" in values and origin in ("microsoft", "open_clip", "timm"):
        raise click.UsageError("--revision is for hub ids of Hugging Face")
    for name in ("activation", "heads"):
        if name in values and "pretrained" in values:
            raise click.UsageError(f"--{name} is for files; a model with --pretrained has its own")
    click.echo(converters().convert(source, destination, origin=origin, **values))
