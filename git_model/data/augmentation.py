"""A picture to learn from is never shown twice in quite the same way: random crops, and mirroring.

As the original's train.py: torchvision's `RandomResizedCrop` of 0.8 to 1.0 of the area without
distortion, and no mirroring, which would make "left" wrong.
"""

import dataclasses
import math
from dataclasses import dataclass
from random import Random

from git_model.config import PreprocessConfig
from git_model.data.example import Media
from git_model.utils.errors import ConfigError

TRIES = 10  # as torchvision; then the middle is taken

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How pictures are changed at random; the defaults are the original's (train.py,
    `forward_backward_example`: input_small_scale, no_aspect_dist, no_flip)."""

    scale: tuple[float, float] = (0.8, 1.0)  # share of the area that is kept, least and most
    ratio: tuple[float, float] = (1.0, 1.0)  # distortion of width to height; torchvision: 3/4, 4/3
    flip: float = 0.0  # how often a picture is mirrored, left to right

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
    view: Media, config: AugmentConfig, preprocess: PreprocessConfig, rng: Random
) -> Media:
    """A part of a picture, or the same part of each frame of a clip."""
    seed = rng.random()
    frames = view if isinstance(view, list) else [view]
    boxes = [
        crop_box(frame.size, config, _shape(frame.size, preprocess), Random(seed))  # noqa: S311
        for frame in frames
    ]
    cropped = [frame.crop(box) for frame, box in zip(frames, boxes, strict=True)]
    return cropped if isinstance(view, list) else cropped[0]


def crop_box(size: tuple[int, int], config: AugmentConfig, shape: float, rng: Random) -> Box:
    """What to keep of a picture of `size`, (width, height): torchvision's `get_params`.

    Args:
        shape: width / height of a crop that is not distorted.
    """
    width, height = size
    low, high = (math.log(shape * ratio) for ratio in config.ratio)
    for _ in range(TRIES):
        area = width * height * _between(*config.scale, rng)
        ratio = math.exp(_between(low, high, rng))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = (int(rng.random() * (room + 1)) for room in (width - w, height - h))
            return left, top, left + w, top + h
    return _middle(size, math.exp(low), math.exp(high))


def training_preprocess(config: PreprocessConfig) -> PreprocessConfig:
    """The same preprocessing for a picture that has been cropped already: it is stretched to the
    size that the model sees. Where the model keeps the picture's aspect, nothing changes."""
    if config.crop is None:
        return config
    changes = {"exact": config.crop, "short_side": None, "long_side_max": None, "crop": None}
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def _shape(size: tuple[int, int], config: PreprocessConfig) -> float:
    """Width / height of what the model sees of a picture of this size."""
    height, width = config.crop or config.exact or size[::-1]
    return width / height


def _middle(size: tuple[int, int], low: float, high: float) -> Box:
    """The largest box in the middle that is not narrower or wider than allowed."""
    width, height = size
    w = max(1, min(width, round(height * high)))
    h = max(1, min(height, round(width / low)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _between(low: float, high: float, rng: Random) -> float:
    return low + (high - low) * rng.random()  # Random.uniform is not promised to stay the same
