"""The original's checkpoints: `snapshot/model.pt` and `parameter.yaml` -> this project.

Source: microsoft/GenerativeImage2Text, model.py (`get_git_model`) and inference.py. Its files hold
neither a vocabulary nor special ids, and few sizes: the others follow from the tensors' shapes.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from git_model.config import (
    MAX_SIZE,
    DecoderConfig,
    EncoderConfig,
    GITConfig,
    PreprocessConfig,
    style_preprocess,
)
from git_model.utils.errors import GITError
from git_model.utils.serialize import is_file, read_text, short_repr
from weights_convert.files import Checkpoint, open_tensors
from weights_convert.rules import ConversionError, Rule, Tensors, apply, nested, stack
from weights_convert.towers import (
    BERT_LAYERS,
    CLIP,
    clip_config,
    count_layers,
    decoding_of,
    empty_tensors,
    heads_of,
    shape_of,
)

WEIGHT_FILES = ("snapshot/model.pt", "model.pt")
PARAMETERS = "parameter.yaml"

TABLE = (
    *nested("image_encoder", "encoder", CLIP),
    Rule("img_temperal_embedding.#", "temporal_embedding", stack),  # the original's spelling
    Rule("textual.visual_projection.0.*", "projector.linear.*"),
    Rule("textual.visual_projection.1.*", "projector.norm.*"),
    Rule("textual.embedding.words.weight", "decoder.token_embedding.weight"),
    Rule("textual.embedding.positions.weight", "decoder.position_embedding.weight"),
    Rule("textual.embedding.layer_norm.*", "decoder.embedding_norm.*"),
    *nested("textual.transformer.encoder.layer", "decoder.blocks", BERT_LAYERS),
    Rule("textual.output.bias", "decoder.lm_head.bias"),
)
OUTPUT, WORDS = "textual.output.weight", "textual.embedding.words.weight"

# The two encoders of parameter.yaml: width, layers, patch size.
ENCODERS = {"CLIPViT_B_16": (768, 12, 16), "CLIPViT_L_14": (1024, 24, 14)}
NUMBERS = (
    "test_crop_size",
    "test_respect_ratio_max",
    "num_image_with_embedding",
    "visual_feature_size",
)


def rules(tied: bool) -> tuple[Rule, ...]:
    """The whole table. In a tied model the output weight repeats the token embedding, so it is
    dropped."""
    return (*TABLE, Rule(OUTPUT, None if tied else "decoder.lm_head.weight"))


def find_weights(folder: Path) -> Path | None:
    """The original's weight file in a folder, or None."""
    return next((folder / name for name in WEIGHT_FILES if is_file(folder / name)), None)


def read_folder(
    folder: Path,
    *,
    dtype: torch.dtype | None = torch.float32,
    bos_id: int = 101,
    eos_id: int = 102,
    pad_id: int = 0,
) -> Checkpoint:
    """The checkpoint in an original folder; it has no vocabulary.

    Args:
        dtype: of the tensors; None keeps the file's.
        bos_id, eos_id, pad_id: the special tokens of its vocabulary, by default [CLS], [SEP] and
            [PAD] of bert-base-uncased.

    Raises:
        GITError: a file is missing or damaged, or this project does not support such a model.
    """
    weights = find_weights(folder)
    if weights is None:
        raise ConversionError(f"{folder}: no weights, expected {' or '.join(WEIGHT_FILES)}")
    parameters = read_parameters(folder / PARAMETERS)
    source = open_tensors(weights)
    try:
        config = read_config(
            source, parameters, {"bos_id": bos_id, "eos_id": eos_id, "pad_id": pad_id}
        )
        state = dict(apply(rules(config.decoder.tied), source, empty_tensors(config), dtype))
    except GITError as error:
        raise ConversionError(f"{folder}: {error}") from None
    return Checkpoint(config, state, None)


