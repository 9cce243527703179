"""The folder of an exported model: config.json, tokenizer.json, the graphs, SHA256SUMS.

config.json holds the model's whole configuration, and under `export` how the graphs were made.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from git_model.checkpoints.native import (
    CONFIG,
    DIGESTS,
    EXPORT_FORMAT,
    require_digests,
    write_digests,
)
from git_model.config import GITConfig
from git_model.export.graphs import SEE, SEE_CLIP, STEP, signatures
from git_model.preprocessing import tokenizer_files
from git_model.utils.errors import CheckpointError, ConfigError
from git_model.utils.serialize import from_dict, is_file, read_mapping, to_dict

Engine = Literal["onnx", "openvino", "torch"]
ExportDtype = Literal["float32", "float16", "int8"]
SUFFIX: Mapping[Engine, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
# The weights of all graphs together.
WEIGHTS, TORCH_WEIGHTS = "weights.bin", "weights.safetensors"
FILES = (
    CONFIG, DIGESTS, WEIGHTS, TORCH_WEIGHTS, *tokenizer_files.FILES,
    *(f"{graph}{suffix}" for graph in (SEE, SEE_CLIP, STEP) for suffix in SUFFIX.values()),
)  # fmt: skip

GRAPH_SETTINGS = ("encoder", "decoder", "frames", "style")
ONLY_TRAINING = ("dropout", "attention_dropout")
N_BLOCKS, BLOCK = 256, 4096  # of a sampled digest; bytes


@dataclass(frozen=True, kw_only=True)
class ExportInfo:
    """How a model was exported.

    source: the name by which the source was opened.
    source_digest: of the source's weights, see `weights_digest`.
    settings_digest: of the settings that the graphs were made by, see `settings_digest`.
    samples: the `sampled_digest` of each file, but for config.json.
    version: the version of git-model.
    """

    engine: Engine
    dtype: ExportDtype
    source: str
    source_digest: str
    settings_digest: str
    version: str
    samples: dict[str, str] = field(default_factory=dict)

    def files(self, config: GITConfig) -> list[str]:
        """The names of the files that the engine reads."""
        names = [f"{graph}{SUFFIX[self.engine]}" for graph in signatures(config)]
        return [*names, TORCH_WEIGHTS if self.engine == "torch" else WEIGHTS]


def write_info(folder: Path, info: ExportInfo, config: GITConfig) -> None:
    """Write config.json, and SHA256SUMS of everything in the folder."""
    others = sorted({path.name for path in folder.iterdir()} - {CONFIG, DIGESTS})
    info = replace(info, samples={name: sampled_digest(folder / name) for name in others})
    settings = {"format": EXPORT_FORMAT, "export": to_dict(info), **to_dict(config)}
    (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    write_digests(folder)


def read_info(folder: Path, *, integrity: bool = False) -> tuple[ExportInfo, GITConfig]:
    """How a model was exported, and its configuration.

    Args:
        integrity: compare every file with its digest first.

    Raises:
        CheckpointError: the folder has another version, a file is missing, damaged or of another
            export, or the settings are not those of the graphs; the message names the file.
    """
    where = str(folder / CONFIG)
    try:
        settings = read_mapping(folder / CONFIG)
        version = settings.pop("format", None)
        if version != EXPORT_FORMAT:
            raise CheckpointError(
                f"{where}: an exported model of format {version!r}, expected {EXPORT_FORMAT!r}: "
                "export its source again with `git-model export`"
            )
        if integrity:
            require_digests(folder, FILES, "export its source")
        info = from_dict(ExportInfo, settings.pop("export", {}), f"{where}: export")
        config = from_dict(GITConfig, settings, where)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    if info.settings_digest != settings_digest(settings):
        raise CheckpointError(
            f"{where}: its {', '.join(GRAPH_SETTINGS)} are not those of the export, so the graphs "
            "do not follow them: restore the file, or export the source again"
        )
    for name in sorted(info.samples.keys() - set(FILES)):
        raise CheckpointError(f"{where}: samples names {name!r}, expected files of this folder")
    for name in sorted({*info.files(config), *info.samples}):
        _require_sample(folder / name, info.samples.get(name))
    return info, config


def _require_sample(path: Path, sample: str | None) -> None:
    """Refuse a file that is missing, or not the one that was exported."""
    advice = "copy the whole folder, or export its source again"
    if not is_file(path):
        raise CheckpointError(
            f"{path}: no such file, so the exported model is not complete: {advice}"
        )
    if sampled_digest(path) != sample:
        raise CheckpointError(
            f"{path}: not the file that was exported with config.json: it is of another export, or "
            f"was changed or damaged: {advice}"
        )


def settings_digest(settings: Mapping[str, Any]) -> str:
    """The sha256 of the settings that graphs are made by, as config.json has them. The others are
    read at run time, or are for training."""
    tables = {name: settings[name] for name in GRAPH_SETTINGS if name in settings}
    decoder = tables.get("decoder", {})
    tables["decoder"] = {name: decoder[name] for name in decoder if name not in ONLY_TRAINING}
    return sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()


def sampled_digest(path: Path) -> str:
    """The sha256 of a file's size and of 256 blocks of it, or of all of a small file: it tells the
    files of two models apart in milliseconds. `digests_of` reads everything.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        size = path.stat().st_size
        digest = sha256(str(size).encode())
        with path.open("rb") as file:
            if size <= N_BLOCKS * BLOCK:
                digest.update(file.read())
                return digest.hexdigest()
            for number in range(N_BLOCKS):
                file.seek(number * (size - BLOCK) // (N_BLOCKS - 1))
                digest.update(file.read(BLOCK))
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from None
    return digest.hexdigest()


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of tensors, by name, type, shape and values. It does not depend on their file."""
    digest = sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().numpy().data)
    return digest.hexdigest()
