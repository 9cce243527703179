"""A model of the library timm, with its weights -> the image encoder of an untrained GIT."""

from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from git_model.checkpoints.native import require_header
from git_model.config import PreprocessConfig, Resample, TowerConfig, named_config
from git_model.model.towers import TimmEncoder, import_timm, require_timm_model
from weights_convert.files import Checkpoint
from weights_convert.rules import ConversionError
from weights_convert.towers import untrained


def read(
    source: str, *, weights: Path | None = None, config: str = "git_base", seed: int = 0
) -> Checkpoint:
    """An untrained GIT with an image encoder of timm; see `towers.untrained`.

    Args:
        source: a model's name, with or without the tag of its weights, such as
            "vit_small_patch14_dinov2.lvd142m". The tag also decides mean, std and size.
        weights: a .safetensors file of that model's; by default timm downloads them.
        config: everything but the encoder: a configuration's name or .toml file.

    Raises:
        GITError: the library is missing or has no such model, or the model gives no tokens.
    """
    timm, base = import_timm(), named_config(config)
    name = source.partition(".")[0]
    require_timm_model(name)
    try:
        settings = timm.get_pretrained_cfg(source, allow_unregistered=False)
    except RuntimeError:
        tags = ", ".join(timm.list_pretrained(f"{name}.*")[:5]) or f"{name} alone"
        raise ConversionError(f"timm has no weights {source}, expected one of {tags}") from None
    size = settings.input_size[-1]
    encoder = TowerConfig(
        kind="timm", name=name, image_size=size, width=token_width(name, size), norm_eps=1e-5
    )
    state = _state(TimmEncoder(encoder), _library_state(timm, source, weights), source)
    return untrained(encoder, state, base, preprocess=preprocess(settings), seed=seed)


def token_width(name: str, image_size: int) -> int:
    """The width of the tokens of a model of timm, computed without its weights.

    Raises:
        GITError: the model gives no tokens.
    """
    with torch.device("meta"):
        encoder = TimmEncoder(TowerConfig(kind="timm", name=name, image_size=image_size, width=1))
        tokens: Tensor = encoder.eval()(torch.empty(1, 3, image_size, image_size))
    return tokens.shape[-1]


def preprocess(settings: Any) -> PreprocessConfig:
    """The preprocessing with which timm evaluates a model, from its PretrainedCfg.

    Raises:
        ConversionError: this project has no such step.
    """
    size = settings.input_size[-1]
    resample: Any = "bicubic" if settings.interpolation == "random" else settings.interpolation
    if settings.crop_mode not in ("center", "squash") or resample not in get_args(Resample):
        raise ConversionError(
            f"timm's {settings.architecture} crops by {settings.crop_mode!r} and resizes by "
            f"{resample!r}, expected center or squash, and one of {', '.join(get_args(Resample))}"
        )
    side = int(size / settings.crop_pct)
    is_squash = settings.crop_mode == "squash"
    return PreprocessConfig(
        short_side=None if is_squash else side,
        exact=(side, side) if is_squash else None,
        crop=(size, size),
        resample=resample,
        mean=settings.mean,
        std=settings.std,
    )


def _library_state(timm: Any, source: str, weights: Path | None) -> dict[str, Tensor]:
    """The tensors of the library's model, which knows how to read every form of its files."""
    overlay: dict[str, Any] = {}
    if weights is not None:
        if weights.suffix != ".safetensors":
            raise ConversionError(f"{weights}: expected a .safetensors file")
        require_header(weights)
        overlay = {"file": str(weights), "hf_hub_id": None, "url": None}
    try:
        model = timm.create_model(source, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # networks, files and models fail in many ways
        where = source if weights is None else str(weights)
        reason = " ".join(str(error).split())
        raise ConversionError(f"{where}: timm cannot load the weights: {reason}") from None
    state: dict[str, Tensor] = model.state_dict()
    return state


def _state(encoder: TimmEncoder, library: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """The encoder's tensors among those of the library's model; the encoder has no head."""
    names = encoder.state_dict()
    missing = sorted(name for name in names if name.removeprefix("trunk.") not in library)
    if missing:
        raise ConversionError(f"{source}: tensor {missing[0]} is missing")
    return {name: library[name.removeprefix("trunk.")] for name in names}
