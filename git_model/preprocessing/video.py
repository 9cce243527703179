"""A clip: a few frames of an animation or a video, sampled by a named rule.

Pillow reads animated images. Videos need PyAV, the extra `video`, which is imported when the first
video is opened. Only the sampled frames are held in memory.
"""

import io
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, get_args

from PIL import Image, UnidentifiedImageError

from git_model.preprocessing.formats import MAX_ANIMATION_FRAMES, VIDEO_SUFFIXES, count_gif_frames
from git_model.preprocessing.image import (
    TRANSPOSE,
    ImageError,
    decode_image,
    is_bomb,
    open_file,
    open_image,
    open_with_pillow,
    reason_of,
)
from git_model.utils.errors import ConfigError, GITError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Sampling = Literal["uniform", "ends"]

# In other formats several images are no animation: a TIFF's are pages, and a phone's JPEG (MPO)
# holds the same photo twice.
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
# FFmpeg's names of the containers that may be opened. Playlists are not among them: a file must
# not make us open other files, or the network.
CONTAINERS = "mp4,matroska,avi,mpegts,mpeg,flv,asf,ogg"
# Image formats in MP4's container: FFmpeg would show their tiles as frames.
IMAGE_BRANDS = ("avif", "avis", "heic", "heix", "hevc", "mif1", "msf1")
# Upper limits, in multiples of Pillow's limit of pixels. The sampled frames of a clip are in memory
# at once. All decoded frames count, too, because a small file can repeat a frame for days: the
# limits are some 30 seconds of decoding an animation, and an hour of a video in 1920 x 1080.
MAX_SAMPLED, MAX_ANIMATION, MAX_VIDEO = 4, 40, 2500

# EXIF's number for what the signs of a display matrix (a, b, c, d) do.
ORIENTATION_OF = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}


@dataclass(frozen=True)
class Clip:
    """Frames of one file in their order, and their indices in the file."""

    frames: list[Image.Image]
    indices: list[int]


