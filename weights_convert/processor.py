"""Transformers' image processor settings <-> PreprocessConfig."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from git_model.config import PreprocessConfig, Resample, style_preprocess
from git_model.utils.serialize import from_dict, is_file, read_mapping, shown, to_dict
from weights_convert.rules import ConversionError

FILE = "preprocessor_config.json"
NESTED_FILE = "processor_config.json"  # since Transformers 5, under "image_processor"
RESAMPLES = get_args(Resample)  # in the order of Pillow's numbers 0 to 5

# A processor's kind, as its name begins -> whether its defaults are those for video.
KINDS = {"CLIP": False, "VideoMAE": True}

# What a step's flag, set to false, leaves of it.
OFF: dict[str, dict[str, Any]] = {
    "do_resize": {"short_side": None, "exact": None},
    "do_center_crop": {"crop": None},
    "do_rescale": {"rescale": 1.0},
    "do_normalize": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
}
UNSUPPORTED = ("do_pad", "use_square_size")

# What an image processor has no word for has to be as Transformers does it.
ONLY_OURS = ("long_side_max", "transparency", "crop_offset", "upright", "scale_16_bit")


def find_settings(folder: Path) -> dict[str, Any] | None:
    """The image processor's settings in a folder, if it has any; the nested ones come first."""
    if is_file(folder / NESTED_FILE):
        nested = read_mapping(folder / NESTED_FILE).get("image_processor")
        if isinstance(nested, dict):
            return nested
    return read_mapping(folder / FILE) if is_file(folder / FILE) else None


def read_preprocess(settings: Mapping[str, Any]) -> PreprocessConfig:
    """The preprocessing that these settings of an image processor ask for.

    Raises:
        ConversionError: a kind of processor, or a setting, that this project does not have.
    """
    settings = {key: value for key, value in settings.items() if value is not None}
    kind = settings.get("image_processor_type", settings.get("feature_extractor_type", "CLIP"))
    is_video = next((video for name, video in KINDS.items() if _begins(kind, name)), None)
    if is_video is None:
        expected = " or ".join(KINDS)
        raise ConversionError(f"image_processor_type is {shown(kind)}, expected {expected}…")
    for key in UNSUPPORTED:
        if settings.get(key):
            raise ConversionError(f"{key} is {shown(settings[key])}, which is not supported")
    default = to_dict(style_preprocess("huggingface", image_size=224, video=is_video))
    changes = {
        "resample": _resample(settings.get("resample", RESAMPLES.index(default["resample"]))),
        "mean": settings.get("image_mean", default["mean"]),
        "std": settings.get("image_std", default["std"]),
        "rescale": settings.get("rescale_factor", default["rescale"]),
        "crop": _height_width(settings.get("crop_size", 224), "crop_size"),
        **_resize(settings.get("size", 224)),
    }
    for flag, off in OFF.items():
        if not settings.get(flag, True):
            changes |= off
    return from_dict(PreprocessConfig, changes, "image processor")


def write_preprocess(config: PreprocessConfig, *, video: bool) -> dict[str, Any]:
    """The settings of an image processor that does this.

    Args:
        video: it shall take several pictures for the frames of a clip.

    Raises:
        ConversionError: it cannot; the message names the field.
    """
    usual = style_preprocess("huggingface", image_size=224, video=video)
    kind = next(name for name, is_video in KINDS.items() if is_video == video)
    for name in ONLY_OURS:
        value = getattr(config, name)
        if value != getattr(usual, name):
            raise ConversionError(
                f"preprocess: {name} is {value!r}, for which Hugging Face's processor has no "
                f"setting, expected {getattr(usual, name)!r}"
            )
    size = {"shortest_edge": config.short_side} if config.short_side else _sides(config.exact)
    crop = _sides(config.crop)
    return {
        "image_processor_type": f"{kind}ImageProcessor",
        "processor_class": "GitProcessor",
        "do_convert_rgb": True,
        "do_resize": size is not None,
        **({"size": size} if size else {}),
        "resample": RESAMPLES.index(config.resample),
        "do_center_crop": crop is not None,
        **({"crop_size": crop} if crop else {}),
        "do_rescale": True,
        "rescale_factor": config.rescale,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
    }


def _begins(kind: Any, name: str) -> bool:
    return isinstance(kind, str) and kind.startswith(name)


def _resample(number: Any) -> str:
    if type(number) is not int or not 0 <= number < len(RESAMPLES):
        raise ConversionError(f"resample is {shown(number)}, expected a number from 0 to 5")
    return str(RESAMPLES[number])


def _resize(size: Any) -> dict[str, Any]:
    """`size` is a short side, or says by its keys what it is."""
    keys = _given(size) if isinstance(size, dict) else {"shortest_edge": size}
    if keys.keys() == {"shortest_edge"}:
        return {"short_side": keys["shortest_edge"], "exact": None}
    return {"short_side": None, "exact": _height_width(keys, "size")}


def _height_width(size: Any, name: str) -> tuple[Any, Any]:
    keys = _given(size) if isinstance(size, dict) else {"height": size, "width": size}
    if keys.keys() != {"height", "width"}:
        raise ConversionError(f"{name} is {shown(size)}, expected a number, or height and width")
    return keys["height"], keys["width"]


def _given(size: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in size.items() if value is not None}


def _sides(size: tuple[int, int] | None) -> dict[str, int] | None:
    return None if size is None else {"height": size[0], "width": size[1]}
