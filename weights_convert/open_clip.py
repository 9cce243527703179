"""An open_clip vision transformer, CLIP's or SigLIP's -> the image encoder of an untrained GIT.

Source: open_clip, transformer.py (`VisionTransformer`); OpenAI's CLIP has the same names. SigLIP's
towers are models of timm in that library (timm_model.py).
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from git_model.config import Activation, EncoderConfig, named_config, siglip_preprocess
from git_model.utils.errors import GITError
from weights_convert import siglip
from weights_convert.files import Checkpoint, open_tensors
from weights_convert.rules import ConversionError, Rule, Tensors, nested
from weights_convert.towers import CLIP, clip_config, read_encoder, untrained

TEXT = (
    Rule("transformer.**", None),
    Rule("text.**", None),
    Rule("text_projection", None),
    Rule("token_embedding.weight", None),
    Rule("positional_embedding", None),
    Rule("ln_final.*", None),
    Rule(("logit_scale", "logit_bias"), None),
    Rule(("input_resolution", "context_length", "vocab_size"), None),  # in OpenAI's own files
)
TABLES = {
    "clip": (*nested("visual", "encoder", CLIP), *TEXT),
    "siglip": (*nested("visual.trunk", "encoder", siglip.TIMM), *TEXT),
}

# Parts of tensor names that identify other kinds of vision tower.
OTHER_TOWERS = {
    "visual.trunk.": "a model of timm (git-model convert --from timm takes those)",
    "visual.layer1.": "a ResNet",
    "visual.attn_pool.": "a transformer with attentional pooling",
    ".ls_1.gamma": "a transformer with LayerScale",
}
ACTIVATIONS: dict[str, Activation] = {
    "GELU(approximate='none')": "gelu",
    "GELU(approximate='tanh')": "gelu_tanh",
    "GELUTanh()": "gelu_tanh",
    "QuickGELU()": "quick_gelu",
}


def read_file(
    path: Path,
    *,
    activation: Activation | None = None,
    heads: int | None = None,
    dtype: torch.dtype | None = torch.float32,
) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """The vision tower in a file of open_clip's or OpenAI's tensors, as this project's encoder.

    Args:
        activation: the model's activation, which the file does not name. OpenAI's models have
            quick_gelu, most others gelu; SigLIP was trained with gelu_tanh. By default OpenAI's or
            SigLIP's.
        heads: the number of heads, which the file does not name. By default one head per 64 of the
            width, or the number of the released SigLIP of this width.

    Raises:
        GITError: the file cannot be read, or holds another kind of tower.
    """
    source = open_tensors(path)
    try:
        config = _config_of_tensors(source, activation, heads)
        return config, read_encoder(TABLES[config.kind], source, config, dtype)
    except GITError as error:
        raise ConversionError(f"{path}: {error}") from None


def read_named(
    name: str, tag: str, *, dtype: torch.dtype | None = torch.float32
) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """The vision tower of a model in the library open_clip, which downloads its weights.

    Args:
        name: such as "ViT-B-16".
        tag: of its weights, such as "openai".

    Raises:
        GITError: the library is missing or has no such model, or the tower is of another kind.
    """
    model = _build(name, tag)
    source: Tensors = model.state_dict()
    try:
        config = _config_of_model(model.visual, source)
        return config, read_encoder(TABLES[config.kind], source, config, dtype)
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
    """An untrained GIT with an image encoder of open_clip; see `towers.untrained`.

    Args:
        source: a file of tensors, or with `pretrained` a model's name, such as "ViT-B-16".
        pretrained: the tag of a named model's weights.
        config: everything but the encoder: a configuration's name or .toml file.
        tower: `activation` and `heads` of a file, as in `read_file`.

    Raises:
        GITError: the source cannot be read, or an option does not go with a named model.
    """
    base = named_config(config)
    if pretrained is None:
        encoder, state = read_file(Path(source), **tower)
    elif tower:
        raise ConversionError(f"{min(tower)} is for files; a named model has its own")
    else:
        encoder, state = read_named(source, pretrained)
    preprocess = None if encoder.kind == "clip" else siglip_preprocess(encoder.image_size)
    return untrained(encoder, state, base, preprocess=preprocess, seed=seed)


def _config_of_tensors(
    source: Tensors, activation: Activation | None, heads: int | None
) -> EncoderConfig:
    """The configuration of a tower, from its tensors alone."""
    if siglip.is_siglip(source, "visual.trunk"):
        return siglip.config_of(
            source, "visual.trunk", activation=activation or "gelu_tanh", heads=heads
        )
    _require_plain_tower(source)
    return clip_config(source, "visual", activation=activation or "quick_gelu", heads=heads)


def _require_plain_tower(source: Tensors) -> None:
    for part, description in OTHER_TOWERS.items():
        if any(part in name for name in source):
            raise ConversionError(
                f"the vision tower is {description}, expected CLIP's plain vision transformer"
            )


def _build(name: str, tag: str) -> Any:
    try:
        import open_clip
    except ImportError:
        raise ConversionError("open_clip is not installed: pip install 'git-model[clip]'") from None
    settings = open_clip.get_pretrained_cfg(name, tag)
    if not settings:
        raise ConversionError(f"open_clip has no model {name} with weights {tag}")
    # The library only warns when weights meet an activation that they were not trained with.
    quick_gelu = bool(settings.get("quick_gelu"))
    try:
        return open_clip.create_model(name, pretrained=tag, force_quick_gelu=quick_gelu)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConversionError(f"{name}, {tag}: open_clip cannot load it: {reason}") from None


def _config_of_model(visual: Any, source: Tensors) -> EncoderConfig:
    """The configuration of a tower that the library built."""
    is_siglip = siglip.is_siglip(source, "visual.trunk")
    if not is_siglip:
        _require_plain_tower(source)
    block = visual.trunk.blocks[0] if is_siglip else visual.transformer.resblocks[0]
    activation = str(block.mlp.act if is_siglip else block.mlp.gelu)
    if activation not in ACTIVATIONS:
        raise ConversionError(f"activation is {activation}, expected {' or '.join(ACTIVATIONS)}")
    heads = block.attn.num_heads
    config = _config_of_tensors(source, ACTIVATIONS[activation], heads)
    eps = visual.trunk.norm.eps if is_siglip else visual.ln_post.eps
    return dataclasses.replace(config, norm_eps=eps)
