"""A model by its name: the built-in one, a folder of any known form, or a hub id."""

from hashlib import file_digest, sha256
from pathlib import Path

import torch
from torch import Tensor

from git_model.checkpoint import TOKENIZER, folder_of, is_checkpoint, read_checkpoint
from git_model.config import GITConfig, Style
from git_model.devices import dtype_of, usable_device
from git_model.linear import pack, pack_weight
from git_model.model import GIT
from git_model.settings import GITError
from git_model.tokenizer import Tokenizer

WEIGHT_FILES = (".safetensors", ".bin", ".pt")


def open_model(
    name: str | Path,
    *,
    dtype: str | torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    style: Style | None = None,
    compile: bool = False,
) -> tuple[GIT, Tokenizer | None]:
    """The model of this name, in eval mode, and its vocabulary if it has one.

    Arguments as in `Captioner.from_pretrained`.
    """
    place = usable_device(device)
    config, state, tokenizer = _read(name, dtype_of(dtype, place), revision)
    if tokenizer is not None:
        tokenizer.check_fit(config)
    if style is not None:
        config = config.with_style(style)
    model = GIT.from_state(config, state, str(name)).to(place)
    if compile:
        model.encoder.compile()
    pack(model.decoder)
    pack_weight(model.decoder.words)
    return model, tokenizer


def exact_revision(name: str, revision: str | None) -> str:
    """Which weights a name stands for, for good: of a hub id the commit, of a folder a digest.

    Args:
        revision: of a hub id, as in `open_model`.
    """
    folder = folder_of(name)
    if not folder.is_dir():
        from weights_convert.hub import find_folder

        return find_folder(name, revision).name  # the hub's library names snapshots by their commit
    digest = sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in WEIGHT_FILES):
        with path.open("rb") as file:
            digest.update(file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:12]}"


def _read(
    name: str | Path, dtype: torch.dtype, revision: str | None
) -> tuple[GITConfig, dict[str, Tensor], Tokenizer | None]:
    """Configuration, tensors and vocabulary of any checkpoint that we know."""
    folder = folder_of(name)
    if is_checkpoint(folder):
        if revision is not None:
            raise GITError(f"{name}: a revision is for hub ids, this is a folder")
        has_words = (folder / TOKENIZER).is_file()
        config, state = read_checkpoint(folder, dtype=dtype)
        return config, state, Tokenizer.from_folder(folder) if has_words else None
    from weights_convert import read_foreign  # only for the checkpoints of others

    return read_foreign(str(name), dtype=dtype, revision=revision)
