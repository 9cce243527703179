"""SigLIP's and SigLIP 2's image encoder -> the image encoder of an untrained GIT.

Sources: transformers/models/siglip, version 5.24; timm/models/vision_transformer.py (`siglip`),
whose names open_clip's files have. The pooling head is dropped: GIT takes every token.
"""

from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

import torch

from git_model.checkpoints.native import CONFIG
from git_model.config import Activation, EncoderConfig, named_config, siglip_preprocess
from git_model.utils.errors import GITError
from git_model.utils.serialize import from_dict, is_file, read_mapping, short_repr
from weights_convert import processor
from weights_convert.files import Checkpoint, LazyTensors, open_tensors
from weights_convert.hub import find_folder
from weights_convert.huggingface import (
    VISION_FIELDS,
    VISION_FIXED,
    VISION_LAYERS,
    WEIGHT_FILES,
    activation_of,
    fields_of,
    one_side,
    require_fixed,
)
from weights_convert.rules import ConversionError, Layout, Rule, Tensors, nested
from weights_convert.towers import count_layers, read_encoder, shape_of, untrained

unbatched = Layout(lambda parts: parts[0].flatten(0, 1), lambda whole, _: [whole[None]])

TIMM = (
    Rule("patch_embed.proj.*", "patch_embedding.*"),
    Rule("pos_embed", "position_embedding", unbatched),  # (1, N, D) <-> (N, D)
    Rule("blocks.*.norm1.*", "blocks.*.attn_norm.*"),
    Rule("blocks.*.attn.qkv.*", "blocks.*.attn.qkv.*"),
    Rule("blocks.*.attn.proj.*", "blocks.*.attn.out.*"),
    Rule("blocks.*.norm2.*", "blocks.*.mlp_norm.*"),
    Rule("blocks.*.mlp.fc1.*", "blocks.*.mlp.up.*"),
    Rule("blocks.*.mlp.fc2.*", "blocks.*.mlp.down.*"),
    Rule("norm.*", "post_norm.*"),
    Rule("attn_pool.**", None),
)
HUGGINGFACE = (
    Rule("embeddings.patch_embedding.*", "patch_embedding.*"),
    Rule("embeddings.position_embedding.weight", "position_embedding"),
    *VISION_LAYERS,
    Rule("head.**", None),
    Rule("embeddings.position_ids", None),
)
TABLE = (
    *nested("vision_model", "encoder", HUGGINGFACE),
    Rule("text_model.**", None),
    Rule(("logit_scale", "logit_bias"), None),
)
DEFAULTS = {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
MODEL_TYPES = ("siglip", "siglip_vision_model")
HEADS = {768: 12, 1024: 16, 1152: 16, 1536: 16}  # of the released models, by width


def is_siglip(source: Tensors, prefix: str) -> bool:
    """Whether the tensors under `prefix.` are timm's of a SigLIP with its pooling head."""
    names = [name.removeprefix(f"{prefix}.") for name in source if name.startswith(f"{prefix}.")]
    return "cls_token" not in names and any(name.startswith("attn_pool.") for name in names)


def config_of(
    source: Tensors, prefix: str, *, activation: Activation, heads: int | None
) -> EncoderConfig:
    """The sizes of a SigLIP whose tensors, under timm's names, begin with `prefix.`.

    Args:
        heads: None: those of the released model of this width.

    Raises:
        ConversionError: a tensor is missing or misshapen, or the number of heads is unknown.
    """
    width, _, patch, _ = shape_of(source, f"{prefix}.patch_embed.proj.weight", 4)
    _, positions, _ = shape_of(source, f"{prefix}.pos_embed", 3)
    grid = isqrt(positions)
    if grid**2 != positions:
        raise ConversionError(f"tensor {prefix}.pos_embed has {positions} rows, expected a square")
    if heads is None and width not in HEADS:
        raise ConversionError(f"no released SigLIP has width {width}: give its number of heads")
    return EncoderConfig(
        kind="siglip",
        image_size=grid * patch,
        patch_size=patch,
        width=width,
        layers=count_layers(source, f"{prefix}.blocks"),
        heads=HEADS[width] if heads is None else heads,
        mlp_width=shape_of(source, f"{prefix}.blocks.0.mlp.fc1.weight", 2)[0],
        activation=activation,
        norm_eps=1e-6,
    )


def read_config(settings: dict[str, Any]) -> EncoderConfig:
    """The encoder configuration for a config.json of Transformers' SigLIP, which may leave out
    defaults.

    Raises:
        ConversionError: another kind of model, or a setting that this project does not have.
    """
    kind = settings.get("model_type")
    if kind not in MODEL_TYPES:
        hint = ": of SigLIP 2, take a checkpoint of a fixed size" if kind == "siglip2" else ""
        raise ConversionError(
            f"{CONFIG}: model_type is {short_repr(kind)}, expected {' or '.join(MODEL_TYPES)}{hint}"
        )
    vision = (settings.get("vision_config") or {}) if kind == "siglip" else settings
    require_fixed(VISION_FIXED, vision)
    values = fields_of(VISION_FIELDS, DEFAULTS | vision)
    values |= {name: one_side(values[name], name) for name in ("image_size", "patch_size")}
    values["activation"] = activation_of(values["activation"])
    return from_dict(EncoderConfig, {"kind": "siglip", **values}, CONFIG)


def read(source: str, *, config: str = "git_base", seed: int = 0, **hub: Any) -> Checkpoint:
    """An untrained GIT with the image encoder of a SigLIP; see `towers.untrained`.

    Args:
        source: a folder in Transformers' form (`SiglipModel` or `SiglipVisionModel`), or a hub id.
        config: everything but the encoder: a configuration's name or .toml file.
        hub: of a hub id: arguments of `find_folder`, such as its revision.

    Raises:
        GITError: it cannot be read, or is not a SigLIP.
    """
    base = named_config(config)
    folder = find_folder(source, **hub)
    weights = next((folder / name for name in WEIGHT_FILES if is_file(folder / name)), None)
    if weights is None:
        raise ConversionError(f"{folder}: no weights, expected one of {', '.join(WEIGHT_FILES)}")
    images = processor.find_settings(folder)
    try:
        encoder = read_config(read_mapping(folder / CONFIG))
        state = read_encoder(TABLE, _open_vision(weights), encoder, torch.float32)
        pixels = siglip_preprocess(encoder.image_size)
        if images is not None:
            pixels = processor.read_preprocess(images)
    except GITError as error:
        raise ConversionError(f"{folder}: {error}") from None
    return untrained(encoder, state, base, preprocess=pixels, seed=seed)


def _open_vision(path: Path) -> Tensors:
    """The tensors of a file. If it holds the vision tower alone, they get the prefix that they have
    in the whole model."""
    source = open_tensors(path)
    if any(name.startswith("vision_model.") for name in source):
        return source
    return LazyTensors({f"vision_model.{n}": partial(source.__getitem__, n) for n in source})
