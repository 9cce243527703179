"""Adapters: a few trained weights beside a frozen base model (LoRA, DoRA), with the library peft.

A folder holds adapter_config.json and adapter_model.safetensors, as peft writes and reads them, and
base.json: the base model's name and the fingerprint of its weights. A live adapter is a part of
each layer that it changes. A merged adapter is added to the layers' weights, and the model is then
an ordinary one.

Sources: Hu et al. 2021 (LoRA); Liu et al. 2024 (DoRA).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from git_model.checkpoints.native import DIGESTS, read_tensors, write_digests
from git_model.config import Style
from git_model.model.git import GIT
from git_model.utils.atomic import new_folder
from git_model.utils.errors import CheckpointError, ConfigError, GITError
from git_model.utils.serialize import from_dict, is_file, read_mapping, short_repr, to_dict

SETTINGS, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"
PREFIX = "base_model.model."  # of peft's names in a file
ATTENTION = re.compile(r".*\.attn\.\w+")  # the linear layers of every attention
MAX_RANK = 2**12
# Settings of peft that determine the computation and that this project supports.
USED = {"r", "lora_alpha", "lora_dropout", "use_dora", "use_rslora", "target_modules"}
# Those that do not change what a stored adapter computes.
IGNORED = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "init_lora_weights",
    "peft_version", "revision", "task_type", "runtime_config", "loftq_config", "corda_config",
    "eva_config",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Which adapter to train: the table [adapter] of a recipe. All other weights are frozen."""

    kind: Literal["lora", "dora"] = "lora"  # DoRA also learns the length of each weight's rows
    rank: int = 8  # inner size of the two matrices whose product is added to a weight
    alpha: float = 16.0  # the product is scaled by alpha / rank
    dropout: float = 0.0  # probability of dropout on the adapter's input
    # patterns of linear layers' names; empty: query, key, value and output of every attention, in
    # an encoder of another kind all linear layers of the modules `attn`
    targets: tuple[str, ...] = ()
    last: int | None = None  # instead of targets: every linear layer of the last n decoder blocks

    def __post_init__(self) -> None:
        for name, valid, expected in (
            ("rank", 1 <= self.rank <= MAX_RANK, f"from 1 to {MAX_RANK}"),
            ("alpha", self.alpha > 0, "more than 0"),
            ("dropout", 0 <= self.dropout < 1, "0 or more and less than 1"),
            ("last", self.last is None or self.last >= 1, "at least 1"),
            ("last", not (self.last and self.targets), "none beside targets"),
        ):
            if not valid:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected {expected}")


@dataclass(frozen=True, kw_only=True)
class AdapterBase:
    """The model that an adapter belongs to."""

    format: Literal["git_model adapter 1"] = "git_model adapter 1"
    base: str  # its name when the adapter was trained
    fingerprint: str  # of its weights
    style: Style


def base_of(model: GIT, name: str) -> AdapterBase:
    """What `write_adapter` stores about a base model; call it before `add_adapter`."""
    return AdapterBase(base=name, fingerprint=fingerprint(model), style=model.config.style)


def fingerprint(model: GIT) -> str:
    """A sha256 of a model's weights in bfloat16, so that it is the same for a base that is opened
    in float32 or in bfloat16."""
    digest = sha256()
    for name, tensor in sorted(model.tensors().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        values = tensor.detach().to("cpu", torch.bfloat16).contiguous().view(torch.uint8)
        digest.update(values.numpy().data)
    return digest.hexdigest()


def add_adapter(model: GIT, config: AdapterConfig) -> None:
    """Add an untrained adapter, which does not change the output yet, and freeze all other weights.
    Draws from torch's random numbers.

    Raises:
        GITError: the library peft is missing, or a pattern matches no layer.
    """
    peft = import_peft()
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        use_dora=config.kind == "dora",
        target_modules=target_names(model, config),
    )
    peft.inject_adapter_in_model(settings, model)


