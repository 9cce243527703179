"""The types of an image or a clip that callers may give, and their pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from git_model.config import GITConfig
from git_model.preprocessing.image import open_image, preprocess_batch
from git_model.preprocessing.video import Clip, Sampling, read_media

Still = str | Path | Image.Image


@dataclass(frozen=True)
class Frames:
    """The frames of one clip, in order. A plain list of images is a batch."""

    images: Sequence[Still]


ImageInput = Still | Frames
ImageBatch = (
    list[ImageInput] | list[Still] | list[str] | list[Path] | list[Image.Image] | list[Frames]
)


@dataclass(frozen=True)
class LoadedImage:
    """An image as the model's input: pixels (3, H, W), or (F, 3, H, W) of a clip.

    frames: the indices of a clip's frames in its file; None for an image or `Frames`.
    """

    pixels: Tensor
    frames: list[int] | None = None


def load(image: ImageInput, config: GITConfig, sampling: Sampling = "uniform") -> LoadedImage:
    """One image or clip as pixels.

    Args:
        image: a path, a Pillow image, or `Frames` of a clip. A model with temporal embeddings reads
            a video or an animation at a path as a clip of at most as many frames.
        sampling: which frames of a file to take, see `sample_indices`.

    Raises:
        GITError: a file cannot be read.
    """
    if isinstance(image, str | Path):
        media = read_media(Path(image), config.frames, sampling)
        if isinstance(media, Clip):
            return LoadedImage(preprocess_batch(media.frames, config.preprocess), media.indices)
        image = media
    if isinstance(image, Frames):
        frames = [_opened(frame) for frame in image.images]
        return LoadedImage(preprocess_batch(frames, config.preprocess))
    return LoadedImage(preprocess_batch([image], config.preprocess)[0])


def _opened(image: Still) -> Image.Image:
    return image if isinstance(image, Image.Image) else open_image(Path(image))
