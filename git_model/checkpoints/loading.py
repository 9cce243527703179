"""A model by its name: the built-in model, a folder of any supported format, or a hub id."""

from hashlib import sha256
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from git_model.checkpoints.native import (
    TOKENIZER,
    folder_of,
    is_checkpoint,
    read_checkpoint,
    sha256_of,
)
from git_model.config import GITConfig, Style
from git_model.model.git import GIT
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.utils.devices import dtype_of, usable_device
from git_model.utils.errors import CheckpointError, GITError
from git_model.utils.kernels import pack_weights

WEIGHT_FILES = (".safetensors", ".bin", ".pt")


def open_model(
    name: str | Path,
    *,
    dtype: str | torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    style: Style | None = None,
    integrity: bool = False,
    compile: bool = False,
) -> tuple[GIT, Tokenizer | None]:
    """The model of this name, in eval mode, and its vocabulary, or None.

    Arguments as in `Captioner.from_pretrained`.
    """
    target = usable_device(device)
    config, state, tokenizer = _read(name, dtype_of(dtype, target), revision, integrity)
    if tokenizer is not None:
        tokenizer.check_fit(config)
    if style is not None:
        config = config.with_style(style)
    model = GIT.from_state(config, state, str(name)).to(target)
    if compile:
        model.encoder.compile()
    pack_weights(model.decoder)
    return model, tokenizer


def exact_revision(name: str, revision: str | None) -> str:
    """Which weights a name stands for: of a hub id the commit, of a folder a digest of its weights.

    Args:
        revision: of a hub id, as in `open_model`.
    """
    folder = folder_of(name)
    if not folder.is_dir():
        # The hub's library names snapshot folders by their commit.
        return str(converters().find_folder(str(name), revision).name)
    digest = sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in WEIGHT_FILES):
        digest.update(bytes.fromhex(sha256_of(path)))
    return f"sha256:{digest.hexdigest()[:12]}"


def _read(
    name: str | Path, dtype: torch.dtype, revision: str | None, integrity: bool
) -> tuple[GITConfig, dict[str, Tensor], Tokenizer | None]:
    """Configuration, tensors and vocabulary of a checkpoint of any supported format."""
    folder = folder_of(name)
    if is_checkpoint(folder):
        if revision is not None:
            raise GITError(f"{name}: a revision is for hub ids, this is a folder")
        has_tokenizer = (folder / TOKENIZER).is_file()
        config, state = read_checkpoint(folder, dtype=dtype, integrity=integrity)
        return config, state, Tokenizer.from_folder(folder) if has_tokenizer else None
    if integrity:
        raise CheckpointError(
            f"{name}: --integrity checks a folder that `git-model convert` wrote, with the digests "
            "of its files: convert the checkpoint first"
        )
    checkpoint = converters().read_foreign(str(name), dtype=dtype, revision=revision)
    return checkpoint.config, checkpoint.state, checkpoint.tokenizer


def converters() -> ModuleType:
    """The package that converts the formats of other projects: imported here alone, when needed."""
    import weights_convert

    return weights_convert
