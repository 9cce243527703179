"""Write a model as the graphs of another engine."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file

from git_model import __version__
from git_model.checkpoints.loading import open_model
from git_model.checkpoints.native import TOKENIZER, folder_of, refuse_exported
from git_model.config import Style
from git_model.export.folder import (
    FILES,
    TORCH_WEIGHTS,
    Engine,
    ExportDtype,
    ExportInfo,
    settings_digest,
    weights_digest,
    write_info,
)
from git_model.export.graphs import programs, signatures
from git_model.export.packages import require_packages
from git_model.model.git import GIT
from git_model.utils.atomic import new_folder
from git_model.utils.errors import GITError
from git_model.utils.serialize import to_dict

NEEDS: dict[Engine, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "torch": (),
}
FOR_FLOAT16 = torch.finfo(torch.float16).max


def export(
    name: str | Path,
    folder: Path,
    *,
    engine: Engine = "onnx",
    dtype: ExportDtype = "float32",
    style: Style | None = None,
    revision: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a model as the graphs of an engine, with its configuration and vocabulary.

    Args:
        name, style, revision: as in `Captioner.from_pretrained`.
        folder: a new folder; it appears whole or not at all.
        engine: "onnx" (ONNX Runtime), "openvino", or "torch" (torch.export programs).
        dtype: "float32"; "float16", with weights of half the size; or "int8".
        overwrite: replace an exported model in `folder`.

    Raises:
        GITError: a package is missing; a weight is not finite, or too large for float16; the folder
            cannot be written; or as in `from_pretrained`.
    """
    if engine == "torch" and dtype == "int8":
        raise GITError("torch programs have no int8: export with --format onnx or openvino")
    refuse_exported(folder_of(name), "exported again")
    require_packages(engine, NEEDS[engine])
    model, tokenizer = open_model(name, style=style, revision=revision)
    _require_weights(model, str(name), dtype)
    info = ExportInfo(
        engine=engine,
        dtype=dtype,
        source=str(name),
        source_digest=weights_digest(model.tensors()),
        settings_digest=settings_digest(to_dict(model.config)),
        version=__version__,
    )
    with new_folder(folder, replaces=FILES if overwrite else ()) as temporary:
        _write_graphs(model, temporary, engine, dtype)
        if tokenizer is not None:
            (temporary / TOKENIZER).write_text(tokenizer.to_json(), encoding="utf-8")
        write_info(temporary, info, model.config)


def _write_graphs(model: GIT, folder: Path, engine: Engine, dtype: ExportDtype) -> None:
    if engine == "torch":
        write_torch(model.half() if dtype == "float16" else model, folder)
        return
    from git_model.export.onnx_files import write_onnx

    if engine == "onnx" and dtype == "float32":
        write_onnx(programs(model), signatures(model.config), folder)
        return
    with TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as source:
        write_onnx(programs(model), signatures(model.config), Path(source))
        rewrite(Path(source), folder, engine, dtype)


def write_torch(model: GIT, folder: Path) -> None:
    """Write each graph as a program NAME.pt2 without weights; these lie in one file, and are the
    first input of every program. `torch.export.save` would store them again in each."""
    weights = dict(sorted(model.tensors().items()))
    save_file(weights, folder / TORCH_WEIGHTS, metadata={"format": "pt"})
    for graph, program in programs(model, weights):
        program.example_inputs = None  # or the weights would be stored as an example of them
        torch.export.save(program, folder / f"{graph}.pt2")


def rewrite(source: Path, folder: Path, engine: Engine, dtype: ExportDtype) -> None:
    """Write the graphs of one folder, ONNX in float32, for another engine or number format."""
    if engine == "onnx":
        from git_model.export.onnx_files import reduce_onnx

        reduce_onnx(source, folder, dtype)
    else:
        from git_model.export.openvino_files import write_openvino

        write_openvino(source, folder, dtype)


def _require_weights(model: GIT, name: str, dtype: ExportDtype) -> None:
    """Refuse weights that no graph can use, and those that become infinite in half precision."""
    limit = FOR_FLOAT16 if dtype != "float32" else torch.finfo(torch.float32).max
    for tensor_name, tensor in model.tensors().items():
        largest = tensor.abs().max()
        if not largest <= limit:
            raise GITError(
                f"{name}: {tensor_name} reaches {largest.item():.3g}, expected finite numbers to "
                f"{limit:.3g} for {dtype}: the checkpoint is damaged, or export it in float32"
            )
