"""An open_clip vision transformer -> the image encoder of a GIT that is yet to be trained.

Source: open_clip, transformer.py (`VisionTransformer`); OpenAI's CLIP has the same names.
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from git_model.config import Activation, EncoderConfig, GITConfig, named_config, style_preprocess
from git_model.model.git import GIT
from git_model.utils.errors import GITError
from weights_convert.files import Checkpoint, open_tensors
from weights_convert.rules import ConversionError, Rule, Tensors, apply, nested
from weights_convert.towers import CLIP, clip_config, empty_tensors

TABLE = (
    *nested("visual", "encoder", CLIP),
    Rule("transformer.**", None),  # from here on, what belongs to the text tower
    Rule("text.**", None),
    Rule("text_projection", None),
    Rule("token_embedding.weight", None),
    Rule("positional_embedding", None),
    Rule("ln_final.*", None),
    Rule(("logit_scale", "logit_bias"), None),
    Rule(("input_resolution", "context_length", "vocab_size"), None),  # in OpenAI's own files
)

# What other vision towers have in their tensors' names.
OTHERS = {
    "visual.trunk.": "a timm model",
    "visual.layer1.": "a ResNet",
    "visual.attn_pool.": "a transformer with attentional pooling",
    ".ls_1.gamma": "a transformer with LayerScale",
}
ACTIVATIONS: dict[str, Activation] = {
    "GELU(approximate='none')": "gelu",
    "QuickGELU()": "quick_gelu",
}


def read_file(
    path: Path,
    *,
    activation: Activation = "quick_gelu",
    heads: int | None = None,
    dtype: torch.dtype | None = torch.float32,
) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """The vision tower in a file of open_clip's or OpenAI's tensors, as our encoder's.

    Args:
        activation: the file does not tell; OpenAI's models have quick_gelu, most others gelu.
        heads: the file does not tell; by default one for each 64 of the width.

    Raises:
        GITError: the file cannot be read, or holds another kind of tower.
    """
    source = open_tensors(path)
    try:
        _refuse_others(source)
        config = clip_config(source, "visual", activation=activation, heads=heads)
        return config, _read_state(source, config, dtype)
    except GITError as error:
        raise ConversionError(f"{path}: {error}") from None


def read_named(
    name: str, tag: str, *, dtype: torch.dtype | None = torch.float32
) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """The vision tower of a model that the library open_clip knows, downloaded if need be.

    Args:
        name: such as "ViT-B-16".
        tag: of its weights, such as "openai".

    Raises:
        GITError: the library is missing, does not know them, or the tower is of another kind.
    """
    model = _build(name, tag)
    source: Tensors = model.state_dict()
    try:
        _refuse_others(source)
        config = _config_of(model.visual, source)
        return config, _read_state(source, config, dtype)
    except GITError as error:
        raise ConversionError(f"{name}, {tag}: {error}") from None


def read(
    source: str,
    *,
    pretrained: str | None = None,
    config: str = "git_base",
    seed: int = 0,
    **tower: Any,
) -> Checkpoint:
    """A GIT to train from a tower of open_clip; see `start`.

    Args:
        source: a file of tensors, or with `pretrained` a model's name, such as "ViT-B-16".
        pretrained: the tag of a named model's weights.
        config: everything but the encoder: a configuration's name or .toml file.
        tower: of a file, as in `read_file`.

    Raises:
        GITError: the source cannot be read, or an option does not go with a named model.
    """
    base = named_config(config)
    if pretrained is None:
        encoder, state = read_file(Path(source), **tower)
    elif tower:
        raise ConversionError(f"{min(tower)} is for files; a named model says it itself")
    else:
        encoder, state = read_named(source, pretrained)
    return start(encoder, state, base, seed=seed)


def start(
    encoder: EncoderConfig, state: dict[str, Tensor], base: GITConfig, *, seed: int = 0
) -> Checkpoint:
    """A GIT to train: this encoder, and a decoder fresh from BERT's initialisation.

    Args:
        base: all but the encoder and the size of images.
        seed: of the random weights.
    """
    images = style_preprocess(base.style, image_size=encoder.image_size, video=base.frames > 0)
    config = dataclasses.replace(base, encoder=encoder, preprocess=images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = GIT(config).tensors()
    return Checkpoint(config, fresh | {f"encoder.{key}": part for key, part in state.items()}, None)


def _read_state(
    source: Tensors, config: EncoderConfig, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """The state of a GIT's `encoder`, without that prefix."""
    model = empty_tensors(GITConfig(encoder=config)).items()
    wanted = {name: part for name, part in model if name.startswith("encoder.")}
    found = apply(TABLE, source, wanted, dtype)
    return {name.removeprefix("encoder."): part for name, part in found}


def _refuse_others(source: Tensors) -> None:
    for mark, kind in OTHERS.items():
        if any(mark in name for name in source):
            raise ConversionError(f"the vision tower is {kind}, expected a plain ViT of CLIP's")


def _build(name: str, tag: str) -> Any:
    try:
        import open_clip
    except ImportError:
        raise ConversionError("open_clip is not installed: pip install 'git-model[clip]'") from None
    known = open_clip.get_pretrained_cfg(name, tag)
    if not known:
        raise ConversionError(f"open_clip knows no model {name} with weights {tag}")
    # The library only warns when weights meet an activation that they were not trained with.
    quick = bool(known.get("quick_gelu"))
    try:
        return open_clip.create_model(name, pretrained=tag, force_quick_gelu=quick)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConversionError(f"{name}, {tag}: open_clip cannot load it: {reason}") from None


def _config_of(visual: Any, source: Tensors) -> EncoderConfig:
    """The configuration of a tower that the library has built."""
    block = visual.transformer.resblocks[0]
    kind = str(block.mlp.gelu)
    if kind not in ACTIVATIONS:
        raise ConversionError(f"activation is {kind}, expected {' or '.join(ACTIVATIONS)}")
    heads = block.attn.num_heads
    config = clip_config(source, "visual", activation=ACTIVATIONS[kind], heads=heads)
    return dataclasses.replace(config, norm_eps=visual.ln_post.eps)
