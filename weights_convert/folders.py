"""Folders of any format: read one, write one, or convert one to another format."""

from pathlib import Path
from typing import Any, Literal, get_args

import torch

from git_model.checkpoints.native import (
    CONFIG,
    TOKENIZER,
    folder_of,
    is_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from git_model.model.git import GIT
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.utils.devices import dtype_of
from weights_convert import huggingface, microsoft, open_clip
from weights_convert.files import Checkpoint, open_tokenizer
from weights_convert.hub import find_folder
from weights_convert.rules import ConversionError

Form = Literal["native", "hf"]
Origin = Literal["hf", "microsoft", "open_clip"]


def read_foreign(
    source: str, *, dtype: torch.dtype | None = torch.float32, revision: str | None = None
) -> Checkpoint:
    """The checkpoint in a folder of Hugging Face's or of the original's format, or of a hub id.

    Args:
        dtype: of the tensors; None keeps the files'.
        revision: of a hub id: a branch, tag or commit.

    Raises:
        GITError: there is none, it is damaged, or its model is none that this project has.
    """
    folder = find_folder(source, revision)
    if (folder / CONFIG).is_file():
        return huggingface.read_folder(folder, dtype=dtype)
    if microsoft.find_weights(folder) is None:
        raise ConversionError(
            f"{folder}: not a checkpoint, expected {CONFIG} or {microsoft.WEIGHT_FILES[0]}"
        )
    return microsoft.read_folder(folder, dtype=dtype)


def read_native(folder: Path) -> Checkpoint:
    """The checkpoint in a folder of our own format, its tensors as they are stored."""
    config, state = read_checkpoint(folder, dtype=None)
    GIT.from_state(config, state, str(folder))
    return Checkpoint(config, state, open_tokenizer(folder))


def with_tokenizer(checkpoint: Checkpoint, folder: Path | None) -> Checkpoint:
    """The same checkpoint with the vocabulary of this folder, if one is named."""
    if folder is None:
        return checkpoint
    tokenizer = Tokenizer.from_folder(folder)
    tokenizer.check_fit(checkpoint.config)
    return checkpoint._replace(tokenizer=tokenizer)


def stored_as(checkpoint: Checkpoint, dtype: str | None) -> Checkpoint:
    """The same checkpoint with its numbers in this format, such as "float16"; None: as they are.

    Raises:
        GITError: there is no such format, or a number is too large for it.
    """
    if dtype is None:
        return checkpoint
    target = dtype_of(dtype, torch.device("cpu"))
    state = {name: tensor.to(target) for name, tensor in checkpoint.state.items()}
    for name, tensor in state.items():
        if tensor.isinf().any() and not checkpoint.state[name].isinf().any():
            raise ConversionError(f"tensor {name} has numbers too large for {dtype}")
    return checkpoint._replace(state=state)


def write(checkpoint: Checkpoint, folder: Path, to: Form = "native") -> str:
    """Write a new folder, whole or not at all; returns a line that says what was written.

    A folder in Hugging Face's format runs as Hugging Face runs it, so its style is that, too.

    Raises:
        GITError: the folder is in the way, or the format lacks a setting.
    """
    config, state, tokenizer = checkpoint
    if tokenizer is not None:
        tokenizer.check_fit(config)
    if to not in get_args(Form):
        raise ConversionError(f"no format {to!r}, expected {' or '.join(get_args(Form))}")
    if to == "hf":
        if config.style != "huggingface":
            config = config.with_style("huggingface")
        huggingface.write_folder(folder, Checkpoint(config, state, tokenizer))
    else:
        texts = {} if tokenizer is None else {TOKENIZER: tokenizer.to_json()}
        write_checkpoint(folder, config, state, texts)
    numbers = sum(tensor.numel() for tensor in state.values())
    words = "with" if tokenizer else "without"
    return (
        f"{folder}: {len(state)} tensors, {numbers:,} parameters, {config.style} style, "
        f"{words} a vocabulary"
    )


def convert(
    source: str,
    destination: Path,
    *,
    origin: Origin | None = None,
    to: Form = "native",
    tokenizer: Path | None = None,
    dtype: str | None = None,
    **options: Any,
) -> str:
    """Convert a checkpoint of any format to ours or Hugging Face's.

    Args:
        source: a folder, a file of open_clip's, or a hub id such as "microsoft/git-base-coco".
        destination: the new folder.
        origin: the format of the source; None: ours, Hugging Face's or the original's, as its
            files tell.
        tokenizer: a folder whose vocabulary replaces the source's.
        dtype: number format to store, such as "float16"; None: as it is.
        options: of the reader: `revision` of a hub id; for "microsoft" as in
            `microsoft.read_folder`; for "open_clip" as in `open_clip.read`.

    Returns:
        A line that says what was written.

    Raises:
        GITError: the source cannot be read, or the destination not written.
    """
    checkpoint = _read(source, None if origin == to == "hf" else origin, options)
    return write(with_tokenizer(stored_as(checkpoint, dtype), tokenizer), destination, to)


def _read(source: str, origin: Origin | None, options: dict[str, Any]) -> Checkpoint:
    """The checkpoint at a source of this format, its tensors as they are stored."""
    if origin == "open_clip":
        return open_clip.read(source, **options)
    if origin == "microsoft":
        return microsoft.read_folder(Path(source), dtype=None, **options)
    if origin == "hf":
        return huggingface.read_folder(find_folder(source, **options), dtype=None)
    if not options and is_checkpoint(folder_of(source)):
        return read_native(folder_of(source))
    return read_foreign(source, dtype=None, **options)
