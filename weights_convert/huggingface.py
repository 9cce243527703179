"""A `GitForCausalLM` of Transformers <-> this project: tensors, configuration, vocabulary.

Source: transformers/models/git, version 5.24. Older versions spell one name differently.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor

from git_model.checkpoints.native import CONFIG, WEIGHTS, is_checkpoint
from git_model.config import (
    Activation,
    DecoderConfig,
    EncoderConfig,
    GITConfig,
    style_preprocess,
)
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.preprocessing.tokenizer_files import JSON, SETTINGS, UNK
from git_model.utils.atomic import new_folder
from git_model.utils.errors import GITError
from git_model.utils.serialize import from_dict, is_file, read_mapping, short_repr
from weights_convert import processor
from weights_convert.files import INDEX, Checkpoint, open_tensors, open_tokenizer
from weights_convert.generation_config import FILE as GENERATION
from weights_convert.generation_config import (
    as_setting,
    end_tokens,
    find_generation,
    read_generation,
    write_generation,
)
from weights_convert.rules import ConversionError, Rule, Tensors, apply, cat, nested, stack, undo
from weights_convert.towers import BERT_LAYERS, decoding_of, empty_tensors

PICKLE = "pytorch_model.bin"
WEIGHT_FILES = (WEIGHTS, WEIGHTS + INDEX, PICKLE, PICKLE + INDEX)  # in order of preference

VISION_LAYERS = (  # CLIP's and SigLIP's
    Rule("encoder.layers.*.layer_norm1.*", "blocks.*.attn_norm.*"),
    Rule(
        (
            "encoder.layers.*.self_attn.q_proj.*",
            "encoder.layers.*.self_attn.k_proj.*",
            "encoder.layers.*.self_attn.v_proj.*",
        ),
        "blocks.*.attn.qkv.*",
        cat,
    ),
    Rule("encoder.layers.*.self_attn.out_proj.*", "blocks.*.attn.out.*"),
    Rule("encoder.layers.*.layer_norm2.*", "blocks.*.mlp_norm.*"),
    Rule("encoder.layers.*.mlp.fc1.*", "blocks.*.mlp.up.*"),
    Rule("encoder.layers.*.mlp.fc2.*", "blocks.*.mlp.down.*"),
    Rule("post_layernorm.*", "post_norm.*"),
)
VISION = (
    Rule("embeddings.class_embedding", "class_token"),
    Rule("embeddings.patch_embedding.weight", "patch_embedding.weight"),
    Rule("embeddings.position_embedding.weight", "position_embedding"),
    Rule("pre_layrnorm.*", "pre_norm.*"),
    *VISION_LAYERS,
    Rule("embeddings.position_ids", None),  # 0, 1, 2, …: stored by old versions
)

TABLE = (
    *nested("git.image_encoder.vision_model", "encoder", VISION),
    Rule("git.img_temporal_embedding.#", "temporal_embedding", stack),
    Rule(
        "git.img_temperal_embedding.#", "temporal_embedding", stack
    ),  # the spelling before version 5
    Rule("git.visual_projection.visual_projection.0.*", "projector.linear.*"),
    Rule("git.visual_projection.visual_projection.1.*", "projector.norm.*"),
    Rule("git.embeddings.word_embeddings.weight", "decoder.token_embedding.weight"),
    Rule("git.embeddings.position_embeddings.weight", "decoder.position_embedding.weight"),
    Rule("git.embeddings.LayerNorm.*", "decoder.embedding_norm.*"),
    Rule("git.embeddings.position_ids", None),
    *nested("git.encoder.layer", "decoder.blocks", BERT_LAYERS),
    Rule("output.bias", "decoder.lm_head.bias"),
)
OUTPUT, WORDS = "output.weight", "git.embeddings.word_embeddings.weight"

# Transformers' name -> this project's field, and the default of a key that config.json leaves out.
VISION_FIELDS: dict[str, tuple[str, Any]] = {
    "image_size": ("image_size", 224),
    "patch_size": ("patch_size", 16),
    "hidden_size": ("width", 768),
    "num_hidden_layers": ("layers", 12),
    "num_attention_heads": ("heads", 12),
    "intermediate_size": ("mlp_width", 3072),
    "hidden_act": ("activation", "quick_gelu"),
    "layer_norm_eps": ("norm_eps", 1e-5),
    "attention_dropout": ("attention_dropout", 0.0),
}
TEXT_FIELDS: dict[str, tuple[str, Any]] = {
    "vocab_size": ("vocab_size", 30522),
    "max_position_embeddings": ("positions", 1024),
    "hidden_size": ("width", 768),
    "num_hidden_layers": ("layers", 6),
    "num_attention_heads": ("heads", 12),
    "intermediate_size": ("mlp_width", 3072),
    "hidden_act": ("activation", "gelu"),
    "layer_norm_eps": ("norm_eps", 1e-12),
    "hidden_dropout_prob": ("dropout", 0.1),
    "attention_probs_dropout_prob": ("attention_dropout", 0.1),
    "tie_word_embeddings": ("tied", False),
}
ID_FIELDS: dict[str, tuple[str, Any]] = {
    "bos_token_id": ("bos_id", 101),
    "eos_token_id": ("eos_ids", 102),
    "pad_token_id": ("pad_id", 0),
}

# Settings whose other values change the computation in a way that this project does not have.
FIXED: dict[str, Any] = {
    "model_type": "git",
    "position_embedding_type": "absolute",
    "quantization_config": None,
}
VISION_FIXED: dict[str, Any] = {"num_channels": 3}
PURPOSE_FIELDS = ("purpose", "purpose_side")  # this project's; Transformers keeps unknown keys


# Transformers' name of an activation -> this project's name.
ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
TO_HF_ACTIVATION = {"gelu_tanh": "gelu_pytorch_tanh"}


def rules(tied: bool) -> tuple[Rule, ...]:
    """The whole table; a tied model's output weight is its token embedding, so it is dropped."""
    return (*TABLE, Rule(OUTPUT, None if tied else "decoder.lm_head.weight"))


