"""From integers of 16 bits and floats to the 8 bits per channel that the models were trained on."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from git_model.utils.errors import GITError

MAX_16_BIT = 65535
# Upper limits of the ranges of floats, and of integers without a stated depth. An image belongs to
# the first range that holds all its values. Floats must also fill 1/32 of a range above 0 to 1: a
# maximum of 1.5 more probably exceeds 1 than uses a range to 255.
RANGES = (1, 255, MAX_16_BIT)
MIN_SHARE = 1 / 32
TOLERANCE = 1e-3  # share of a range by which floats may exceed it, as after resampling

# Tags of TIFF, and values of them
BITS_PER_SAMPLE, PHOTOMETRIC, PLANAR_CONFIGURATION, SAMPLE_FORMAT = 258, 262, 284, 339
MIN_IS_WHITE, SEPARATE_PLANES, SIGNED = 0, 2, 2


@dataclass(frozen=True)
class Depth:
    """What a TIFF states about values of more than 8 bits, and Pillow ignores.

    is_inverted: whether the smallest value is white.
    n_bits: of a value in Pillow's mode I;16.
    """

    is_inverted: bool = False
    n_bits: int = 16

    @classmethod
    def of(cls, image: Image.Image) -> "Depth":
        """The depth of an image as Pillow opened it."""
        tags = getattr(image, "tag_v2", None)
        if tags is None:
            return cls()
        n_bits = 12 if tags.get(BITS_PER_SAMPLE) == (12,) else 16
        return cls(tags.get(PHOTOMETRIC) == MIN_IS_WHITE, n_bits)


def require_right_values(image: Image.Image) -> None:
    """Refuse a TIFF whose values Pillow misreads.

    Raises:
        GITError: signed values of fewer than 32 bits, whose range nothing states, or colours of
            more than 8 bits in separate planes.
    """
    tags = getattr(image, "tag_v2", {})
    n_bits = tags.get(BITS_PER_SAMPLE, (1,))
    if SIGNED in tags.get(SAMPLE_FORMAT, ()) and max(n_bits) < 32:
        raise GITError(f"signed values of {max(n_bits)} bits, expected unsigned ones: convert it")
    is_planar = tags.get(PLANAR_CONFIGURATION) == SEPARATE_PLANES and len(n_bits) > 1
    if is_planar and max(n_bits) > 8:
        raise GITError(
            f"colours of {max(n_bits)} bits in separate planes, which Pillow misreads: store them "
            "pixel by pixel"
        )


def eight_bit_image(image: Image.Image, depth: Depth | None = None, *, scale: bool) -> Image.Image:
    """An image of mode I, I;16 or F with values 0 to 255; one of another mode as it is.

    Args:
        scale: 16-bit values are divided by 257, and rounded to the nearest; a transparent shade
            becomes an alpha channel. Values of 32 bits, and floats, are scaled by their range
            (see `RANGES`). If false, Pillow clips all of them at 255, as in the references.

    Raises:
        GITError: there is a NaN or an infinity, or the values fit no range.
    """
    if image.mode[0] not in "IF" or 0 in image.size:
        return image
    values = np.asarray(image)
    if image.mode == "F":
        _require_finite(values)
    if not scale:
        _warn_of_clipping(image.mode, values)
        return image
    # a PPM of more than 8 bits has mode I, its values scaled to 16 bits
    is_16_bit = image.mode != "I" or image.format in ("PPM", "PNG")
    depth = depth or Depth()
    if image.mode == "F" or not is_16_bit:
        scaled = from_ranges(values)
    else:
        scaled = from_16_bits(values, depth.n_bits)
    result = Image.fromarray(255 - scaled if depth.is_inverted else scaled)
    shade = image.info.get("transparency")
    if image.mode != "F" and isinstance(shade, int):
        result.putalpha(Image.fromarray(np.where(values == shade, 0, 255).astype(np.uint8)))
    # the metadata with the orientation stay with the image
    result.info.update({key: image.info[key] for key in ("exif", "xmp") if key in image.info})
    return result


def from_16_bits(values: NDArray[np.generic], n_bits: int = 16) -> NDArray[np.uint8]:
    """255 v / (2 ** n_bits - 1), of 16 bits v / 257, rounded to the nearest."""
    limit = 2**n_bits - 1
    return ((values.astype(np.int64).clip(0, limit) * 255 + limit // 2) // limit).astype(np.uint8)


def from_ranges(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Values of unknown depth, scaled from their range (see `RANGES`) to 0 to 255.

    Raises:
        GITError: there is a NaN or an infinity, or the values fit no range.
    """
    floats = values.astype(np.float64)
    _require_finite(floats)
    low, high = floats.min(initial=0), floats.max(initial=0)
    is_whole = not np.issubdtype(values.dtype, np.floating)
    for limit in RANGES[1:] if is_whole else RANGES:
        slack = 0 if is_whole else TOLERANCE * limit
        fits = -slack <= low and high <= limit + slack
        if fits and (limit == 1 or is_whole or high >= MIN_SHARE * limit):
            return np.rint(floats.clip(0, limit) * (255 / limit)).astype(np.uint8)
    raise GITError(
        f"values from {floats.min():.4g} to {floats.max():.4g}, expected a range of 0 to 1, 0 to "
        "255 or 0 to 65535: scale them first"
    )


def _require_finite(values: NDArray[np.generic]) -> None:
    if not np.isfinite(values).all():
        raise GITError("there are values that are not finite (NaN or infinity)")


def _warn_of_clipping(mode: str, values: NDArray[np.generic]) -> None:
    if mode != "F" and values.max(initial=0) > 255:
        # the same words for every image, so that Python shows them once
        warnings.warn(
            "16-bit pixels brighter than 255 are clipped to it, as in the references; set "
            "preprocess.scale_16_bit to scale them instead",
            stacklevel=6,  # the caller of `preprocess`
        )
