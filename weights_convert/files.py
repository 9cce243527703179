"""Files that hold tensors by name; a tensor is read from disk when it is needed.

Nothing in them is executed: safetensors files hold no code, and pickles are inspected and opened
with `weights_only`.
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
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.preprocessing.tokenizer_files import JSON, VOCAB
from git_model.utils.serialize import is_file, read_mapping, short_repr
from weights_convert.pickles import inspect_pickles, require_sizes
from weights_convert.rules import ConversionError, Tensors

INDEX = ".index.json"
SHARD = re.compile(r"[\w.-]+\.(safetensors|bin)")  # a plain name: no way out of the folder
STATE_KEYS = ("model", "state_dict")  # where training scripts keep the tensors in a pickle
# Modules that wrap a model, or a part of it, put their own name into the names of its tensors:
# torch's DistributedDataParallel, torch.compile and FSDP, and a training script's `self.model`.
OUTER_WRAPPER = re.compile(r"(module\.|model\.|_orig_mod\.|_fsdp_wrapped_module\.)+")
INNER_WRAPPER = re.compile(r"(?<=\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


class Checkpoint(NamedTuple):
    """A model in this project's form: its configuration, its tensors, and its tokenizer or None."""

    config: GITConfig
    state: dict[str, Tensor]
    tokenizer: Tokenizer | None


class LazyTensors(Mapping[str, Tensor]):
    """Tensors by name; each has a function that reads it from disk."""

    def __init__(self, readers: Mapping[str, Callable[[], Tensor]]) -> None:
        self._readers = readers

    def __getitem__(self, name: str) -> Tensor:
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def open_tensors(path: Path) -> Tensors:
    """The tensors of a .safetensors file, a pickle, or the shards that an .index.json lists, under
    their names in the model itself, without those of modules that wrapped it.

    Raises:
        ConversionError: a file is missing, is damaged, or holds more than tensors; or two tensors
            have the same name.
    """
    tensors = _open_shards(path) if path.name.endswith(INDEX) else _open_file(path)
    names: dict[str, str] = {}  # in the model -> in the file
    for stored_name in tensors:
        name = unwrapped_name(stored_name)
        if name in names:
            raise ConversionError(
                f"{path}: tensor {name} is there twice, as {names[name]} and as {stored_name}"
            )
        names[name] = stored_name
    return LazyTensors({name: partial(tensors.__getitem__, names[name]) for name in names})


def unwrapped_name(name: str) -> str:
    """A tensor's name without the names of modules that wrap the model or a part of it.

    >>> unwrapped_name("module._orig_mod.git.encoder._orig_mod.layer.0.output.dense.bias")
    'git.encoder.layer.0.output.dense.bias'
    """
    outer = OUTER_WRAPPER.match(name)
    return INNER_WRAPPER.sub("", name[outer.end() :] if outer else name)


def open_tokenizer(folder: Path) -> Tokenizer | None:
    """The vocabulary in a folder, or None."""
    if any(is_file(folder / name) for name in (JSON, VOCAB)):
        return Tokenizer.from_folder(folder)
    return None


def _open_file(path: Path) -> Tensors:
    if not is_file(path):
        raise ConversionError(f"{path}: no such file")
    return _open_safetensors(path) if path.suffix == ".safetensors" else _open_pickle(path)


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
                f"{index}: {short_repr(shard)} is not the name of a file in its folder"
            )
    shards = {shard: _open_file(index.parent / shard) for shard in sorted(set(shard_of.values()))}
    listed_tensors = set(shard_of.items())
    stored_tensors = {(name, shard) for shard, tensors in shards.items() for name in tensors}
    for name, shard in sorted(listed_tensors - stored_tensors):
        raise ConversionError(f"{index}: lists tensor {name}, which is not in {shard}")
    for name, shard in sorted(stored_tensors - listed_tensors):
        raise ConversionError(f"{index}: does not list tensor {name}, which is in {shard}")
    return LazyTensors({name: partial(shards[s].__getitem__, name) for name, s in shard_of.items()})


def _open_pickle(path: Path) -> Tensors:
    """Memory-mapped where torch can: in the zip format that it has written since version 1.6."""
    try:
        inspect_pickles(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats that torch will no longer write
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except ConversionError:
        raise
    except Exception:  # a damaged or hostile pickle can raise anything
        raise ConversionError(
            f"{path}: not a plain file of tensors, so it is not opened: it is damaged, or holds "
            "objects or TorchScript that could run code; save its state dict alone"
        ) from None
    tensors = _state_dict(content, path)
    require_sizes(tensors, path)
    return tensors


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what was unpickled."""
    if isinstance(content, Mapping):
        inner = (content[key] for key in STATE_KEYS if isinstance(content.get(key), Mapping))
        content = next(inner, content)
    if not isinstance(content, Mapping):
        raise ConversionError(f"{path}: holds a {type(content).__name__}, expected tensors by name")
    for name, value in content.items():
        if not isinstance(value, Tensor) or not isinstance(name, str):
            raise ConversionError(
                f"{path}: {short_repr(name)} is a {type(value).__name__}, expected named tensors"
            )
    return dict(content)
