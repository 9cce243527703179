"""Augmentation of training images: random crops and horizontal flips.

The defaults are the original's (train.py): torchvision's `RandomResizedCrop` of 0.8 to 1.0 of the
area without distortion, and no flips, because a flip makes the word "left" wrong.
"""

import dataclasses
import math
from dataclasses import dataclass
from random import Random

from git_model.config import PreprocessConfig
from git_model.data.example import Media
from git_model.utils.errors import ConfigError

MAX_TRIES = 10  # as in torchvision; then the crop is at the centre

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of an image; the defaults are the original's (train.py,
    `forward_backward_example`: input_small_scale, no_aspect_dist, no_flip)."""

    scale: tuple[float, float] = (0.8, 1.0)  # share of the area to keep, lowest and highest
    ratio: tuple[float, float] = (1.0, 1.0)  # distortion of width to height; torchvision: 3/4, 4/3
    flip: float = 0.0  # probability of a horizontal flip

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ConfigError(f"scale is {self.scale}, expected two shares, from above 0 to 1")
        low, high = self.ratio
        if not 0 < low <= high < math.inf:
            raise ConfigError(f"ratio is {self.ratio}, expected two numbers above 0, in order")
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"flip is {self.flip}, expected a share from 0 to 1")


def random_crop(
    media: Media, config: AugmentConfig, preprocess: PreprocessConfig, rng: Random
) -> Media:
    """A random crop of an image, or the same crop of every frame of a clip."""
    seed = rng.random()
    frames = media if isinstance(media, list) else [media]
    boxes = [
        crop_box(frame.size, config, _aspect(frame.size, preprocess), Random(seed))  # noqa: S311
        for frame in frames
    ]
    crops = [frame.crop(box) for frame, box in zip(frames, boxes, strict=True)]
    return crops if isinstance(media, list) else crops[0]


def crop_box(size: tuple[int, int], config: AugmentConfig, aspect: float, rng: Random) -> Box:
    """A random crop of an image of `size`, (width, height): torchvision's `get_params`.

    Args:
        aspect: width / height of a crop without distortion.
    """
    width, height = size
    low, high = (math.log(aspect * ratio) for ratio in config.ratio)
    for _ in range(MAX_TRIES):
        area = width * height * _uniform(*config.scale, rng)
        ratio = math.exp(_uniform(low, high, rng))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = (int(rng.random() * (slack + 1)) for slack in (width - w, height - h))
            return left, top, left + w, top + h
    return _centre_box(size, math.exp(low), math.exp(high))


def training_preprocess(config: PreprocessConfig) -> PreprocessConfig:
    """The same preprocessing for an image after its random crop: resized to the model's input size,
    without a second crop. If the model keeps the aspect ratio, the preprocessing stays as it is."""
    if config.crop is None:
        return config
    changes = {"exact": config.crop, "short_side": None, "long_side_max": None, "crop": None}
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def _aspect(size: tuple[int, int], config: PreprocessConfig) -> float:
    """Width / height of the model's input for an image of this size."""
    height, width = config.crop or config.exact or size[::-1]
    return width / height


def _centre_box(size: tuple[int, int], low: float, high: float) -> Box:
    """The largest centre crop whose width / height is from low to high."""
    width, height = size
    w = max(1, min(width, round(height * high)))
    h = max(1, min(height, round(width / low)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _uniform(low: float, high: float, rng: Random) -> float:
    return low + (high - low) * rng.random()  # Random.uniform is not promised to stay the same
