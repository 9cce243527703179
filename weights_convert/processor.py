"""Transformers' image processor settings <-> PreprocessConfig."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from git_model.config import PreprocessConfig, Resample, siglip_preprocess, style_preprocess
from git_model.utils.serialize import from_dict, is_file, read_mapping, short_repr, to_dict
from weights_convert.rules import ConversionError

FILE = "preprocessor_config.json"
NESTED_FILE = "processor_config.json"  # since Transformers 5, under "image_processor"
RESAMPLES = get_args(Resample)  # in the order of Pillow's numbers 0 to 5

# The beginning of a processor's class name -> its defaults.
PROCESSORS = {
    "CLIP": style_preprocess("huggingface", image_size=224, video=False),
    "VideoMAE": style_preprocess("huggingface", image_size=224, video=True),
    "Siglip": siglip_preprocess(224),
}

# The fields that change when a step's flag is false.
TURNED_OFF: dict[str, dict[str, Any]] = {
    "do_resize": {"short_side": None, "exact": None},
    "do_center_crop": {"crop": None},
    "do_rescale": {"rescale": 1.0},
    "do_normalize": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
}
UNSUPPORTED = ("do_pad", "use_square_size")

# Fields for which an image processor has no setting: they must have the values of Transformers.
WITHOUT_SETTING = ("long_side_max", "transparency", "crop_offset", "upright", "scale_16_bit")


def find_settings(folder: Path) -> dict[str, Any] | None:
    """The image processor's settings in a folder, or None; processor_config.json comes first."""
    if is_file(folder / NESTED_FILE):
        nested = read_mapping(folder / NESTED_FILE).get("image_processor")
        if isinstance(nested, dict):
            return nested
    return read_mapping(folder / FILE) if is_file(folder / FILE) else None


def read_preprocess(settings: Mapping[str, Any]) -> PreprocessConfig:
    """The preprocessing of an image processor with these settings.

    Raises:
        ConversionError: this project does not support the class of processor, or a setting.
    """
    settings = {key: value for key, value in settings.items() if value is not None}
    name = settings.get("image_processor_type", settings.get("feature_extractor_type", "CLIP"))
    defaults = next((value for start, value in PROCESSORS.items() if _begins(name, start)), None)
    if defaults is None:
        names = " or ".join(PROCESSORS)
        raise ConversionError(f"image_processor_type is {short_repr(name)}, expected {names}…")
    for key in UNSUPPORTED:
        if settings.get(key):
            raise ConversionError(f"{key} is {short_repr(settings[key])}, which is not supported")
    default = to_dict(defaults)
    changes = {
        "resample": _resample(settings.get("resample", RESAMPLES.index(default["resample"]))),
        "mean": settings.get("image_mean", default["mean"]),
        "std": settings.get("image_std", default["std"]),
        "rescale": settings.get("rescale_factor", default["rescale"]),
        "crop": _height_width(settings.get("crop_size", 224), "crop_size"),
        **_resize(settings.get("size", {"height": 224, "width": 224} if default["exact"] else 224)),
    }
    for flag, values in TURNED_OFF.items():
        if not settings.get(flag, flag != "do_center_crop" or default["crop"] is not None):
            changes |= values
    return from_dict(PreprocessConfig, changes, "image processor")


def write_preprocess(config: PreprocessConfig, *, video: bool) -> dict[str, Any]:
    """The settings of an image processor that does this.

    Args:
        video: whether it takes several images as the frames of a clip.

    Raises:
        ConversionError: no processor does this; the message names the field.
    """
    processor = "VideoMAE" if video else "CLIP"
    default = PROCESSORS[processor]
    for name in WITHOUT_SETTING:
        value = getattr(config, name)
        if value != getattr(default, name):
            raise ConversionError(
                f"preprocess: {name} is {value!r}, for which Hugging Face's processor has no "
                f"setting, expected {getattr(default, name)!r}"
            )
    size = {"shortest_edge": config.short_side} if config.short_side else _sides(config.exact)
    crop = _sides(config.crop)
    return {
        "image_processor_type": f"{processor}ImageProcessor",
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


def _begins(name: Any, start: str) -> bool:
    return isinstance(name, str) and name.startswith(start)


def _resample(number: Any) -> str:
    if type(number) is not int or not 0 <= number < len(RESAMPLES):
        raise ConversionError(f"resample is {short_repr(number)}, expected a number from 0 to 5")
    return str(RESAMPLES[number])


def _resize(size: Any) -> dict[str, Any]:
    """`size` is the short side, or a table that says by its keys what it is."""
    sides = _without_nulls(size) if isinstance(size, dict) else {"shortest_edge": size}
    if sides.keys() == {"shortest_edge"}:
        return {"short_side": sides["shortest_edge"], "exact": None}
    return {"short_side": None, "exact": _height_width(sides, "size")}


def _height_width(size: Any, name: str) -> tuple[Any, Any]:
    sides = _without_nulls(size) if isinstance(size, dict) else {"height": size, "width": size}
    if sides.keys() != {"height", "width"}:
        raise ConversionError(
            f"{name} is {short_repr(size)}, expected a number, or height and width"
        )
    return sides["height"], sides["width"]


def _without_nulls(size: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in size.items() if value is not None}


def _sides(size: tuple[int, int] | None) -> dict[str, int] | None:
    return None if size is None else {"height": size[0], "width": size[1]}
