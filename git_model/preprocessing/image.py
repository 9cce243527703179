"""A picture becomes pixels: upright, RGB, resized, cropped, normalised; every step by Pillow.

The result equals the references' bit for bit: Transformers' `CLIPImageProcessorPil`, and the
original's `get_image_transform` (inference.py, on torchvision), as `PreprocessConfig` says.
"""

import errno
import io
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from git_model.config import PreprocessConfig
from git_model.utils.errors import GITError

ORIENTATION = 0x0112  # EXIF's number for it; 1 is upright, and this undoes the others
TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


PROGRAMS = {"EPS": "a PostScript program, for which Pillow would start another program"}
START_OF_SCAN = b"\xff\xda"  # never within a scan: a byte of 255 is followed there by 0
MOST_SCANS = 100  # of a progressive JPEG; cameras and programs write about 10


class ImageError(GITError):
    """A picture that cannot be used; the message says which, what is wrong, what was expected."""


def open_image(path: str | Path) -> Image.Image:
    """The picture in a file, its pixels loaded and the file closed; of an animation, frame 0.

    Raises:
        ImageError: the file is missing, a pipe or a device, no picture, damaged, cut short, or has
            more pixels than Pillow's limit (`PIL.Image.MAX_IMAGE_PIXELS`, against decompression
            bombs).
    """
    path = Path(path)
    with _one_line(str(path)):
        with open_file(path) as file:
            _require_content(file.read(1))
        return _load(path)


def decode_image(data: bytes, name: str) -> Image.Image:
    """The picture in a file's bytes; `name` is what errors call it. See `open_image`."""
    with _one_line(name):
        _require_content(data)
        return _load(io.BytesIO(data))


def open_file(path: Path) -> BinaryIO:
    """A file to read. A pipe, a socket or a device is refused, for reading one may never end.

    Raises:
        OSError: it is none, or cannot be opened.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a folder cannot be opened anyway
        raise OSError(errno.EINVAL, "a pipe, socket or device", str(path))
    return path.open("rb")


def _require_content(data: bytes) -> None:
    if not data:
        raise ImageError("the file is empty, expected a picture")


def _load(file: Path | io.BytesIO) -> Image.Image:
    with Image.open(file) as image:
        if is_bomb(image.size):  # Pillow itself only warns until twice its limit
            raise Image.DecompressionBombError
        if image.format in PROGRAMS:
            raise ImageError(f"{PROGRAMS[image.format]}, expected JPEG, PNG or the like")
        if image.info.get("progressive"):
            _require_few_scans(file)
        image.load()
        return image


def _require_few_scans(file: Path | io.BytesIO) -> None:
    """A progressive JPEG draws the picture again and again, and may do so thousands of times."""
    data = file.read_bytes() if isinstance(file, Path) else file.getvalue()
    scans = data.count(START_OF_SCAN)
    if scans > MOST_SCANS:
        raise ImageError(f"a JPEG that is drawn {scans} times, expected at most {MOST_SCANS}")


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """What goes wrong with a picture, as an ImageError of one line."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = Image.MAX_IMAGE_PIXELS
        raise ImageError(f"{name}: too many pixels, expected at most {limit} in all") from None
    except UnidentifiedImageError:
        raise ImageError(
            f"{name}: not a picture, expected JPEG, PNG or another format that Pillow reads"
        ) from None
    except Exception as error:  # a damaged file makes Pillow's readers raise almost anything
        raise ImageError(f"{name}: {reason_of(error)}, expected a whole picture file") from None


def is_bomb(size: tuple[int, int], count: int = 1, *, limits: int = 1) -> bool:
    """Whether `count` pictures of this size have more pixels than so many times Pillow's limit."""
    most = Image.MAX_IMAGE_PIXELS
    return most is not None and size[0] * size[1] * count > limits * most


