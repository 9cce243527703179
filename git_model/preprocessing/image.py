"""From an image file to pixels: upright, RGB, resized, cropped, normalised; every step by Pillow.

The result equals the references' bit for bit: Transformers' `CLIPImageProcessorPil`, and the
original's `get_image_transform` (inference.py, on torchvision), as `PreprocessConfig` says.
"""

import errno
import io
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from PIL import Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from git_model.config import PreprocessConfig
from git_model.preprocessing.bit_depth import Depth, eight_bit_image, require_right_values
from git_model.preprocessing.formats import (
    START_BYTES,
    count_jpeg_scans,
    prepare_pillow,
    without_large_metadata,
)
from git_model.utils.errors import GITError, shortened

ORIENTATION = 0x0112  # EXIF's tag; 1 is upright, and these transpositions undo the others
TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
PROGRAMS = {"EPS": "a PostScript program, for which Pillow would start another program"}
# The beginnings of files whose values may be of many types; Pillow calls some of them no image.
KINDS_OF_VALUES = {b"II*": "TIFF", b"MM\0": "TIFF", b"II+": "TIFF", b"PF\n": "PFM", b"Pf\n": "PFM"}
TRUNCATED = ("git-model", "truncated")  # in `info`: cut short; no file can set this key
MAX_SCANS = 100  # of a progressive JPEG; cameras and programs write about 10


class ImageError(GITError):
    """An image that cannot be used; the message says which, what is wrong, what was expected."""


class UnknownFormatError(ImageError):
    """A file in a format that Pillow does not know: no image, but perhaps a video."""


_truncated_lock = threading.Lock()


def open_image(path: str | Path, *, truncated: bool = False) -> Image.Image:
    """The image in a file, its pixels loaded and the file closed; of an animation, frame 0.

    Args:
        truncated: if a file is cut short or damaged, take the pixels that can be decoded; for such
            an image `is_truncated` is True.

    Raises:
        ImageError: the file is missing, a pipe or a device, no image, damaged, cut short, or has
            more pixels than Pillow's limit (`PIL.Image.MAX_IMAGE_PIXELS`, against decompression
            bombs).
    """
    path = Path(path)
    with _one_line(str(path)), open_file(path) as file:
        image = _load(file, truncated)
        if isinstance(image, ImageFile.ImageFile):
            image.filename = str(path)  # errors of `preprocess` name it
        return image


def decode_image(data: bytes, name: str, *, truncated: bool = False) -> Image.Image:
    """The image in a file's bytes; errors call it `name`. See `open_image`."""
    with _one_line(name):
        return _load(io.BytesIO(data), truncated)


def is_truncated(image: Image.Image) -> bool:
    """Whether an image holds only what could be decoded of a file that is cut short or damaged."""
    return TRUNCATED in _info(image)


def _info(image: Image.Image) -> dict[object, object]:
    return cast(dict[object, object], image.info)