def target_names(model: GIT, config: AdapterConfig) -> list[str]:
    """The linear layers that an adapter changes, by name.

    Raises:
        ConfigError: a pattern matches no layer, or one that is not called; or the decoder has fewer
            blocks than `last`.
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if model.config.decoder.tied:  # merged, it would change the token embedding, too
        linear.remove("decoder.lm_head")
    if config.last is None and not config.targets:
        return sorted(n for n in linear if ATTENTION.fullmatch(n) and _is_called(model, n))
    patterns = config.targets
    if config.last is not None:
        n_blocks = len(model.decoder.blocks)
        if config.last > n_blocks:
            raise ConfigError(f"adapter: last is {config.last}, expected at most {n_blocks} blocks")
        patterns = tuple(f"decoder.blocks.{n_blocks - n}.*" for n in range(1, config.last + 1))
    matches = {p: {name for name in linear if fnmatchcase(name, p)} for p in patterns}
    for pattern, names in matches.items():
        if not names:
            raise ConfigError(
                f"adapter: targets has {pattern!r}, which matches no linear layer, expected a "
                f"pattern of names such as {linear[-1]}"
            )
    targets = sorted(set().union(*matches.values()))
    for name in targets:
        if not _is_called(model, name):
            raise ConfigError(
                f"adapter: targets has {name}, whose weight this encoder uses without calling the "
                "layer, so an adapter would have no effect: expected other layers, such as *.proj"
            )
    return targets


def _is_called(model: GIT, name: str) -> bool:
    """Whether an attention calls this layer. With a query bias of its own, attentions of timm
    (BEiT, Swin 2) multiply by the layer's weight themselves."""
    owner, _, layer = name.rpartition(".")
    attention = model.get_submodule(owner)
    has_bias = getattr(attention, "q_bias", None) is not None
    return layer != "qkv" or not has_bias or bool(getattr(attention, "qkv_bias_separate", False))


def adapter_tensors(model: GIT) -> dict[str, Tensor]:
    """The weights of a live adapter, by their names in the model; empty if there is none."""
    return {name: tensor for name, tensor in model.tensors().items() if ".lora_" in name}


def write_adapter(
    folder: Path, model: GIT, base: AdapterBase, tensors: Mapping[str, Tensor]
) -> None:
    """Write an adapter's folder in one step; it replaces an adapter in `folder`.

    Args:
        tensors: as `adapter_tensors` gives them.

    Raises:
        GITError: the folder holds other files, or cannot be written.
    """
    peft = import_peft()
    settings = model.peft_config["default"].to_dict()  # type: ignore[union-attr, index]
    settings |= {
        "base_model_name_or_path": base.base,
        "inference_mode": True,
        "target_modules": sorted(settings["target_modules"]),
    }
    stored = peft.get_peft_model_state_dict(
        model, state_dict=dict(tensors), save_embedding_layers=False
    )
    weights = {f"{PREFIX}{name}": part.cpu().contiguous() for name, part in stored.items()}
    with new_folder(folder, replaces=(SETTINGS, WEIGHTS, BASE, DIGESTS)) as temporary:
        for name, values in ((SETTINGS, settings), (BASE, to_dict(base))):
            text = json.dumps(values, indent=2, default=str) + "\n"
            (temporary / name).write_text(text, encoding="utf-8")
        save_file(weights, temporary / WEIGHTS, metadata={"format": "pt"})
        write_digests(temporary)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, of this project or of peft."""
    return is_file(folder / SETTINGS)


def read_base(folder: Path) -> AdapterBase | None:
    """The model that an adapter belongs to; None if peft wrote the adapter, which stores no such
    name.

    Raises:
        ConfigError: the file is damaged.
    """
    if not is_file(folder / BASE):
        return None
    return from_dict(AdapterBase, read_mapping(folder / BASE), str(folder / BASE))


def open_adapter(model: GIT, folder: Path, name: str) -> None:
    """Add the adapter of a folder to its base model.

    Args:
        model: the base, with the values of its checkpoint, in float32.
        name: of the model, for errors.

    Raises:
        GITError: the library peft is missing; or the folder holds no adapter, an adapter of a kind
            that this project does not support, or the adapter of another base.
    """
    peft = import_peft()
    if not is_adapter(folder):
        raise CheckpointError(f"{folder}: no adapter, expected a folder with {SETTINGS}")
    base = read_base(folder)
    if base is not None and base.fingerprint != fingerprint(model):
        raise CheckpointError(
            f"{folder}: an adapter of {base.base}, whose weights are not those of {name}: open it "
            "with the model that it was trained on"
        )
    settings = _read_settings(folder / SETTINGS)
    stored = dict(read_tensors(folder / WEIGHTS, dtype=model.dtype))
    state = {key.removeprefix(PREFIX): tensor for key, tensor in stored.items()}
    try:
        peft.inject_adapter_in_model(peft.LoraConfig(**settings), model)
    except ValueError as error:  # no layer has such a name
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder}: does not fit {name}: {reason}") from None
    _require_fit(peft.get_peft_model_state_dict(model, save_embedding_layers=False), state, folder)
    peft.set_peft_model_state_dict(model, state)
    model.to(model.dtype).requires_grad_(False).eval()


def merge_adapter(model: GIT) -> None:
    """Add a live adapter to the weights of its layers, and remove its own weights."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = {n: layer for n, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)}
    for name, layer in layers.items():
        layer.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    del model.peft_config