def read_config(settings: Mapping[str, Any]) -> GITConfig:
    """This project's configuration for a config.json of Transformers, which may leave out defaults.

    Unknown keys are ignored, as in Transformers.

    Raises:
        ConversionError: a setting that this project does not have.
    """
    vision = settings.get("vision_config") or {}
    if not isinstance(vision, Mapping):
        raise ConversionError(f"{CONFIG}: vision_config is {short_repr(vision)}, expected a table")
    require_fixed(FIXED, settings)
    require_fixed(VISION_FIXED, vision)
    encoder = fields_of(VISION_FIELDS, vision)
    encoder |= {name: one_side(encoder[name], name) for name in ("image_size", "patch_size")}
    ids = fields_of(ID_FIELDS, settings)
    ids["eos_ids"] = end_tokens(ids["eos_ids"], CONFIG)
    if ids["pad_id"] is None:
        ids["pad_id"] = ids["eos_ids"][0]  # as in their `generate`
    decoder = fields_of(TEXT_FIELDS, settings)
    for tower in (encoder, decoder):
        tower["activation"] = activation_of(tower["activation"])
    decoder["embedding_norm_eps"] = decoder["norm_eps"]
    config = from_dict(
        GITConfig,
        {
            "encoder": encoder,
            "decoder": decoder,
            "frames": settings.get("num_image_with_embedding") or 0,
            **ids,
            **{name: settings[name] for name in PURPOSE_FIELDS if name in settings},
        },
        CONFIG,
    )
    size, video = config.encoder.image_size, config.frames > 0
    return dataclasses.replace(
        config,
        preprocess=style_preprocess("huggingface", image_size=size, video=video),
        decoding=decoding_of("huggingface", config.encoder, config.decoder.vocab_size),
    )


def write_config(config: GITConfig) -> dict[str, Any]:
    """The config.json of Transformers for a configuration of this project.

    Raises:
        ConversionError: Transformers' model has no such setting.
    """
    require_clip_and_bert(config)
    encoder, decoder = cast(EncoderConfig, config.encoder), config.decoder
    if decoder.embedding_norm_eps != decoder.norm_eps:
        raise ConversionError(
            f"decoder: embedding_norm_eps is {decoder.embedding_norm_eps}, but Hugging Face has "
            f"one eps for all norms of the decoder, {decoder.norm_eps}: use the huggingface style"
        )
    return {
        "architectures": ["GitForCausalLM"],
        "model_type": "git",
        "num_image_with_embedding": config.frames or None,
        "bos_token_id": config.bos_id,
        "eos_token_id": as_setting(config.eos_ids),
        "pad_token_id": config.pad_id,
        **({name: getattr(config, name) for name in PURPOSE_FIELDS} if config.purpose else {}),
        **{key: getattr(decoder, name) for key, (name, _) in TEXT_FIELDS.items()},
        "hidden_act": TO_HF_ACTIVATION.get(decoder.activation, decoder.activation),
        "vision_config": {
            "model_type": "git_vision_model",
            **{key: getattr(encoder, name) for key, (name, _) in VISION_FIELDS.items()},
            "hidden_act": TO_HF_ACTIVATION.get(encoder.activation, encoder.activation),
        },
    }


