"""Hugging Face's generation_config.json <-> our decoding options and end tokens.

Source: transformers/generation/configuration_utils.py, version 5.24. What this project does not
have is refused by name, because ignoring it would change the texts.
"""

import dataclasses
from pathlib import Path
from typing import Any

from git_model.config import DecodingOptions, GITConfig
from git_model.utils.serialize import from_dict, is_file, read_mapping, shown
from weights_convert.rules import ConversionError

FILE = "generation_config.json"

# Options with the same name and meaning as ours.
SAME = (
    "max_new_tokens", "max_length", "min_new_tokens", "min_length", "num_beams", "length_penalty",
    "early_stopping", "num_return_sequences", "do_sample", "temperature", "top_k", "top_p",
    "repetition_penalty", "no_repeat_ngram_size", "suppress_tokens",
)  # fmt: skip
# Options that change texts and that this project does not have, with the values that change nothing.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "bad_words_ids": (),
    "begin_suppress_tokens": (),
    "constraints": (),
    "diversity_penalty": (0.0,),
    "dola_layers": (),
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


def read_generation(folder: Path, config: GITConfig) -> GITConfig:
    """The configuration with what a folder's generation_config.json says, if it has one.

    Raises:
        ConversionError: an option that this project does not have, or a wrong value.
    """
    path = folder / FILE
    if not is_file(path):
        return config
    settings = {key: value for key, value in read_mapping(path).items() if value is not None}
    for key, neutral in UNSUPPORTED.items():
        if key in settings and settings[key] not in (*neutral, [], {}):
            raise ConversionError(
                f"{FILE}: {key} is {shown(settings[key])}, which git-model does not have: remove it "
                "to decode without"
            )
    options = {key: settings[key] for key in SAME if key in settings}
    if options.get("do_sample"):
        options.setdefault("top_k", DEFAULT_TOP_K)
    else:  # without sampling Transformers ignores these, whatever their values
        options = {k: v for k, v in options.items() if k not in ("temperature", "top_k", "top_p")}
    if "max_new_tokens" in options:
        options.pop("max_length", None)  # the former takes precedence there
    elif "max_length" in options:
        options["max_new_tokens"] = config.decoder.positions
    if "suppress_tokens" not in options:
        options["suppress_tokens"] = list(config.decoding.suppress_tokens)
    decoding = from_dict(DecodingOptions, options, FILE)
    changes: dict[str, Any] = {"decoding": decoding}
    if "eos_token_id" in settings:
        changes["eos_ids"] = end_tokens(settings["eos_token_id"], FILE)
    for key, name in (("bos_token_id", "bos_id"), ("pad_token_id", "pad_id")):
        if type(settings.get(key)) is int:
            changes[name] = settings[key]
    return dataclasses.replace(config, **changes)


def write_generation(config: GITConfig) -> dict[str, Any]:
    """The generation_config.json that makes `generate` decode as our options do.

    Raises:
        ConversionError: it has no such option.
    """
    decoding, default = config.decoding, DecodingOptions()
    for name in ("no_repeat_token",):
        if getattr(decoding, name) != getattr(default, name):
            raise ConversionError(f"decoding: {name} is set, which Hugging Face does not have")
    options = {
        key: getattr(decoding, key)
        for key in SAME
        if getattr(decoding, key) != getattr(default, key)
    }
    if "max_length" not in options:
        options["max_new_tokens"] = decoding.max_new_tokens
    else:
        options.pop("max_new_tokens", None)
    if decoding.do_sample:
        options["top_k"] = decoding.top_k
    ids = {"bos_token_id": config.bos_id, "pad_token_id": config.pad_id}
    return ids | {"eos_token_id": as_setting(config.eos_ids)} | options


def end_tokens(value: Any, where: str) -> tuple[int, ...]:
    """`eos_token_id` as our `eos_ids`: a number there, or a list of them."""
    ids = value if isinstance(value, list) else [value]
    if not ids or not all(type(item) is int for item in ids):
        raise ConversionError(f"{where}: eos_token_id is {shown(value)}, expected one id or a list")
    return tuple(ids)


def as_setting(ids: tuple[int, ...]) -> int | list[int]:
    """Our `eos_ids` as `eos_token_id`."""
    return ids[0] if len(ids) == 1 else list(ids)
