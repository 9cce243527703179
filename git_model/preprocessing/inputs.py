"""The types that stand for an image or a clip, and their conversion to pixels."""

import dataclasses
import io
import os
from collections.abc import Iterable, Sequence
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
from git_model.preprocessing.clip import Clip, contact_sheet
from git_model.preprocessing.fetch import fetch, is_url
from git_model.preprocessing.image import ImageError, is_sideways, is_truncated, preprocess_batch
from git_model.preprocessing.sampling import ReadOptions, Sampling
from git_model.preprocessing.video import decode_media, read_media, with_video_advice
from git_model.utils.errors import GITError

Still = str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | NDArray[Any] | Tensor
TAKEN = (
    "a path, a web address, bytes, a file opened in binary mode, a Pillow image, a NumPy array "
    "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4) in uint8, uint16 or floats, a tensor (1, H, W), "
    "(3, H, W) or (4, H, W) in uint8 or floats, Frames of these, or a list of these"
)


@dataclass(frozen=True)
class Frames:
    """The frames of one clip, in order: images of any type that `Captioner.load` takes. All of them
    are used, so there may be at most as many as the model has temporal embeddings. (A plain list of
    images is a batch.)

    Raises:
        TypeError: it is a single image.
    """

    images: Sequence[Still]

    def __post_init__(self) -> None:
        images: Any = self.images
        is_single = isinstance(images, str | bytes) or not isinstance(images, Iterable)
        if isinstance(images, np.ndarray):
            is_single = images.ndim < 3 or (images.ndim == 3 and images.shape[2] == 3)
        elif isinstance(images, Tensor):
            is_single = images.ndim < 4
        if is_single:
            name = type(images).__name__
            raise TypeError(f"Frames of a single {name}, expected a list of images")


ImageInput = Still | Frames
ImageBatch = (
    list[ImageInput] | list[Still] | list[str] | list[Path] | list[bytes] | list[Image.Image]
    | list[NDArray[Any]] | list[Tensor] | list[Frames]
)  # fmt: skip


@dataclass(frozen=True)
class LoadedImage:
    """An image as the model's input: pixels (3, H, W), or (F, 3, H, W) of a clip.

    frames: the indices of a clip's frames in its file; None for an image or `Frames`.
    is_truncated: whether the file is cut short or damaged, so that the pixels are only those that
        could be decoded.
    size: (width, height) as stored, in pixels; None if unknown.
    is_sideways: whether the image is stored rotated or mirrored and this preprocessing keeps that.
    """

    pixels: Tensor
    frames: list[int] | None = None
    is_truncated: bool = False
    size: tuple[int, int] | None = None
    is_sideways: bool = False


def load(
    image: ImageInput, config: GITConfig, options: ReadOptions | Sampling = "uniform"
) -> LoadedImage:
    """One image or clip as pixels.

    Args:
        image: one of TAKEN, or `Frames` of a clip. A model with temporal embeddings reads a video
            or an animation as a clip of at most as many frames as it has temporal embeddings, or as
            `options.frames` allows. A `str` that begins with http:// or https:// is fetched, see
            `fetch`.
        options: how to read a file, or only the rule that picks its frames.

    Raises:
        GITError: a file cannot be read, or the options do not fit the model.
        TypeError: the image is of another type, shape or number format.
    """
    if isinstance(options, str):
        options = ReadOptions(sampling=options)
    config = with_orientation(config, options)
    if isinstance(image, Frames):
        stills = [_media(frame, 0, ReadOptions()) for frame in image.images]
        frames = [still for still in stills if isinstance(still, Image.Image)]  # all, with 0 frames
        size = frames[0].size if frames else None
        return LoadedImage(preprocess_batch(frames, config.preprocess), size=size)
    n_frames = frames_to_read(config, options)
    with with_video_advice():
        media = _media(image, n_frames, options)
    return load_media(media, config)


