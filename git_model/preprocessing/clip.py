"""The common part of animations and videos: the file, the clip, the limits."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from git_model.preprocessing.image import (
    ImageError,
    decode_image,
    is_bomb,
    open_file,
    open_image,
)

# Upper limits, in multiples of Pillow's limit of pixels. The sampled frames of a clip are in memory
# at once. All decoded frames count, too, because a small file can repeat a frame for days: the
# limits are some 30 seconds of decoding an animation, and an hour of a video in 1920 x 1080.
MAX_SAMPLED, MAX_ANIMATION, MAX_VIDEO = 4, 40, 2500


@dataclass(frozen=True)
class Clip:
    """Frames of one file in their order, and their indices in the file.

    is_truncated: whether the file is cut short or damaged, so that later frames are missing.
    """

    frames: list[Image.Image]
    indices: list[int]
    is_truncated: bool = False


@dataclass(frozen=True)
class MediaFile:
    """A file on a disk, or the bytes of one; its name is for errors."""

    name: str
    content: Path | bytes

    def __str__(self) -> str:
        return self.name

    def open(self) -> BinaryIO:
        """Open it to read."""
        return (
            io.BytesIO(self.content) if isinstance(self.content, bytes) else open_file(self.content)
        )

    def image(self, *, truncated: bool = False) -> Image.Image:
        """The image in it; see `open_image`."""
        if isinstance(self.content, bytes):
            return decode_image(self.content, self.name, truncated=truncated)
        return open_image(self.content, truncated=truncated)


def require_bounded(
    file: MediaFile, size: tuple[int, int], n_sampled: int, n_decoded: int, max_decoded: int
) -> None:
    """Refuse frames that have too many pixels together.

    Args:
        max_decoded: limit of all decoded frames, in multiples of Pillow's limit.
    """
    for count, limits in ((n_sampled, MAX_SAMPLED), (n_decoded, max_decoded)):
        if is_bomb(size, count, limits=limits):
            max_pixels = limits * (Image.MAX_IMAGE_PIXELS or 0)
            raise ImageError(
                f"{file}: {count} frames of {size[0]} x {size[1]} pixels, expected at most "
                f"{max_pixels} pixels in all"
            )


def contact_sheet(frames: Sequence[Image.Image]) -> Image.Image:
    """Frames of one size as one image: row by row, in about as many columns as rows. A single frame
    is returned as it is."""
    if len(frames) == 1:
        return frames[0]
    columns = ceil(sqrt(len(frames)))
    width, height = frames[0].size
    sheet = Image.new("RGB", (columns * width, ceil(len(frames) / columns) * height))
    for number, frame in enumerate(frames):
        row, column = divmod(number, columns)
        tile = frame.convert("RGB").resize((width, height))
        sheet.paste(tile, (column * width, row * height))
    return sheet