def reason_of(error: Exception) -> str:
    """What an exception says, on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def preprocess_batch(images: Sequence[Image.Image], config: PreprocessConfig) -> Tensor:
    """Pictures, or the frames of one clip, as one tensor (B, 3, H, W); see `preprocess`.

    Raises:
        ImageError: there are none, one cannot be used, or they come out in different sizes.
    """
    if not images:
        raise ImageError("no pictures were given, expected at least one")
    pixels = [preprocess(image, config) for image in images]
    first = pixels[0].shape
    for index, shape in enumerate(one.shape for one in pixels):
        if shape != first:
            raise ImageError(
                f"picture {index} comes out as {shape[1]} x {shape[2]} pixels but picture 0 as "
                f"{first[1]} x {first[2]}: give pictures of one shape, one at a time, or set a crop"
            )
    return torch.stack(pixels)


def group_by_shape(pixels: Sequence[Tensor]) -> list[list[int]]:
    """The positions of tensors of equal shape, which can form a batch together; groups come in the
    order in which their shapes first appear."""
    groups: dict[torch.Size, list[int]] = {}
    for position, tensor in enumerate(pixels):
        groups.setdefault(tensor.shape, []).append(position)
    return list(groups.values())


def preprocess(image: Image.Image, config: PreprocessConfig) -> Tensor:
    """Pixels (3, H, W), float32, of a picture in any of Pillow's modes.

    Raises:
        ImageError: the picture cannot be read or brought to RGB, has no pixels, or is so narrow
            that its resized form would have none or more than Pillow's limit.
    """
    try:
        rgb = _resize(_rgb(_upright(image) if config.upright else image, config), config)
    except Exception as error:  # EXIF data, too, may be damaged in any way
        name = getattr(image, "filename", "") or f"a picture of mode {image.mode}"
        raise ImageError(f"{name}: {reason_of(error)}") from None
    if config.crop is not None:
        rgb = _centre_crop(rgb, config.crop, config.crop_offset)
    values = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)  # (3, H, W), 0 to 255
    return _table(config).gather(1, values.flatten(1).long()).view(values.shape)


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF data says, if it says so."""
    # ImageOps.exif_transpose would also write the EXIF data anew, and fails if any of it is damaged
    turn = TURN.get(image.getexif().get(ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image, config: PreprocessConfig) -> Image.Image:
    """The picture in mode RGB, 8 bits a channel."""
    if image.mode.startswith("I"):
        image = _eight_bits(image, config)
    if image.mode == "La":  # premultiplied grey; Pillow converts it to LA only
        image = image.convert("LA")
    has_alpha = "A" in image.getbands() or image.info.get("transparency") is not None
    if config.transparency == "white" and has_alpha:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _eight_bits(image: Image.Image, config: PreprocessConfig) -> Image.Image:
    """A picture of integers, 0 to 65535: divided by 257, or left for Pillow to clip at 255."""
    values = np.asarray(image).astype(np.int32)
    if config.scale_16_bit:
        # to the nearest; a shade that the file calls transparent is forgotten
        scaled = (values.clip(0, 65535) + 128) // 257
        return Image.fromarray(scaled.astype(np.uint8))
    if values.max(initial=0) > 255:
        # the same words for every picture, so that Python shows them once
        warnings.warn(
            "16-bit pixels brighter than 255 are clipped to it, as in the references; set "
            "preprocess.scale_16_bit to scale them instead",
            stacklevel=4,  # the caller of `preprocess`
        )
    return image


def _resize(rgb: Image.Image, config: PreprocessConfig) -> Image.Image:
    """The whole picture in another size.

    Raises:
        ImageError: it has no pixels, or would have none, or more than Pillow's limit.
    """
    if 0 in rgb.size:
        raise ImageError(f"{_by(rgb.size)} pixels, expected at least 1 x 1")
    size = _wanted_size(rgb.size, config)
    if 0 in size or is_bomb(size):
        raise ImageError(
            f"{_by(rgb.size)} pixels would be resized to {_by(size)}, expected at least 1 x 1 and "
            f"at most {Image.MAX_IMAGE_PIXELS} in all"
        )
    return rgb.resize(size, Image.Resampling[config.resample.upper()])


def _wanted_size(size: tuple[int, int], config: PreprocessConfig) -> tuple[int, int]:
    """The (width, height) to resize a picture of `size` to: torchvision's `Resize`; with
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
    """The middle of a picture, (height, width) pixels; black is added where it is too small."""
    height, width = crop
    left, top = _offset(image.width, width, rule), _offset(image.height, height, rule)
    return image.crop((left, top, left + width, top + height))


def _offset(side: int, crop: int, rule: str) -> int:
    """Where a crop begins; negative where black comes first. With an odd margin, `floor`
    (Transformers) and `round` (torchvision) differ, and torchvision pads by another rule still."""
    if rule == "floor":
        return (side - crop) // 2
    return round((side - crop) / 2) if side >= crop else -((crop - side) // 2)


def _table(config: PreprocessConfig) -> Tensor:
    """(3, 256): what each value of a channel becomes.

    A value can only be 0 to 255, so the arithmetic is done once for each of them and looked up for
    the pixels: the same bits, sooner. Scaling in float64 and only then rounding to float32 is
    Transformers' `rescale`; for 1/255 it gives the bits of torchvision's float32 division.
    """
    scaled = (np.arange(256) * config.rescale).astype(np.float32)
    mean = np.array(config.mean, dtype=np.float32)[:, None]
    std = np.array(config.std, dtype=np.float32)[:, None]
    return torch.from_numpy((scaled - mean) / std)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