class _PlainLoader(yaml.SafeLoader):
    """Plain values only, no aliases: a few lines of aliases of aliases expand to a billion values,
    and no parameter.yaml has one."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias, expected plain values")
        return super().compose_node(parent, index)


def read_parameters(path: Path) -> dict[str, Any] | None:
    """The parameters in a parameter.yaml; None without the file.

    Raises:
        ConversionError: it cannot be read, or has an unknown key or a wrong value.
    """
    if not is_file(path):
        return None
    text = read_text(path)
    try:
        parameters = yaml.load(text, Loader=_PlainLoader) or {}  # noqa: S506  (a SafeLoader)
    except Exception as error:  # PyYAML raises almost anything about a value that is not its tag's
        raise ConversionError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(parameters, dict):
        raise ConversionError(f"{path}: expected a table, found {type(parameters).__name__}")
    for key, value in parameters.items():
        if key == "image_encoder_type":
            if value not in tuple(ENCODERS):
                raise ConversionError(
                    f"{path}: {key} is {short_repr(value)}, expected {' or '.join(ENCODERS)}"
                )
        elif key not in NUMBERS:
            keys = ", ".join((*NUMBERS, "image_encoder_type"))
            raise ConversionError(f"{path}: unknown key {short_repr(key)}, expected one of {keys}")
        elif type(value) is not int or not 1 <= value <= MAX_SIZE:
            raise ConversionError(
                f"{path}: {key} is {short_repr(value)}, expected a number from 1 to {MAX_SIZE}"
            )
    return parameters


def read_config(
    source: Tensors, parameters: Mapping[str, Any] | None, ids: Mapping[str, int]
) -> GITConfig:
    """The configuration that follows from the tensors' shapes.

    Raises:
        ConversionError: parameter.yaml contradicts it, or a tensor is missing.
    """
    encoder = clip_config(source, "image_encoder")
    frames = sum(name.startswith("img_temperal_embedding.") for name in source)
    _agree(parameters or {}, encoder, frames)
    image_size = (parameters or {}).get("test_crop_size", encoder.image_size)
    decoder = _decoder_config(source)
    for name, value in ids.items():
        if not 0 <= value < decoder.vocab_size:
            raise ConversionError(
                f"{name} is {value}, but the vocabulary has {decoder.vocab_size} tokens: give the "
                "ids that the model was trained with (--bos-id, --eos-id, --pad-id)"
            )
    return GITConfig(
        encoder=dataclasses.replace(encoder, image_size=image_size),
        decoder=decoder,
        decoding=decoding_of("microsoft", encoder, decoder.vocab_size),
        preprocess=_preprocess(parameters, image_size, video=frames > 0),
        frames=frames,
        style="microsoft",
        bos_id=ids["bos_id"],
        eos_ids=(ids["eos_id"],),
        pad_id=ids["pad_id"],
    )


def _decoder_config(source: Tensors) -> DecoderConfig:
    vocab_size, width = shape_of(source, WORDS, 2)
    layers = "textual.transformer.encoder.layer"
    return DecoderConfig(
        vocab_size=vocab_size,
        positions=shape_of(source, "textual.embedding.positions.weight", 2)[0],
        width=width,
        layers=count_layers(source, layers),
        heads=heads_of(width, "decoder"),
        mlp_width=shape_of(source, f"{layers}.0.intermediate.dense.weight", 2)[0],
        embedding_norm_eps=1e-8,
        tied=OUTPUT in source and torch.equal(source[OUTPUT], source[WORDS]),
    )


def _agree(parameters: Mapping[str, Any], encoder: EncoderConfig, frames: int) -> None:
    """Refuse a parameter.yaml that contradicts the tensors: it belongs to another model."""
    sizes: dict[str, Any] = {
        "num_image_with_embedding": frames,
        "visual_feature_size": encoder.width,
        "test_crop_size": encoder.image_size,
        "image_encoder_type": (encoder.width, encoder.layers, encoder.patch_size),
    }
    for key in parameters.keys() & sizes.keys():
        size = value = parameters[key]
        if key == "image_encoder_type":
            size = ENCODERS[value]
        elif key == "test_crop_size":
            size = value // encoder.patch_size * encoder.patch_size  # in whole patches
        if size != sizes[key]:
            raise ConversionError(
                f"{PARAMETERS}: {key} is {value}, but the tensors show {sizes[key]}"
            )


def _preprocess(
    parameters: Mapping[str, Any] | None, image_size: int, *, video: bool
) -> PreprocessConfig:
    """The preprocessing by parameter.yaml; without it, that of the released checkpoint of this
    size."""
    default = style_preprocess("microsoft", image_size=image_size, video=video)
    if parameters is None:
        return default
    long_side_max = parameters.get("test_respect_ratio_max")
    crop = None if long_side_max else (image_size, image_size)
    return dataclasses.replace(default, long_side_max=long_side_max, crop=crop)