def sample_indices(n_total: int, n_samples: int, sampling: Sampling = "uniform") -> list[int]:
    """The indices of the frames to take, in order; all frames if there are at most `n_samples`.

    Args:
        sampling: "uniform" takes the middle of each of n_samples equal parts; "ends" goes in equal
            steps from the first frame to the last, as np.linspace rounded down.

    Raises:
        ConfigError: no such sampling.

    >>> sample_indices(60, 6), sample_indices(60, 6, "ends")
    ([5, 15, 25, 35, 45, 55], [0, 11, 23, 35, 47, 59])
    """
    n = min(n_samples, n_total)
    if sampling == "uniform":
        return [(2 * i + 1) * n_total // (2 * n) for i in range(n)]
    if sampling == "ends":
        return [i * (n_total - 1) // max(n - 1, 1) for i in range(n)]
    raise ConfigError(f"sampling is {sampling!r}, expected one of {', '.join(get_args(Sampling))}")


def read_media(
    path: str | Path, n_frames: int, sampling: Sampling = "uniform"
) -> Image.Image | Clip:
    """The image in a file, or a clip of an animation's or a video's frames.

    Args:
        n_frames: maximum number of frames of a clip (`GITConfig.frames`). With 0 the first frame of
            an animation is an image like any other, and a video is an error.
        sampling: see `sample_indices`.

    Raises:
        ImageError: the file is missing, none of these, damaged, cut within a frame, without
            frames, or larger than Pillow's limit of pixels; or it needs PyAV.
        ConfigError: no such sampling.
    """
    return _read(_File(str(path), Path(path)), n_frames, sampling)


def decode_media(
    data: bytes, name: str, n_frames: int, sampling: Sampling = "uniform"
) -> Image.Image | Clip:
    """The image or the clip in a file's bytes; errors call it `name`. See `read_media`."""
    return _read(_File(name, data), n_frames, sampling)


def is_clip(path: str | Path) -> bool:
    """Whether a file is a video, by its name, or an animation; False if it cannot be read."""
    path = Path(path)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return True
    try:
        with open_file(path) as content, open_with_pillow(content) as image:
            return image.format in ANIMATED and bool(getattr(image, "is_animated", False))
    except Exception:  # whoever opens it says what is wrong with it
        return False


@dataclass(frozen=True)
class _File:
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

    def image(self) -> Image.Image:
        """The image in it."""
        if isinstance(self.content, bytes):
            return decode_image(self.content, self.name)
        return open_image(self.content)


def _read(file: _File, n_frames: int, sampling: Sampling) -> Image.Image | Clip:
    if _is_unknown_to_pillow(file):
        return _read_video(file, n_frames, sampling)
    image = file.image()
    if n_frames == 0 or image.format not in ANIMATED:
        return image
    return _read_animation(file, n_frames, sampling) or image


def _is_unknown_to_pillow(file: _File) -> bool:
    try:
        with file.open() as content:
            open_with_pillow(content).close()
            return False
    except UnidentifiedImageError:
        return True
    except Exception:  # `open_image` says better what it is
        return False


def _read_animation(file: _File, n_frames: int, sampling: Sampling) -> Clip | None:
    """Frames of an animated image; None if it has only one."""
    try:
        with file.open() as content, open_with_pillow(content) as image:
            _require_few_frames(file, image)
            # a PNG may begin with an image for programs that cannot show the animation
            first = int(bool(image.info.get("default_image")))
            total = getattr(image, "n_frames", 1) - first
            if total < 2:
                return None
            indices = [first + index for index in sample_indices(total, n_frames, sampling)]
            _require_bounded(file, image.size, len(indices), first + total, MAX_ANIMATION)
            frames = [_frame_of(image, index) for index in indices]
            _frame_of(image, first + total - 1)  # so that a file cut short is refused
            return Clip(frames, indices)
    except GITError:
        raise
    except Exception as error:  # a damaged file makes Pillow's readers raise almost anything
        raise ImageError(f"{file}: {reason_of(error)}, expected a whole animation") from None


def _require_few_frames(file: _File, image: Image.Image) -> None:
    """Refuse an animation of more than MAX_ANIMATION_FRAMES frames, before they are walked."""
    if image.format == "GIF":  # Pillow would walk them to count them
        with file.open() as content:
            n_frames = count_gif_frames(content, MAX_ANIMATION_FRAMES + 1)
    else:
        n_frames = getattr(image, "n_frames", 1)
    if n_frames > MAX_ANIMATION_FRAMES:
        raise ImageError(
            f"{file}: an animation of more than {MAX_ANIMATION_FRAMES} frames, expected at most "
            "so many"
        )


def _require_bounded(
    file: _File, size: tuple[int, int], n_sampled: int, n_decoded: int, max_decoded: int
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


def _frame_of(image: Image.Image, index: int) -> Image.Image:
    image.seek(index)
    return image.copy()


def _read_video(file: _File, n_frames: int, sampling: Sampling) -> Clip:
    """Frames of a video. It is decoded to its end: once if its container states the true number of
    frames, else once to count them and once more."""
    if n_frames == 0:
        raise ImageError(
            f"{file}: not an image, expected JPEG, PNG or another format that Pillow reads; "
            "videos need a model with temporal embeddings"
        )
    with _opened(file) as (_, stream):
        n_stated = stream.frames  # 0 if the container does not say
    indices = sample_indices(n_stated, n_frames, sampling)
    frames, n_total = _decode(file, indices)
    if n_total != n_stated:
        indices = sample_indices(n_total, n_frames, sampling)
        frames, _ = _decode(file, indices)
    if not frames:
        raise ImageError(f"{file}: a video without frames, expected at least one")
    return Clip(frames, indices)


def _decode(file: _File, indices: Collection[int]) -> tuple[list[Image.Image], int]:
    """The frames of a video at these indices, upright, and its total number of frames."""
    images: list[Image.Image] = []
    total = 0
    with _opened(file) as (container, stream):
        for packet in container.demux(stream):
            # MPEG-TS says so also where two files were joined
            if packet.is_corrupt and container.format.name != "mpegts":
                raise ImageError(f"{file}: a frame is damaged or cut, expected a whole video")
            for frame in packet.decode():
                _check_size(file, frame)
                size = frame.width, frame.height
                _require_bounded(file, size, len(images) + 1, total + 1, MAX_VIDEO)
                if total in indices:
                    images.append(_displayed(frame))
                total += 1
    return images, total


def _displayed(frame: "VideoFrame") -> Image.Image:
    """A frame as its display matrix shows it: rotated, mirrored, or both.

    The matrix (a b u, c d v, x y w) of ISO 14496-12 puts pixel (p, q), q downwards, at
    (a p + c q + x, b p + d q + y). Other angles than multiples of 90 degrees are rotated.
    """
    image = frame.to_image()
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    signs = tuple((value > 0) - (value < 0) for value in (a, b, c, d))
    if signs in ORIENTATION_OF:
        method = TRANSPOSE.get(ORIENTATION_OF[signs])
        return image if method is None else image.transpose(method)
    # the angle is counterclockwise, as Pillow's
    return image.rotate(frame.rotation, expand=True)


@contextmanager
def _opened(file: _File) -> Iterator[tuple["InputContainer", "VideoStream"]]:
    """A video file and the stream to decode; what PyAV raises becomes an ImageError."""
    try:
        # as an open file, because FFmpeg might take a name for an address
        with file.open() as content, _container(file, content) as container:
            yield container, _video_stream(file, container)
    except GITError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise ImageError(f"{file}: {reason}, expected a whole video") from None


def _container(file: _File, content: BinaryIO) -> "InputContainer":
    try:
        import av
    except ImportError:
        raise ImageError(
            f"{file}: not an image, and reading it as a video needs PyAV: "
            "pip install 'git-model[video]'"
        ) from None
    try:
        return av.open(content, "r", container_options={"format_whitelist": CONTAINERS})
    except Exception:  # FFmpeg's own words are about its demuxers
        raise ImageError(
            f"{file}: neither an image nor a whole video, expected JPEG, PNG or another format "
            "that Pillow reads, or mp4, mov, webm, mkv, avi, mpeg, ts, flv, wmv or ogv"
        ) from None


def _video_stream(file: _File, container: "InputContainer") -> "VideoStream":
    """The first video stream of a file that is no cover image, decoded in several threads."""
    from av.stream import Disposition

    if container.metadata.get("major_brand") in IMAGE_BRANDS:
        raise ImageError(f"{file}: an AVIF or HEIF image that Pillow cannot read, expected JPEG")
    for stream in container.streams.video:
        if stream.disposition & Disposition.attached_pic:
            continue
        if stream.codec_context is None:
            raise ImageError(f"{file}: a video in an unknown codec, expected H.264 or the like")
        _check_size(file, stream)
        stream.thread_type = "AUTO"
        return stream
    raise ImageError(f"{file}: no video stream in this file, expected one")


def _check_size(file: _File, video: "VideoStream | VideoFrame") -> None:
    """Refuse what exceeds Pillow's limit: a stream before decoding, and each frame, which may have
    another size."""
    if is_bomb((video.width, video.height)):
        limit = Image.MAX_IMAGE_PIXELS
        raise ImageError(f"{file}: too many pixels, expected at most {limit} in all")
