"""The types of an image or a clip that callers may give, and their pixels."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from git_model.config import GITConfig
from git_model.preprocessing.bit_depth import from_16_bits, from_ranges
from git_model.preprocessing.image import is_sideways, preprocess_batch
from git_model.preprocessing.video import Clip, Sampling, decode_media, read_media

Still = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | NDArray[Any] | Tensor
TAKEN = (
    "a path, bytes, a file opened in binary mode, a Pillow image, a NumPy array (H, W), (H, W, 1), "
    "(H, W, 3) or (H, W, 4) in uint8, uint16 or floats, a tensor (1, H, W), (3, H, W) or (4, H, W) "
    "in uint8 or floats, Frames of these, or a list of these"
)


@dataclass(frozen=True)
class Frames:
    """The frames of one clip, in order. A plain list of images is a batch."""

    images: Sequence[Still]


ImageInput = Still | Frames
ImageBatch = (
    list[ImageInput] | list[Still] | list[str] | list[Path] | list[bytes] | list[Image.Image]
    | list[NDArray[Any]] | list[Tensor] | list[Frames]
)  # fmt: skip


@dataclass(frozen=True)
class LoadedImage:
    """An image as the model's input: pixels (3, H, W), or (F, 3, H, W) of a clip.

    frames: the indices of a clip's frames in its file; None for an image or `Frames`.
    size: (width, height) as stored, in pixels; None if unknown.
    is_sideways: stored rotated or mirrored, and left so by this preprocessing.
    """

    pixels: Tensor
    frames: list[int] | None = None
    size: tuple[int, int] | None = None
    is_sideways: bool = False


def load(image: ImageInput, config: GITConfig, sampling: Sampling = "uniform") -> LoadedImage:
    """One image or clip as pixels.

    Args:
        image: one of TAKEN, or `Frames` of a clip. A model with temporal embeddings reads a video
            or an animation as a clip of at most as many frames.
        sampling: which frames of a file to take, see `sample_indices`.

    Raises:
        GITError: a file cannot be read.
        TypeError: the image is of another type, shape or number format.
    """
    if isinstance(image, Frames):
        stills = [_media(frame, 0, sampling) for frame in image.images]
        frames = [still for still in stills if isinstance(still, Image.Image)]  # all, with 0 frames
        size = frames[0].size if frames else None
        return LoadedImage(preprocess_batch(frames, config.preprocess), size=size)
    media = _media(image, config.frames, sampling)
    if isinstance(media, Clip):
        pixels = preprocess_batch(media.frames, config.preprocess)
        return LoadedImage(pixels, media.indices, media.frames[0].size)
    pixels = preprocess_batch([media], config.preprocess)[0]
    sideways = not config.preprocess.upright and is_sideways(media)
    return LoadedImage(pixels, size=media.size, is_sideways=sideways)


def _media(image: Still, n_frames: int, sampling: Sampling) -> Image.Image | Clip:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, str | os.PathLike):
        return read_media(Path(image), n_frames, sampling)
    if isinstance(image, np.ndarray):
        return _from_array(image, image.shape, type(image).__name__)
    if isinstance(image, Tensor):
        return _from_tensor(image)
    if hasattr(image, "read"):
        content = image.read()
        if not isinstance(content, bytes):
            raise TypeError(f"the image is a file opened as text, expected {TAKEN}")
        return decode_media(content, str(getattr(image, "name", "a file")), n_frames, sampling)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_media(bytes(image), "an image in bytes", n_frames, sampling)
    raise TypeError(f"the image is of type {type(image).__name__}, expected {TAKEN}")


def _from_tensor(image: Tensor) -> Image.Image:
    """The image in a tensor (1, 3 or 4, H, W)."""
    is_number = image.dtype == torch.uint8 or image.dtype.is_floating_point
    if image.ndim != 3 or image.shape[0] not in (1, 3, 4) or not is_number:
        kind = str(image.dtype).removeprefix("torch.")
        raise TypeError(f"the image is a tensor {tuple(image.shape)} in {kind}, expected {TAKEN}")
    values = image.detach().cpu().permute(1, 2, 0)
    array = values.double().numpy() if image.dtype.is_floating_point else values.numpy()
    return _from_array(array, tuple(image.shape), "tensor")


def _from_array(values: NDArray[Any], shape: tuple[int, ...], kind: str) -> Image.Image:
    """The image in an array (H, W) or (H, W, 1, 3 or 4); uint16 is v / 257, and floats are scaled
    by their range, see `bit_depth.RANGES`."""
    is_number = values.dtype in (np.uint8, np.uint16) or np.issubdtype(values.dtype, np.floating)
    is_image = values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (1, 3, 4))
    if not is_image or not is_number:
        raise TypeError(f"the image is a {kind} {shape} in {values.dtype}, expected {TAKEN}")
    if values.dtype == np.uint16:
        values = from_16_bits(values)
    elif values.dtype != np.uint8:
        values = from_ranges(values)
    grey = values.ndim == 3 and values.shape[2] == 1
    return Image.fromarray(np.ascontiguousarray(values[..., 0] if grey else values))