def require_clip_and_bert(config: GITConfig) -> None:
    """Refuse a model that Transformers' `GitForCausalLM` cannot represent.

    Raises:
        ConversionError: it has another encoder than CLIP's, or another decoder than BERT's.
    """
    default = DecoderConfig()
    fixed = {"encoder: kind": (config.encoder.kind, "clip")}
    fixed |= {
        f"decoder: {name}": (getattr(config.decoder, name), getattr(default, name))
        for name in ("norm", "norm_kind", "mask")
    }
    for name, (value, expected) in fixed.items():
        if value != expected:
            raise ConversionError(
                f"{name} is {value}, but Hugging Face's GIT has {expected} only: keep this model "
                "in this project's format"
            )


def read_state(
    source: Tensors, config: GITConfig, *, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Transformers' tensors under this project's names, for a model of this configuration.

    Raises:
        ConversionError: a tensor is missing, unexpected or misshapen; it is named.
    """
    return dict(apply(rules(config.decoder.tied), source, empty_tensors(config), dtype))


def write_state(state: Tensors, config: GITConfig) -> dict[str, Tensor]:
    """This project's tensors under Transformers' names."""
    return dict(undo(rules(config.decoder.tied), state))


def read_folder(folder: Path, *, dtype: torch.dtype | None = torch.float32) -> Checkpoint:
    """The checkpoint in a folder that Transformers can load.

    Args:
        dtype: of the tensors; None keeps the files'.

    Raises:
        GITError: a file is missing or damaged, or this project does not support such a model.
    """
    settings = read_mapping(folder / CONFIG)
    if is_checkpoint(folder):
        raise ConversionError(f"{folder}: in this project's format already")
    weights = next((folder / name for name in WEIGHT_FILES if is_file(folder / name)), None)
    if weights is None:
        raise ConversionError(f"{folder}: no weights, expected one of {', '.join(WEIGHT_FILES)}")
    source = open_tensors(weights)
    images = processor.find_settings(folder)
    try:
        config = _as_stored(read_config(settings), source)
        if images is not None:
            preprocess = processor.read_preprocess(images)
            config = dataclasses.replace(config, preprocess=preprocess)
        config = read_generation(*find_generation(folder, settings), config)
        state = read_state(source, config, dtype=dtype)
    except GITError as error:
        raise ConversionError(f"{folder}: {error}") from None
    return Checkpoint(config, state, open_tokenizer(folder))


def write_folder(folder: Path, checkpoint: Checkpoint) -> None:
    """A folder that `GitForCausalLM.from_pretrained` and `AutoProcessor.from_pretrained` load.

    Raises:
        GITError: the folder exists, or Transformers' model has no such setting.
    """
    config, state, tokenizer = checkpoint
    texts = {
        CONFIG: _json(write_config(config)),
        GENERATION: _json(write_generation(config)),
        processor.FILE: _json(
            processor.write_preprocess(config.preprocess, video=config.frames > 0)
        ),
    }
    if tokenizer is not None:
        texts[JSON] = tokenizer.to_json()
        texts[SETTINGS] = _json(_tokenizer_settings(config, tokenizer))
    tensors = {name: part.contiguous() for name, part in write_state(state, config).items()}
    with new_folder(folder) as temporary:
        for name, text in texts.items():
            (temporary / name).write_text(text, encoding="utf-8")
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})


def _as_stored(config: GITConfig, source: Tensors) -> GITConfig:
    """Untie the output layer if the file holds two different weights, as Transformers does."""
    if not config.decoder.tied or OUTPUT not in source or WORDS not in source:
        return config
    tied = torch.equal(source[OUTPUT], source[WORDS])
    return dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, tied=tied))


def fields_of(fields: Mapping[str, tuple[str, Any]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The values of this project's fields, by a table such as `VISION_FIELDS`."""
    return {name: settings.get(key, default) for key, (name, default) in fields.items()}


def activation_of(name: Any) -> Activation:
    """This project's name of an activation of Transformers."""
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ConversionError(
            f"{CONFIG}: hidden_act is {short_repr(name)}, expected one of {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]


def require_fixed(fixed: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse settings with another value than the only one that this project has."""
    for key, value in fixed.items():
        if settings.get(key, value) != value:
            raise ConversionError(
                f"{CONFIG}: {key} is {short_repr(settings[key])}, expected {value!r}"
            )


def one_side(size: Any, name: str) -> Any:
    """A size. It may be a list of two sides, which must be equal."""
    if not isinstance(size, list | tuple):
        return size
    if len(size) != 2 or size[0] != size[1]:
        raise ConversionError(f"{CONFIG}: {name} is {short_repr(size)}, expected a square")
    return size[0]


def _tokenizer_settings(config: GITConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    ids = [config.bos_id, config.eos_id, config.pad_id]
    cls, sep, pad = tokenizer.tokens(ids)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",  # reads tokenizer.json as it is
        "model_max_length": config.decoder.positions,
        "cls_token": cls,
        "sep_token": sep,
        "pad_token": pad,
        "unk_token": UNK,
    }


def _json(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, indent=2) + "\n"
