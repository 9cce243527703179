"""A model by its name: the built-in model, a folder of any supported format, or a hub id."""

from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from git_model.checkpoints.adapters import describe, is_adapter, open_adapter, read_base
from git_model.checkpoints.native import (
    CONFIG,
    folder_of,
    is_checkpoint,
    is_exported,
    read_checkpoint,
    require_digests,
    sha256_of,
)
from git_model.config import GITConfig, Style
from git_model.generation.compiled import CompiledGIT
from git_model.model.git import GIT
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.preprocessing.tokenizer_files import JSON, VOCAB
from git_model.utils.devices import dtype_of, usable_device
from git_model.utils.errors import CheckpointError, GITError
from git_model.utils.kernels import pack_weights

WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".onnx", ".xml", ".pt2")


def open_model(
    name: str | Path,
    *,
    dtype: str | torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    style: Style | None = None,
    integrity: bool = False,
    compile: bool = False,
    adapter: str | Path | None = None,
    **hub: Any,
) -> tuple[GIT, Tokenizer | None]:
    """The model of this name, in eval mode, and its tokenizer, or None if it has no vocabulary.

    Arguments and errors are those of `Captioner.from_pretrained`; `hub` has those for downloads.
    """
    folder = folder_of(name)
    if is_exported(folder):
        options = {"dtype": dtype, "compile": compile, "revision": revision, "adapter": adapter}
        return _open_exported(folder, options, device=device, style=style, integrity=integrity)
    target = usable_device(device)
    _refuse_adapter(folder)
    hub["revision"] = revision
    dtype = dtype_of(dtype, target)
    # An adapter's fingerprint is of the base's own values, so these are not rounded before.
    read_dtype = dtype if adapter is None else torch.float32
    config, state, tokenizer = _read(name, read_dtype, integrity, hub)
    if tokenizer is not None:
        tokenizer.check_fit(config)
    base = None if adapter is None else read_base(Path(adapter))
    style = style or (None if base is None else base.style)
    if style is not None:
        config = config.with_style(style)
    model = (CompiledGIT if compile else GIT).from_state(config, state, str(name))
    if adapter is not None:
        _open_adapter(model, Path(adapter), str(name), integrity=integrity)
    model.to(target, dtype)
    if isinstance(model, CompiledGIT):
        model.compile_parts()
    pack_weights(model.decoder)
    return model, tokenizer


def _open_exported(
    folder: Path, options: dict[str, Any], *, device: str | torch.device, **settings: Any
) -> tuple[GIT, Tokenizer | None]:
    """The model and its tokenizer from a folder that `git-model export` wrote."""
    if options["dtype"] not in (torch.float32, "float32", "auto"):
        raise GITError(
            f"{folder}: an exported model has its own number format, leave out the dtype"
        )
    for name in ("compile", "revision", "adapter"):
        if options[name]:
            raise GITError(f"{folder}: an exported model takes no {name}, leave it out")
    model = exports().open_exported(folder, device=str(device), **settings)
    tokenizer = Tokenizer.from_folder(folder) if has_vocabulary(folder) else None
    if tokenizer is not None:
        tokenizer.check_fit(model.config)
    return model, tokenizer


def exact_revision(name: str, revision: str | None, adapter: str | None = None) -> str:
    """The revision of the weights that a name stands for: the commit of a hub id, or a digest of a
    folder's weights.

    Args:
        revision: of a hub id, as in `open_model`.
        adapter: an adapter's folder; the digest of its weights is added.
    """
    if adapter is not None:
        return f"{exact_revision(name, revision)} adapter {exact_revision(adapter, None)}"
    folder = folder_of(name)
    if not folder.is_dir():
        # The hub's library names snapshot folders by their commit.
        return str(converters().find_folder(str(name), revision).name)
    digest = sha256()
    # not in any folder below: a model may have been exported to one
    paths = [*folder.iterdir(), *(folder / "snapshot").glob("*")]
    for path in sorted(path for path in paths if path.suffix in WEIGHT_FILES):
        digest.update(bytes.fromhex(sha256_of(path)))
    return f"sha256:{digest.hexdigest()[:12]}"


def _read(
    name: str | Path, dtype: torch.dtype, integrity: bool, hub: dict[str, Any]
) -> tuple[GITConfig, dict[str, Tensor], Tokenizer | None]:
    """Configuration, tensors and vocabulary of a checkpoint of any supported format."""
    folder = folder_of(name)
    if is_checkpoint(folder):
        if hub["revision"] is not None:
            raise GITError(f"{name}: a revision is for hub ids, this is a folder")
        config, state = read_checkpoint(folder, dtype=dtype, integrity=integrity)
        return config, state, Tokenizer.from_folder(folder) if has_vocabulary(folder) else None
    if integrity:
        raise CheckpointError(
            f"{name}: --integrity checks a folder that `git-model convert` wrote, with the digests "
            "of its files: convert the checkpoint first"
        )
    checkpoint = converters().read_foreign(str(name), dtype=dtype, **hub)
    return checkpoint.config, checkpoint.state, checkpoint.tokenizer


def has_vocabulary(folder: Path) -> bool:
    """Whether there is a vocabulary in a model's folder."""
    return any((folder / name).is_file() for name in (JSON, VOCAB))


def require_vocabulary(name: str | Path) -> None:
    """Refuse a folder without a vocabulary, before its weights are read. A hub id passes.

    Raises:
        CheckpointError: the message says what to add.
    """
    folder = folder_of(name)
    _refuse_adapter(folder)
    has_model = any((folder / file).is_file() for file in (CONFIG, "model.pt", "snapshot/model.pt"))
    if has_model and not has_vocabulary(folder):
        remedy = f"add {VOCAB} to this folder (for released models that of bert-base-uncased)"
        if is_exported(folder):
            remedy = "copy the whole folder, or export a checkpoint that has one"
        raise CheckpointError(
            f"{folder}: the model has no vocabulary, so it cannot read or write text: {remedy}"
        )


def _refuse_adapter(folder: Path) -> None:
    if is_adapter(folder) and not (folder / CONFIG).is_file():
        raise CheckpointError(describe(folder))


def _open_adapter(model: GIT, folder: Path, name: str, *, integrity: bool) -> None:
    if integrity and is_adapter(folder):
        require_digests(folder)
    open_adapter(model, folder, name)


def exports() -> ModuleType:
    """The module that runs models of other engines: imported here alone, when needed."""
    from git_model.export import model

    return model


def converters() -> ModuleType:
    """The package that converts the formats of other projects: imported here alone, when needed."""
    import weights_convert

    return weights_convert
