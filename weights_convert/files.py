"""Files that hold tensors by name; each tensor is read when it is asked for.

Nothing in them is executed: safetensors cannot, and pickles are opened with `weights_only`.
"""

import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from git_model.checkpoints.native import require_header
from git_model.config import GITConfig
from git_model.preprocessing.tokenizer import JSON, VOCAB, Tokenizer
from git_model.utils.serialize import is_file, read_mapping, shown
from weights_convert.pickles import look_into, require_claims
from weights_convert.rules import ConversionError, Tensors

INDEX = ".index.json"
SHARD = re.compile(r"[\w.-]+\.(safetensors|bin)")  # a plain name: no way out of the folder
WRAPPERS = ("model", "state_dict")  # where training scripts keep the tensors in a pickle


class Checkpoint(NamedTuple):
    """What a folder holds, in this project's terms."""

    config: GITConfig
    state: dict[str, Tensor]
    tokenizer: Tokenizer | None


class LazyTensors(Mapping[str, Tensor]):
    """Tensors by name, each behind a function that reads it."""

    def __init__(self, readers: Mapping[str, Callable[[], Tensor]]) -> None:
        self._readers = readers

    def __getitem__(self, name: str) -> Tensor:
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def open_tensors(path: Path) -> Tensors:
    """The tensors of a .safetensors file, a pickle, or the shards that an .index.json lists.

    Raises:
        ConversionError: a file is missing, damaged, or holds other things than tensors.
    """
    if path.name.endswith(INDEX):
        return _open_shards(path)
    if not is_file(path):
        raise ConversionError(f"{path}: no such file")
    return _open_safetensors(path) if path.suffix == ".safetensors" else _open_pickle(path)


def open_tokenizer(folder: Path) -> Tokenizer | None:
    """The vocabulary in a folder, if it has one."""
    if any(is_file(folder / name) for name in (JSON, VOCAB)):
        return Tokenizer.from_folder(folder)
    return None


def _open_safetensors(path: Path) -> Tensors:
    require_header(path)
    try:
        file = safe_open(path, framework="pt")
        names = file.keys()
    except (SafetensorError, OSError) as error:
        raise ConversionError(f"{path}: not a readable safetensors file: {error}") from None
    return LazyTensors({name: partial(file.get_tensor, name) for name in names})


def _open_shards(index: Path) -> Tensors:
    shard_of = read_mapping(index).get("weight_map")
    if not isinstance(shard_of, dict) or not all(type(name) is str for name in shard_of.values()):
        raise ConversionError(f"{index}: no weight_map from tensors to files")
    for shard in shard_of.values():
        if not SHARD.fullmatch(shard):
            raise ConversionError(
                f"{index}: {shown(shard)} is not the name of a file in its folder"
            )
    shards = {shard: open_tensors(index.parent / shard) for shard in sorted(set(shard_of.values()))}
    listed = set(shard_of.items())
    held = {(name, shard) for shard, tensors in shards.items() for name in tensors}
    for name, shard in sorted(listed - held):
        raise ConversionError(f"{index}: lists tensor {name}, which is not in {shard}")
    for name, shard in sorted(held - listed):
        raise ConversionError(f"{index}: does not list tensor {name}, which is in {shard}")
    return LazyTensors({name: partial(shards[s].__getitem__, name) for name, s in shard_of.items()})


def _open_pickle(path: Path) -> Tensors:
    """Memory-mapped where torch can: in the zip form that it has written since its version 1.6."""
    try:
        look_into(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of forms that torch will no longer write
            loaded = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except ConversionError:
        raise
    except Exception:  # a damaged or hostile pickle can raise anything
        raise ConversionError(
            f"{path}: not a plain file of tensors, so it is not opened: it is damaged, or holds "
            "objects or TorchScript that could run code; save its state dict alone"
        ) from None
    tensors = _only_tensors(loaded, path)
    require_claims(tensors, path)
    return tensors


def _only_tensors(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what was unpickled, without the `module.` of distributed training."""
    if isinstance(loaded, Mapping):
        inner = (loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping))
        loaded = next(inner, loaded)
    if not isinstance(loaded, Mapping):
        raise ConversionError(f"{path}: holds a {type(loaded).__name__}, expected tensors by name")
    tensors: dict[str, Tensor] = {}
    for key, value in loaded.items():
        if not isinstance(value, Tensor) or not isinstance(key, str):
            kind = type(value).__name__
            raise ConversionError(f"{path}: {shown(key)} is a {kind}, expected named tensors")
        name = key
        while name.startswith("module."):
            name = name.removeprefix("module.")
        if name in tensors:
            raise ConversionError(f"{path}: tensor {name} is there twice, as {key} too")
        tensors[name] = value
    return tensors