def describe(folder: Path) -> str:
    """An error line for an adapter's folder that is given in place of a model: what to do with
    it."""
    base = read_base(folder)
    of, name = ("", "BASE") if base is None else (f" of {base.base}", base.base)
    return (
        f"{folder}: an adapter{of}, not a model: open it with its base (--model {name} --adapter "
        f"{folder}; in Python adapter=), or merge the two (git-model convert --merge {folder} "
        f"{name} NEW)"
    )


def import_peft() -> Any:
    """Import the library peft.

    Raises:
        GITError: it is not installed.
    """
    try:
        import peft
    except ImportError:
        raise GITError("adapters need peft: pip install 'git-model[peft]'") from None
    return peft


def _read_settings(path: Path) -> dict[str, Any]:
    """peft's settings of an adapter, if this project supports its kind.

    Raises:
        ConfigError: a setting that changes the computation in another way.
    """
    settings = read_mapping(path)
    default = {"peft_type": "LORA", **import_peft().LoraConfig().to_dict()}
    for key, value in settings.items():
        if key in USED | IGNORED:
            continue
        if value and value != getattr(default.get(key), "value", default.get(key)):
            raise ConfigError(f"{path}: {short_repr(key)} is {short_repr(value)}, not supported")
    values = {key: value for key, value in settings.items() if key in USED}
    targets = values.get("target_modules")
    if not isinstance(targets, list) or not all(isinstance(name, str) for name in targets):
        raise ConfigError(f"{path}: target_modules is {short_repr(targets)}, expected a list")
    rank = values.get("r")
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise ConfigError(f"{path}: r is {short_repr(rank)}, expected from 1 to {MAX_RANK}")
    return values


def _require_fit(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], folder: Path) -> None:
    for names, problem in (
        (expected.keys() - state.keys(), "is missing"),
        (state.keys() - expected.keys(), "is not part of this adapter"),
    ):
        if names:
            raise CheckpointError(f"{folder / WEIGHTS}: tensor {min(names)} {problem}")
    for name, tensor in expected.items():
        if tensor.shape != state[name].shape:
            raise CheckpointError(
                f"{folder / WEIGHTS}: tensor {name} has shape {tuple(state[name].shape)}, expected "
                f"{tuple(tensor.shape)} from the base model and {SETTINGS}"
            )
