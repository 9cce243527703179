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
@option(
    "Input",
    "--tokenizer",
    type=FOLDER,
    help="Folder whose vocabulary replaces SOURCE's, or is added if it has none.",
)
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
    help="This project's format (native), or Hugging Face's.",
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
    help="Activation of the model in a file.  [default: quick_gelu, as OpenAI's models; SigLIP: "
    "gelu_tanh]",
)
@option(
    "--from open_clip",
    "--heads",
    type=click.IntRange(min=1),
    help="Number of heads of the model in a file.  [default: width / 64; SigLIP: by its width]",
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
    help="All settings but the encoder's: a configuration's name or .toml file.  [default: "
    "git_base]",
)
@option("Image encoders", "--seed", type=int, help="Seed of the random weights.  [default: 0]")
def convert(source: str, destination: Path, origin: str | None, **options: Any) -> None:
    """Convert a checkpoint to another format.

    SOURCE is a folder of Hugging Face's format or a hub id, a folder of the original's format with
    snapshot/model.pt, or a folder of this project's format. With --from open_clip, siglip or timm
    it is an image encoder: a file of tensors, a folder or hub id, or the name of a model; the
    result is an untrained model with this encoder. The result is written to the new FOLDER, whole
    or not at all. The sha256 of each written file is printed; this project's format also stores
    them in SHA256SUMS.
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