@contextmanager
def truncated_allowed() -> Iterator[None]:
    """Let Pillow decode files that are cut short. A lock guards its switch, which is global."""
    with _truncated_lock:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def open_file(path: Path) -> BinaryIO:
    """A file to read. A pipe, a socket or a device is refused: reading one may never end.

    Raises:
        OSError: the path is not a file, or cannot be opened.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a folder cannot be opened anyway
        raise OSError(errno.EINVAL, "a pipe, socket or device", str(path))
    return path.open("rb")


def open_with_pillow(file: BinaryIO) -> Image.Image:
    """The image in an open file, its pixels not yet decoded.

    Raises:
        GITError: the file is empty, or its format needs a package that is missing.
        Exception: what Pillow raises.
    """
    start = file.read(START_BYTES)
    if not start:
        raise ImageError("the file is empty, expected an image")
    file.seek(0)
    prepare_pillow(start)
    try:
        return Image.open(without_large_metadata(file))
    except UnidentifiedImageError:
        kind = KINDS_OF_VALUES.get(start[:3])
        if kind is None:
            raise
        raise ImageError(
            f"a {kind} with values that Pillow does not read, such as floats of 64 bits, or floats "
            "or signed values in colour: convert it to 8 or 16 bits"
        ) from None


def _load(file: BinaryIO, truncated: bool) -> Image.Image:
    try:
        return _load_whole(file)
    except (GITError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise
    except Exception:
        if not truncated:
            raise
    file.seek(0)
    with truncated_allowed():
        image = _load_whole(file)
    if all(low == high for low, high in _extrema(image)):
        raise ImageError("the file is cut short before any of its pixels")
    _info(image)[TRUNCATED] = True
    return image


def _extrema(image: Image.Image) -> list[tuple[float, float]]:
    """The smallest and the largest value of each channel."""
    return [channel.getextrema() for channel in image.split()]  # type: ignore[misc]


def _load_whole(file: BinaryIO) -> Image.Image:
    with open_with_pillow(file) as image:
        if is_bomb(image.size):  # Pillow itself only warns until twice its limit
            raise Image.DecompressionBombError
        if image.format in PROGRAMS:
            raise ImageError(f"{PROGRAMS[image.format]}, expected JPEG, PNG or the like")
        if image.info.get("progressive"):
            _require_few_scans(file)
        image.load()
        return image


def _require_few_scans(file: BinaryIO) -> None:
    """Refuse a progressive JPEG of more than MAX_SCANS scans, each of which draws the whole
    image."""
    position = file.tell()
    file.seek(0)
    if count_jpeg_scans(file.read(), MAX_SCANS + 1) > MAX_SCANS:
        raise ImageError(f"a progressive JPEG of many scans, expected at most {MAX_SCANS}")
    file.seek(position)


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Turn every exception of Pillow into an ImageError of one line."""
    name = shortened(name)  # so that the reason fits, too
    try:
        yield
    except GITError as error:
        raise ImageError(f"{name}: {error}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = Image.MAX_IMAGE_PIXELS
        raise ImageError(f"{name}: too many pixels, expected at most {limit} in all") from None
    except UnidentifiedImageError:
        raise UnknownFormatError(
            f"{name}: not an image, expected JPEG, PNG or another format that Pillow reads"
        ) from None
    except IsADirectoryError as error:
        raise ImageError(
            f"{name}: {error.strerror}, expected an image or a video; `git-model batch` captions "
            "a whole folder"
        ) from None
    except Exception as error:  # a damaged file makes Pillow's readers raise almost anything
        raise ImageError(f"{name}: {reason_of(error)}, expected a whole image file") from None


def is_bomb(size: tuple[int, int], count: int = 1, *, limits: int = 1) -> bool:
    """Whether `count` images of this size have more pixels than `limits` times Pillow's limit."""
    limit = Image.MAX_IMAGE_PIXELS
    return limit is not None and size[0] * size[1] * count > limits * limit


def reason_of(error: Exception) -> str:
    """The message of an exception, on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def preprocess_batch(images: Sequence[Image.Image], config: PreprocessConfig) -> Tensor:
    """Images, or the frames of one clip, as one tensor (B, 3, H, W); see `preprocess`.

    Raises:
        ImageError: there is no image, one cannot be used, or their sizes differ after
            preprocessing.
    """
    if not images:
        raise ImageError("no images were given, expected at least one")
    pixels = [preprocess(image, config) for image in images]
    first = pixels[0].shape
    for index, tensor in enumerate(pixels):
        if tensor.shape != first:
            raise ImageError(
                f"image {index} is resized to {tensor.shape[1]} x {tensor.shape[2]} pixels but "
                f"image 0 to {first[1]} x {first[2]}: give images of one shape, one at a time, or "
                "set a crop"
            )
    return torch.stack(pixels)


def group_by_shape(pixels: Sequence[Tensor]) -> list[list[int]]:
    """The positions of tensors of equal shape, which can form a batch together; groups come in the
    order in which their shapes first appear."""
    groups: dict[torch.Size, list[int]] = {}
    for position, tensor in enumerate(pixels):
        groups.setdefault(tensor.shape, []).append(position)
    return list(groups.values())


def upright_rgb(image: Image.Image, config: PreprocessConfig) -> Image.Image:
    """The whole image in RGB as the model gets it: upright, with 8 bits, without transparency.

    Raises:
        GITError: its values cannot be read correctly, or cannot be scaled.
    """
    require_right_values(image)
    upright = _upright(image) if config.upright else image
    return _rgb(upright, config, Depth.of(image))


def preprocess(image: Image.Image, config: PreprocessConfig) -> Tensor:
    """Pixels (3, H, W), float32, of an image in any of Pillow's modes.

    Raises:
        ImageError: the image cannot be read or converted to RGB, has no pixels, or would be resized
            to no pixels or to more than Pillow's limit.
    """
    try:
        rgb = _resize(upright_rgb(image, config), config)
    except Exception as error:
        name = getattr(image, "filename", "") or f"an image of mode {image.mode}"
        raise ImageError(f"{name}: {reason_of(error)}") from None
    if config.crop is not None:
        rgb = _centre_crop(rgb, config.crop, config.crop_offset)
    values = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)  # (3, H, W), 0 to 255
    return _table(config).gather(1, values.flatten(1).long()).view(values.shape)


def denormalize(pixels: Tensor, config: PreprocessConfig) -> list[Image.Image]:
    """The images of pixels (3, H, W) or (B, 3, H, W) that `preprocess` returned."""
    batch = pixels[None] if pixels.ndim == 3 else pixels
    mean, std = (torch.tensor(values)[:, None, None] for values in (config.mean, config.std))
    values = (batch.float().cpu() * std + mean) / config.rescale  # (B, 3, H, W)
    values = values.round().clamp(0, 255).byte().permute(0, 2, 3, 1)
    return [Image.fromarray(image.numpy()) for image in values]


def _upright(image: Image.Image) -> Image.Image:
    """The image rotated or mirrored as its EXIF orientation says, or else its XMP."""
    method = _transposition(image)
    return image if method is None else image.transpose(method)


def is_sideways(image: Image.Image) -> bool:
    """Whether an image is stored rotated or mirrored, as its EXIF orientation or XMP says."""
    return _transposition(image) is not None


def _transposition(image: Image.Image) -> Image.Transpose | None:
    """The transposition that makes an image upright; None if it is upright or states no
    orientation."""
    # ImageOps.exif_transpose would also rewrite the EXIF data, and fails if any of it is damaged
    try:
        return TRANSPOSE.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # no EXIF data that can be read
        return None


def _rgb(image: Image.Image, config: PreprocessConfig, depth: Depth) -> Image.Image:
    """The image in mode RGB, 8 bits a channel."""
    image = eight_bit_image(image, depth, scale=config.scale_16_bit)
    if image.mode == "La":  # premultiplied grey; Pillow converts it to LA only
        image = image.convert("LA")
    has_alpha = "A" in image.getbands() or image.info.get("transparency") is not None
    if config.transparency == "white" and has_alpha:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _resize(rgb: Image.Image, config: PreprocessConfig) -> Image.Image:
    """The whole image in another size.

    Raises:
        ImageError: it has no pixels, or would have none, or more than Pillow's limit.
    """
    if 0 in rgb.size:
        raise ImageError(f"{_as_text(rgb.size)} pixels, expected at least 1 x 1")
    size = _new_size(rgb.size, config)
    if 0 in size or is_bomb(size):
        raise ImageError(
            f"{_as_text(rgb.size)} pixels would be resized to {_as_text(size)}, expected at least "
            f"1 x 1 and at most {Image.MAX_IMAGE_PIXELS} in all"
        )
    return rgb.resize(size, Image.Resampling[config.resample.upper()])


def _new_size(size: tuple[int, int], config: PreprocessConfig) -> tuple[int, int]:
    """The (width, height) to resize an image of `size` to: torchvision's `Resize`; with
    long_side_max, the original's `MinMaxResizeForTest`."""
    if config.exact is not None:
        return config.exact[1], config.exact[0]
    if config.short_side is None:
        return size
    short, long = sorted(size)
    new_short, limit = config.short_side, config.long_side_max
    if limit is not None and long / short * new_short > limit:
        new_short = round(limit * short / long)
    new_long = int(new_short * long / short)  # rounded down, as both references do
    return (new_short, new_long) if size[0] == short else (new_long, new_short)


def _centre_crop(image: Image.Image, crop: tuple[int, int], rule: str) -> Image.Image:
    """The centre of an image, (height, width) pixels; an image that is too small is padded with
    black."""
    height, width = crop
    x, y = _offset(image.width, width, rule), _offset(image.height, height, rule)
    return image.crop((x, y, x + width, y + height))


def _offset(side: int, crop: int, rule: str) -> int:
    """Where a crop begins; negative if the image is padded before it. For an odd margin, `floor`
    (Transformers) and `round` (torchvision) differ; for padding torchvision has a third rule."""
    if rule == "floor":
        return (side - crop) // 2
    return round((side - crop) / 2) if side >= crop else -((crop - side) // 2)


def _table(config: PreprocessConfig) -> Tensor:
    """(3, 256): the normalised value of each value of a channel.

    There are 256 values, so each is computed once and then looked up for the pixels: the same bits,
    faster. Transformers' `rescale` also scales in float64 and then rounds to float32; for 1/255
    that gives the same bits as torchvision's float32 division.
    """
    scaled = (np.arange(256) * config.rescale).astype(np.float32)
    mean = np.array(config.mean, dtype=np.float32)[:, None]
    std = np.array(config.std, dtype=np.float32)[:, None]
    return torch.from_numpy((scaled - mean) / std)


def _as_text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
