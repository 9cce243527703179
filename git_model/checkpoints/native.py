"""Our checkpoint format: a folder of config.json, model.safetensors and tokenizer.json.

Reading is strict and names the wrong tensor. Writing builds the folder beside its place and renames
it, so that nobody ever finds half a checkpoint. Nothing is executed or unpickled.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from git_model.config import GITConfig
from git_model.utils.atomic import new_folder
from git_model.utils.errors import CheckpointError, ConfigError
from git_model.utils.serialize import (
    MAX_FILE_BYTES,
    from_dict,
    is_file,
    is_folder,
    read_mapping,
    to_dict,
)

FORMAT = "git_model 2"
OLD_FORMAT = "git_model 1"  # of versions before 0.2
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"


def folder_of(name: str | Path) -> Path:
    """The folder that a model's name stands for; `demo` is the one inside this package."""
    return Path(__file__).parents[1] / "demo" if name == "demo" else Path(name)


def is_checkpoint(folder: Path) -> bool:
    """Whether this is a folder of our own format, of any version, as far as config.json tells."""
    try:
        return read_mapping(folder / CONFIG).get("format") in (FORMAT, OLD_FORMAT)
    except ConfigError:
        return False


def read_checkpoint(
    folder: Path, *, dtype: torch.dtype | None = torch.float32
) -> tuple[GITConfig, dict[str, Tensor]]:
    """The configuration and the tensors of a folder that `write_checkpoint` wrote.

    Args:
        dtype: of the tensors; None: as they are stored.

    Raises:
        CheckpointError: a file is missing, damaged, or not of this project's format.
    """
    try:
        if not is_folder(folder):
            raise CheckpointError(f"{folder}: no such folder")
        settings = read_mapping(folder / CONFIG)
        version = settings.pop("format", None)
        if version == OLD_FORMAT:
            raise CheckpointError(
                f"{folder / CONFIG}: a checkpoint of git-model 0.1, expected format {FORMAT!r}: "
                "convert its source again, or export it with git-model 0.1 (convert --to hf) and "
                "convert that"
            )
        if version != FORMAT:
            raise CheckpointError(
                f"{folder / CONFIG}: not a git_model checkpoint; bring a Hugging Face or an "
                "original one into this form with `git-model convert`"
            )
        config = from_dict(GITConfig, settings, str(folder / CONFIG))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    return config, dict(read_tensors(folder / WEIGHTS, dtype=dtype))


def read_tensors(path: Path, *, dtype: torch.dtype | None = None) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a .safetensors file, one after the other, memory-mapped where dtype fits.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    require_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (a safe_open handle is not a mapping)
                yield name, file.get_tensor(name).to(dtype)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from None


def require_header(path: Path) -> None:
    """Refuse a .safetensors file whose header cannot be, before a reader takes memory for it.

    Raises:
        CheckpointError: there is no file, or its first 8 bytes, the header's length, claim more
            than the file has or than a model needs.
    """
    if not is_file(path):
        raise CheckpointError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            claimed = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from None
    limit = min(max(size - 8, 0), MAX_FILE_BYTES)
    if not 0 < claimed <= limit:
        raise CheckpointError(
            f"{path}: not a readable safetensors file: its header claims {claimed:,} bytes, "
            f"expected at most {limit:,}"
        )


def write_checkpoint(
    folder: Path,
    config: GITConfig,
    state: Mapping[str, Tensor],
    files: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a checkpoint folder in one step.

    Args:
        files: more text files for the folder, such as tokenizer.json, by name.
        overwrite: replace a checkpoint that is already there.

    Raises:
        GITError: the folder exists and is not empty, or cannot be written.
    """
    settings = {"format": FORMAT, **to_dict(config)}
    names = (CONFIG, WEIGHTS, TOKENIZER, *(files or {}))
    with new_folder(folder, replaces=names if overwrite else ()) as beside:
        (beside / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        for name, text in (files or {}).items():
            (beside / name).write_text(text, encoding="utf-8")
        tensors = {name: tensor.detach().contiguous() for name, tensor in state.items()}
        save_file(tensors, beside / WEIGHTS, metadata={"format": "pt"})