def frames_to_read(config: GITConfig, options: ReadOptions) -> int:
    """How many frames of a file a model reads, for `read_media`.

    Raises:
        GITError: the options do not fit the model.
    """
    if config.frames == 0 and options.frames is not None:
        raise GITError("frames is for models with temporal embeddings, this one has none")
    if config.frames > 0 and options.video_as is not None:
        raise GITError("video_as is for models without temporal embeddings, this one has them")
    return config.frames if options.frames is None else options.frames


def with_orientation(config: GITConfig, options: ReadOptions) -> GITConfig:
    """A model's configuration that rotates photos, or leaves them, as the options say."""
    if options.upright is None:
        return config
    preprocess = dataclasses.replace(config.preprocess, upright=options.upright)
    return dataclasses.replace(config, preprocess=preprocess)


def load_media(media: Image.Image | Clip, config: GITConfig) -> LoadedImage:
    """An image or a clip as pixels; for a model without temporal embeddings a clip is one image."""
    if isinstance(media, Image.Image):
        return LoadedImage(
            preprocess_batch([media], config.preprocess)[0],
            is_truncated=is_truncated(media),
            size=media.size,
            is_sideways=not config.preprocess.upright and is_sideways(media),
        )
    if config.frames == 0:
        pixels = preprocess_batch([contact_sheet(media.frames)], config.preprocess)[0]
    else:
        pixels = preprocess_batch(media.frames, config.preprocess)
    return LoadedImage(pixels, media.indices, media.is_truncated, media.frames[0].size)


def _media(image: Still, n_frames: int, options: ReadOptions) -> Image.Image | Clip:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, str) and not image:
        raise ImageError("the path is empty, expected the name of an image or a video")
    if isinstance(image, str) and is_url(image):
        return decode_media(fetch(image), image, n_frames, options)
    if isinstance(image, str | os.PathLike):
        return read_media(Path(os.fsdecode(image)), n_frames, options)
    if isinstance(image, np.ndarray):
        return _from_array(image, image.shape, type(image).__name__)
    if isinstance(image, Tensor):
        return _from_tensor(image)
    if hasattr(image, "read"):
        content = "" if isinstance(image, io.TextIOBase) else image.read()
        if not isinstance(content, bytes):
            raise TypeError(f"the image is a file opened as text, expected {TAKEN}")
        name = str(getattr(image, "name", "a file"))
        if not content:
            raise ImageError(
                f"{name}: nothing to read: the file is empty, or was read to its end before; "
                "seek(0) first"
            )
        return decode_media(content, name, n_frames, options)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_media(bytes(image), "an image in bytes", n_frames, options)
    raise TypeError(f"the image is of type {type(image).__name__}, expected {TAKEN}")


def _from_tensor(image: Tensor) -> Image.Image:
    """The image in a tensor (1, 3 or 4, H, W)."""
    is_number = image.dtype == torch.uint8 or image.dtype.is_floating_point
    if image.ndim != 3 or image.shape[0] not in (1, 3, 4) or not is_number:
        kind = str(image.dtype).removeprefix("torch.")
        raise TypeError(
            f"the image is a tensor {tuple(image.shape)} in {kind}, expected {TAKEN}; a batch of "
            "pixels that are normalised already goes into captioner.see_pixels"
        )
    if image.layout is not torch.strided or image.is_meta:
        raise TypeError(f"the image is a sparse tensor or one without values, expected {TAKEN}")
    if image.dtype.is_floating_point and bool((image < 0).any()):
        raise GITError(
            "the image is a tensor with values below 0: pixels that are normalised already go into "
            "captioner.see_pixels(pixels[None])"
        )
    values = image.detach().cpu().permute(1, 2, 0)
    array = values.double().numpy() if image.dtype.is_floating_point else values.numpy()
    return _from_array(array, tuple(image.shape), "tensor")


def _from_array(values: NDArray[Any], shape: tuple[int, ...], kind: str) -> Image.Image:
    """The image in an array (H, W) or (H, W, 1, 3 or 4); uint16 is v / 257, and floats are scaled
    by their range, see `bit_depth.RANGES`."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise GITError("the image is an array with masked pixels, expected all: fill them first")
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
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
