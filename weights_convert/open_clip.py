"""An open_clip vision transformer -> the image encoder of an untrained GIT.

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
    Rule("transformer.**", None),  # from here on, the text tower
    Rule("text.**", None),
    Rule("text_projection", None),
    Rule("token_embedding.weight", None),
    Rule("positional_embedding", None),
    Rule("ln_final.*", None),
    Rule(("logit_scale", "logit_bias"), None),
    Rule(("input_resolution", "context_length", "vocab_size"), None),  # in OpenAI's own files
)

# Parts of tensor names by which one tells other kinds of vision tower.
OTHER_TOWERS = {
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
        activation: of the model; the file does not name it. OpenAI's models have quick_gelu, most
            others gelu.
        heads: of the model; the file does not name them. By default one per 64 of the width.

    Raises:
        GITError: the file cannot be read, or holds another kind of tower.
    """
    source = open_tensors(path)
    try:
        _require_plain_tower(source)
        config = clip_config(source, "visual", activation=activation, heads=heads)
        return config, _read_state(source, config, dtype)
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
        _require_plain_tower(source)
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
    """An untrained GIT with an image encoder of open_clip; see `start`.

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
    return start(encoder, state, base, seed=seed)


def start(
    encoder: EncoderConfig, state: dict[str, Tensor], base: GITConfig, *, seed: int = 0
) -> Checkpoint:
    """An untrained GIT: this encoder, and a decoder with BERT's random initialisation.

    Args:
        base: everything but the encoder and the size of images.
        seed: of the random weights.
    """
    images = style_preprocess(base.style, image_size=encoder.image_size, video=base.frames > 0)
    config = dataclasses.replace(base, encoder=encoder, preprocess=images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tensors = GIT(config).tensors()
    tensors |= {f"encoder.{name}": tensor for name, tensor in state.items()}
    return Checkpoint(config, tensors, None)


def _read_state(
    source: Tensors, config: EncoderConfig, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """The state of a GIT's `encoder`, without that prefix."""
    model = empty_tensors(GITConfig(encoder=config)).items()
    encoder = {name: tensor for name, tensor in model if name.startswith("encoder.")}
    state = apply(TABLE, source, encoder, dtype)
    return {name.removeprefix("encoder."): tensor for name, tensor in state}


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


def _config_of(visual: Any, source: Tensors) -> EncoderConfig:
    """The configuration of a tower that the library built."""
    block = visual.transformer.resblocks[0]
    activation = str(block.mlp.gelu)
    if activation not in ACTIVATIONS:
        raise ConversionError(f"activation is {activation}, expected {' or '.join(ACTIVATIONS)}")
    heads = block.attn.num_heads
    config = clip_config(source, "visual", activation=ACTIVATIONS[activation], heads=heads)
    return dataclasses.replace(config, norm_eps=visual.ln_post.eps)
