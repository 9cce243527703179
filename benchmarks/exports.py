"""A model exported for each engine and number format that the benchmarks compare.

    python benchmarks/exports.py FOLDER [--model demo]

Other benchmarks take FOLDER as `--exports`, so that the graphs are written once.
"""

from dataclasses import replace
from pathlib import Path
from shutil import copyfile

import click

from git_model.checkpoints.loading import open_model
from git_model.checkpoints.native import TOKENIZER
from git_model.export.folder import (
    Engine,
    ExportDtype,
    read_info,
    weights_digest,
    write_info,
)
from git_model.export.write import export, rewrite
from git_model.utils.atomic import new_folder

VARIANTS: dict[str, tuple[Engine, ExportDtype]] = {
    "ONNX Runtime, float32": ("onnx", "float32"),
    "ONNX Runtime, int8": ("onnx", "int8"),
    "OpenVINO, float32": ("openvino", "float32"),
    "OpenVINO, int8": ("openvino", "int8"),
}


def exports(model: str, root: Path) -> dict[str, Path]:
    """The folder of each variant, in `root`. Those that are missing are written.

    The slow part, from PyTorch to ONNX, is done once; the other variants are made from it.
    """
    folders = {name: root / f"{engine}-{dtype}" for name, (engine, dtype) in VARIANTS.items()}
    whole, *others = folders.values()
    if not whole.exists():
        root.mkdir(parents=True, exist_ok=True)
        export(model, whole)
    info, _ = read_info(whole)
    if info.source_digest != weights_digest(open_model(model)[0].tensors()):
        raise click.ClickException(
            f"{whole}: exported from other weights than {model}'s: delete it"
        )
    for folder, (engine, dtype) in zip(others, list(VARIANTS.values())[1:], strict=True):
        if not folder.exists():
            write_variant(whole, folder, engine, dtype)
    return folders


def write_variant(whole: Path, folder: Path, engine: Engine, dtype: ExportDtype) -> None:
    """Write another variant of a folder that has ONNX in float32."""
    info, config = read_info(whole)
    with new_folder(folder) as temporary:
        rewrite(whole, temporary, engine, dtype)
        copyfile(whole / TOKENIZER, temporary / TOKENIZER)
        write_info(temporary, replace(info, engine=engine, dtype=dtype), config)


def megabytes(folder: Path) -> float:
    """The size of all files in a folder."""
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--model", default="demo", show_default=True)
def main(folder: Path, model: str) -> None:
    """Write the variants that FOLDER does not have yet, and print their sizes."""
    for name, path in exports(model, folder).items():
        print(f"{name}: {path}, {megabytes(path):.1f} MB")


if __name__ == "__main__":
    main()
