"""Hugging Face's generation_config.json <-> this project's decoding options and special ids.

Source: transformers/generation/configuration_utils.py and utils.py, version 5.24. An option that
changes texts and that this project does not have is refused by name. Options that change only the
speed (caches, assistants, compilation) are ignored, as are keys that Transformers does not use.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from git_model.checkpoints.native import CONFIG
from git_model.config import DecodingOptions, GITConfig
from git_model.utils.serialize import from_dict, is_file, read_mapping, short_repr
from weights_convert.rules import ConversionError
from weights_convert.towers import decoding_of

FILE = "generation_config.json"

# Options with the same name and meaning in Transformers and in this project.
SAME = (
    "max_new_tokens", "max_length", "min_new_tokens", "min_length", "num_beams", "length_penalty",
    "early_stopping", "num_return_sequences", "do_sample", "temperature", "top_k", "top_p",
    "repetition_penalty", "no_repeat_ngram_size", "suppress_tokens",
)  # fmt: skip
SAMPLING = ("temperature", "top_k", "top_p")  # options that matter only with do_sample
# Options that change texts and that this project does not have -> their values without effect.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "bad_words_ids": (),
    "begin_suppress_tokens": (),
    "constraints": (),
    "diversity_penalty": (0.0,),
    "dola_layers": (),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "exponential_decay_length_penalty": (),
    "force_words_ids": (),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "guidance_scale": (1.0,),
    "max_time": (),
    "min_p": (0.0,),
    "num_beam_groups": (1,),
    "penalty_alpha": (0.0,),
    "renormalize_logits": (False,),
    "sequence_bias": (),
    "stop_strings": (),
    "token_healing": (False,),
    "top_h": (),
    "typical_p": (1.0,),
    "watermarking_config": (),
}
DEFAULT_TOP_K = 50  # of `generate` when it samples


def find_generation(folder: Path, model_settings: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The generation settings of a folder, and the name of their file: generation_config.json, or
    if it is missing config.json, where Transformers 4 stored them and Transformers 5 still reads
    them.

    Args:
        model_settings: the content of config.json.
    """
    if is_file(folder / FILE):
        return read_mapping(folder / FILE), FILE
    return dict(model_settings), CONFIG


def read_generation(settings: Mapping[str, Any], where: str, config: GITConfig) -> GITConfig:
    """The configuration with the decoding options and the special ids of these settings.

    If generation_config.json has no end token, that of config.json ends a text. (Transformers then
    generates up to the maximum length.)

    Args:
        where: the name of the file, for errors.
        config: from config.json.

    Raises:
        ConversionError: an option that this project does not have, or a wrong value.
    """
    settings = {key: value for key, value in settings.items() if value is not None}
    _refuse_unsupported(settings, where)
    options = {key: settings[key] for key in SAME if key in settings}
    if options.get("do_sample"):
        options.setdefault("top_k", DEFAULT_TOP_K)
    else:
        options = {key: value for key, value in options.items() if key not in SAMPLING}
    if "max_new_tokens" in options:
        options.pop("max_length", None)  # max_new_tokens takes precedence there
    elif "max_length" in options:
        options["max_new_tokens"] = config.decoder.positions
    if "min_new_tokens" in options:
        options.pop("min_length", None)  # likewise
    options.setdefault("suppress_tokens", list(config.decoding.suppress_tokens))
    decoding = from_dict(DecodingOptions, options, where)
    return dataclasses.replace(config, decoding=decoding, **_special_ids(settings, config, where))


def write_generation(config: GITConfig) -> dict[str, Any]:
    """The generation_config.json with which `generate` decodes as these options do.

    Raises:
        ConversionError: Transformers has no such option.
    """
    decoding, default = config.decoding, DecodingOptions()
    for name in ("no_repeat_token", "style"):
        value = getattr(decoding, name)
        if value != getattr(default, name):
            raise ConversionError(
                f"decoding: {name} is {value!r}, which Hugging Face does not have"
            )
    options = {
        key: getattr(decoding, key)
        for key in SAME
        if getattr(decoding, key) != getattr(default, key)
    }
    if decoding.do_sample:
        options["top_k"] = decoding.top_k
    else:
        options = {key: value for key, value in options.items() if key not in SAMPLING}
    options |= _lengths(decoding)
    without = decoding_of("huggingface", config.encoder, config.decoder.vocab_size).suppress_tokens
    if decoding.suppress_tokens != without:
        options["suppress_tokens"] = decoding.suppress_tokens
    ids = {"bos_token_id": config.bos_id, "pad_token_id": config.pad_id}
    options = {key: value for key, value in options.items() if value is not None}
    return ids | {"eos_token_id": as_setting(config.eos_ids)} | options


def end_tokens(value: Any, where: str) -> tuple[int, ...]:
    """`eos_token_id`, a number or a list of numbers, as `eos_ids`."""
    ids = value if isinstance(value, list) else [value]
    if not ids or not all(type(item) is int for item in ids):
        raise ConversionError(
            f"{where}: eos_token_id is {short_repr(value)}, expected one id or a list"
        )
    return tuple(ids)


def as_setting(ids: tuple[int, ...]) -> int | list[int]:
    """`eos_ids` as `eos_token_id`."""
    return ids[0] if len(ids) == 1 else list(ids)


def _refuse_unsupported(settings: Mapping[str, Any], where: str) -> None:
    for key, neutral in UNSUPPORTED.items():
        if key in settings and settings[key] not in (*neutral, [], {}):
            raise ConversionError(
                f"{where}: {key} is {short_repr(settings[key])}, which git-model does not have: "
                "remove it to decode without"
            )


def _special_ids(settings: Mapping[str, Any], config: GITConfig, where: str) -> dict[str, Any]:
    """The ids that replace those of config.json. The end token of config.json stays the first: it
    ends training texts."""
    ids: dict[str, Any] = {
        name: settings[key]
        for key, name in (("bos_token_id", "bos_id"), ("pad_token_id", "pad_id"))
        if type(settings.get(key)) is int
    }
    if "eos_token_id" in settings:
        eos_ids = end_tokens(settings["eos_token_id"], where)
        ids["eos_ids"] = tuple(sorted(eos_ids, key=lambda index: index != config.eos_id))
    return ids


def _lengths(decoding: DecodingOptions) -> dict[str, int | None]:
    """The limits of the length. If two are set, Transformers obeys that for new tokens, and this
    project obeys both."""
    if decoding.max_length is None:
        limits: dict[str, int | None] = {"max_new_tokens": decoding.max_new_tokens}
    elif decoding.max_new_tokens < decoding.max_length - 1:  # a prompt has at least one token
        raise ConversionError(
            "decoding: max_length and max_new_tokens are both set, but Hugging Face obeys only one"
        )
    else:
        limits = {"max_new_tokens": None, "max_length": decoding.max_length}
    if decoding.min_length <= decoding.min_new_tokens + 1:
        return limits | {"min_length": None}
    if decoding.min_new_tokens:
        raise ConversionError(
            "decoding: min_length and min_new_tokens are both set, but Hugging Face obeys only one"
        )
    return limits
