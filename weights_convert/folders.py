"""Checkpoint folders of any format: read, write and convert them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from git_model.checkpoints.adapters import merge_adapter, open_adapter, read_base
from git_model.checkpoints.defaults import PURPOSES
from git_model.checkpoints.native import (
    CONFIG,
    TOKENIZER,
    digests_of,
    folder_of,
    is_checkpoint,
    read_checkpoint,
    read_digests,
    refuse_exported,
    require_format,
    write_checkpoint,
)
from git_model.model.git import GIT
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.utils.devices import dtype_of
from git_model.utils.serialize import read_mapping
from weights_convert import huggingface, microsoft, open_clip, siglip, timm_models
from weights_convert.files import Checkpoint, open_tokenizer
from weights_convert.hub import find_folder
from weights_convert.rules import ConversionError

Format = Literal["native", "hf"]
Origin = Literal["hf", "microsoft", "open_clip", "siglip", "timm"]


ENCODERS: dict[str | None, Callable[..., Checkpoint]] = {  # of an untrained model
    "open_clip": open_clip.read,
    "siglip": siglip.read,
    "timm": timm_models.read,
}


def read_foreign(
    source: str, *, dtype: torch.dtype | None = torch.float32, **hub: Any
) -> Checkpoint:
    """The checkpoint in a folder of Hugging Face's or the original's format, or of a hub id.

    Args:
        dtype: of the tensors; None keeps the files'.
        hub: of a hub id: arguments of `find_folder`, such as its revision.

    Raises:
        GITError: the checkpoint does not exist or is damaged, or is of a kind that this project
            does not support.
    """
    folder = find_folder(source, **hub)
    if (folder / CONFIG).is_file():
        return _with_purpose(huggingface.read_folder(folder, dtype=dtype), source)
    if microsoft.find_weights(folder) is None:
        raise ConversionError(
            f"{folder}: not a checkpoint, expected {CONFIG} or {microsoft.WEIGHT_FILES[0]}"
        )
    return microsoft.read_folder(folder, dtype=dtype)


def _with_purpose(checkpoint: Checkpoint, source: str) -> Checkpoint:
    """The same checkpoint with the purpose of the model, if it has none and its hub id is that of a
    released model."""
    config = checkpoint.config
    purpose = config.purpose or PURPOSES.get(source, "")
    return checkpoint._replace(config=dataclasses.replace(config, purpose=purpose))


def read_native(folder: Path) -> Checkpoint:
    """The checkpoint in a folder of this project's format, with the tensors' stored dtype."""
    config, state = read_checkpoint(folder, dtype=None)
    GIT.from_state(config, state, str(folder))
    return Checkpoint(config, state, open_tokenizer(folder))


def with_tokenizer(checkpoint: Checkpoint, folder: Path | None) -> Checkpoint:
    """The same checkpoint with the vocabulary of a folder; with None its own vocabulary."""
    if folder is None:
        return checkpoint
    tokenizer = Tokenizer.from_folder(folder)
    tokenizer.check_fit(checkpoint.config)
    return checkpoint._replace(tokenizer=tokenizer)


def merged(checkpoint: Checkpoint, adapter: Path, name: str) -> Checkpoint:
    """The same checkpoint with an adapter merged into its weights.

    Args:
        name: of the checkpoint, for errors.

    Raises:
        GITError: the folder holds no adapter, or the adapter of another model.
    """
    state = stored_as(checkpoint, "float32").state
    model = GIT.from_state(checkpoint.config, state, name)
    open_adapter(model, adapter, name)
    merge_adapter(model)
    tensors = {key: part.to(checkpoint.state[key].dtype) for key, part in model.tensors().items()}
    base = read_base(adapter)
    config = checkpoint.config if base is None else checkpoint.config.with_style(base.style)
    return Checkpoint(config, tensors, checkpoint.tokenizer)


def stored_as(checkpoint: Checkpoint, dtype: str | None) -> Checkpoint:
    """The same checkpoint with tensors of this dtype, such as "float16"; None: as they are.

    Raises:
        GITError: there is no such dtype, or a number is too large for it.
    """
    if dtype is None:
        return checkpoint
    target = dtype_of(dtype, torch.device("cpu"))
    state = {
        name: tensor.to(target) if tensor.is_floating_point() else tensor
        for name, tensor in checkpoint.state.items()
    }
    for name, tensor in state.items():
        if tensor.isinf().any() and not checkpoint.state[name].isinf().any():
            raise ConversionError(f"tensor {name} has numbers too large for {dtype}")
    return checkpoint._replace(state=state)


def write(checkpoint: Checkpoint, folder: Path, to: Format = "native") -> str:
    """Write a new folder, whole or not at all.

    A folder in Hugging Face's format gets style huggingface, because Transformers runs it in that
    style.

    Returns:
        A line about what was written, and a line for each file with its sha256; this project's
        format also stores these in SHA256SUMS.

    Raises:
        GITError: the folder exists, or the format has no place for a setting of the model.
    """
    config, state, tokenizer = checkpoint
    if tokenizer is not None:
        tokenizer.check_fit(config)
    if to not in get_args(Format):
        raise ConversionError(f"no format {to!r}, expected {' or '.join(get_args(Format))}")
    if to == "hf":
        if config.style != "huggingface":
            config = config.with_style("huggingface")
        huggingface.write_folder(folder, Checkpoint(config, state, tokenizer))
    else:
        texts = {} if tokenizer is None else {TOKENIZER: tokenizer.to_json()}
        write_checkpoint(folder, config, state, texts)
    n_parameters = sum(tensor.numel() for tensor in state.values())
    vocabulary = "with a vocabulary" if tokenizer else "without a vocabulary"
    summary = (
        f"{folder}: {len(state)} tensors, {n_parameters:,} parameters, {config.style} style, "
        f"{vocabulary}"
    )
    digests = read_digests(folder) if to == "native" else digests_of(folder)
    return "\n".join([summary, *(f"{digest}  {name}" for name, digest in digests.items())])


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    origin: Origin | None = None,
    to: Format = "native",
    tokenizer: Path | None = None,
    dtype: str | None = None,
    merge: Path | None = None,
    **options: Any,
) -> str:
    """Convert a checkpoint of any format to this project's format or Hugging Face's.

    Args:
        source: a folder, a file of open_clip, or a hub id such as "microsoft/git-base-coco".
        destination: the new folder.
        origin: the format of the source; None: this project's, Hugging Face's or the original's,
            recognised by its files.
        tokenizer: a folder whose vocabulary replaces the source's.
        dtype: number format to store, such as "float16"; None: the source's.
        merge: a folder with an adapter of the source; it is merged into the weights.
        options: of the reader: `revision` of a hub id; for "microsoft" as in
            `microsoft.read_folder`; for the image encoders "open_clip", "siglip" and "timm" as in
            the function `read` of their modules.

    Returns:
        As `write`.

    Raises:
        GITError: the source cannot be read, or the destination cannot be written.
    """
    source, destination = str(source), Path(destination)
    checkpoint = _read(source, None if origin == to == "hf" else origin, options)
    if merge is not None:
        checkpoint = merged(checkpoint, merge, source)
    return write(with_tokenizer(stored_as(checkpoint, dtype), tokenizer), destination, to)


def _read(source: str, origin: Origin | None, options: dict[str, Any]) -> Checkpoint:
    """The checkpoint of a source in this format, with the tensors' stored dtype."""
    folder = folder_of(source)
    refuse_exported(folder, "converted")
    if is_checkpoint(folder):
        require_format(folder, read_mapping(folder / CONFIG).get("format"))
    if origin in ENCODERS:
        return ENCODERS[origin](source, **options)
    if origin == "microsoft":
        return microsoft.read_folder(Path(source), dtype=None, **options)
    if origin == "hf":
        checkpoint = huggingface.read_folder(find_folder(source, **options), dtype=None)
        return _with_purpose(checkpoint, source)
    if not options and is_checkpoint(folder):
        return read_native(folder)
    return read_foreign(source, dtype=None, **options)
