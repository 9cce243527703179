"""Common parts of several formats: CLIP's names for a vision transformer, BERT's names for a text
layer, and a transformer's sizes from the shapes of its tensors."""

import dataclasses
from collections.abc import Sequence
from math import isqrt

import torch
from torch import Tensor

from git_model.config import (
    Activation,
    DecodingOptions,
    EncoderConfig,
    GITConfig,
    PreprocessConfig,
    Style,
    TowerConfig,
    style_decoding,
    style_preprocess,
)
from git_model.model.git import GIT
from weights_convert.files import Checkpoint
from weights_convert.rules import ConversionError, Rule, Tensors, apply, cat

HEAD_WIDTH = 64  # of every released CLIP and GIT; the shapes of the tensors do not show it

CLIP = (
    Rule("conv1.weight", "patch_embedding.weight"),
    Rule("class_embedding", "class_token"),
    Rule("positional_embedding", "position_embedding"),
    Rule("ln_pre.*", "pre_norm.*"),
    Rule("transformer.resblocks.*.ln_1.*", "blocks.*.attn_norm.*"),
    Rule("transformer.resblocks.*.attn.in_proj_*", "blocks.*.attn.qkv.*"),
    Rule("transformer.resblocks.*.attn.out_proj.*", "blocks.*.attn.out.*"),
    Rule("transformer.resblocks.*.ln_2.*", "blocks.*.mlp_norm.*"),
    Rule("transformer.resblocks.*.mlp.c_fc.*", "blocks.*.mlp.up.*"),
    Rule("transformer.resblocks.*.mlp.c_proj.*", "blocks.*.mlp.down.*"),
    Rule("ln_post.*", "post_norm.*"),
    Rule("proj", None),  # CLIP's projection of the class token to the space shared with text
)

UNUSED = 1  # [unused0] of bert-base-uncased

_ATTENTION = "*.attention.self"
BERT_LAYERS = (
    Rule(
        (f"{_ATTENTION}.query.*", f"{_ATTENTION}.key.*", f"{_ATTENTION}.value.*"),
        "*.attn.qkv.*",
        cat,
    ),
    Rule("*.attention.output.dense.*", "*.attn.out.*"),
    Rule("*.attention.output.LayerNorm.*", "*.attn_norm.*"),
    Rule("*.intermediate.dense.*", "*.mlp.up.*"),
    Rule("*.output.dense.*", "*.mlp.down.*"),
    Rule("*.output.LayerNorm.*", "*.mlp_norm.*"),
)


def empty_tensors(config: GITConfig) -> Tensors:
    """The tensors of a model of this configuration on the meta device: names and shapes only."""
    with torch.device("meta"):
        return GIT(config).tensors()


def decoding_of(
    style: Style, encoder: EncoderConfig | TowerConfig, vocab_size: int
) -> DecodingOptions:
    """The style's decoding options. The released large models suppress [unused0], which their
    captions would contain otherwise."""
    layers = encoder.layers if isinstance(encoder, EncoderConfig) else 0
    is_large = (encoder.width, layers, vocab_size) == (1024, 24, 30522)
    return dataclasses.replace(style_decoding(style), suppress_tokens=(UNUSED,) if is_large else ())


def untrained(
    encoder: EncoderConfig | TowerConfig,
    state: Tensors,
    base: GITConfig,
    *,
    preprocess: PreprocessConfig | None = None,
    seed: int = 0,
) -> Checkpoint:
    """An untrained GIT: this encoder, and a decoder with BERT's random initialisation.

    Args:
        state: the encoder's tensors, by their names in it.
        base: everything but the encoder and the preprocessing.
        preprocess: by default that of the base's style, at the encoder's size.
        seed: of the random weights.
    """
    if preprocess is None:
        preprocess = style_preprocess(
            base.style, image_size=encoder.image_size, video=base.frames > 0
        )
    config = dataclasses.replace(base, encoder=encoder, preprocess=preprocess)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tensors = GIT(config).tensors()
    tensors |= {f"encoder.{name}": tensor for name, tensor in state.items()}
    return Checkpoint(config, tensors, None)


def read_encoder(
    rules: Sequence[Rule],
    source: Tensors,
    config: EncoderConfig,
    dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """The tensors of this project's encoder, by their names in it.

    Raises:
        ConversionError: a tensor is missing, unexpected or misshapen; it is named.
    """
    model = empty_tensors(GITConfig(encoder=config)).items()
    targets = {name: tensor for name, tensor in model if name.startswith("encoder.")}
    state = apply(rules, source, targets, dtype)
    return {name.removeprefix("encoder."): tensor for name, tensor in state}


def shape_of(source: Tensors, name: str, dims: int) -> tuple[int, ...]:
    """The shape of a tensor, which must have `dims` dimensions.

    Raises:
        ConversionError: it is missing, or has another number of dimensions.
    """
    if name not in source:
        similar = next((key for key in source if key.endswith(f".{name}")), None)
        hint = f"; {similar} is there, so remove its prefix" if similar else ""
        raise ConversionError(f"tensor {name} is missing{hint}")
    shape = tuple(source[name].shape)
    if len(shape) != dims:
        raise ConversionError(f"tensor {name} has shape {shape}, expected {dims} dimensions")
    return shape


def count_layers(source: Tensors, prefix: str) -> int:
    """The number of layers named `prefix.0`, `prefix.1`, …"""
    dots = prefix.count(".") + 1
    return len({name.split(".")[dots] for name in source if name.startswith(f"{prefix}.")})


def heads_of(width: int, tower: str) -> int:
    """The number of heads of a transformer of this width, each 64 wide."""
    if width % HEAD_WIDTH:
        raise ConversionError(f"{tower}: width {width} is not a multiple of {HEAD_WIDTH}")
    return width // HEAD_WIDTH


def clip_config(
    source: Tensors, prefix: str, *, activation: Activation = "quick_gelu", heads: int | None = None
) -> EncoderConfig:
    """The sizes of the vision transformer whose tensors begin with `prefix.`.

    Args:
        heads: by default one per 64 of the width.
    """
    width, _, patch, _ = shape_of(source, f"{prefix}.conv1.weight", 4)
    positions, _ = shape_of(source, f"{prefix}.positional_embedding", 2)
    grid = isqrt(max(positions - 1, 0))
    if grid**2 != positions - 1:
        raise ConversionError(
            f"tensor {prefix}.positional_embedding has {positions} rows, expected 1 and a square"
        )
    blocks = f"{prefix}.transformer.resblocks"
    return EncoderConfig(
        image_size=grid * patch,
        patch_size=patch,
        width=width,
        layers=count_layers(source, blocks),
        heads=heads_of(width, "encoder") if heads is None else heads,
        mlp_width=shape_of(source, f"{blocks}.0.mlp.c_fc.weight", 2)[0],
        activation=activation,
    )
