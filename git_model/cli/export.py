"""The command `export`."""

from pathlib import Path
from typing import Any

import click

from git_model.cli.options import GroupedCommand, option


@click.command(cls=GroupedCommand)
@click.argument("model", metavar="MODEL")
@click.argument("folder", type=click.Path(path_type=Path), metavar="FOLDER")
@option("Input", "--revision", help="Branch, tag or commit of a hub id.")
@option(
    "Input",
    "--style",
    type=click.Choice(["huggingface", "microsoft"]),
    help="Export the checkpoint as this reference runs it.  [default: the checkpoint's style]",
)
@option(
    "Output",
    "--format",
    "engine",
    type=click.Choice(["onnx", "openvino", "torch"]),
    default="onnx",
    show_default=True,
    help="For ONNX Runtime, for OpenVINO, or as programs of torch.export.",
)
@option(
    "Output",
    "--dtype",
    type=click.Choice(["float32", "float16", "int8"]),
    default="float32",
    show_default=True,
    help="Number format of the weights. With int8 only matrix products are int8; embeddings "
    "and the patch convolution are float16.",
)
@option("Output", "--overwrite", is_flag=True, help="Replace an exported model in FOLDER.")
def export(model: str, folder: Path, **options: Any) -> None:
    """Export MODEL, a checkpoint's folder or hub id, for use without PyTorch.

    The new FOLDER, which appears whole or not at all, holds two graphs (three for a video model),
    one file with all weights, the configuration, the vocabulary and the digest of each file. Except
    with --format torch, its name works as --model of caption, ask, score, classify, batch, evaluate
    and page, and `git-model verify FOLDER` compares it with MODEL.

    Needs the extra of the engine: pip install 'git-model[onnx]' or 'git-model[openvino]'.
    """
    if (options["engine"], options["dtype"]) == ("torch", "int8"):
        raise click.UsageError("torch programs have no int8: choose --format onnx or openvino")
    from git_model.export.write import export as write

    write(model, folder, **options)
    size = sum(path.stat().st_size for path in folder.iterdir())
    click.echo(f"{folder}: {size / 1e6:,.1f} MB")
