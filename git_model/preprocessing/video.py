"""A clip: a few frames of an animation or a video, sampled by a named rule.

Pillow reads animated images. Videos need PyAV, the extra `video`, which is imported when the first
video is opened. Only the sampled frames are held in memory.
"""

import struct
from array import array
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image

from git_model.preprocessing.animation import ANIMATED, read_animation
from git_model.preprocessing.clip import MAX_VIDEO, Clip, MediaFile, require_bounded
from git_model.preprocessing.formats import VIDEO_SUFFIXES
from git_model.preprocessing.image import (
    TRANSPOSE,
    ImageError,
    UnknownFormatError,
    is_bomb,
    open_file,
    open_with_pillow,
    reason_of,
)
from git_model.preprocessing.sampling import ReadOptions, Sampling, sample_indices, sample_times
from git_model.utils.errors import GITError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# FFmpeg's names of the containers that may be opened. Playlists are not among them: a file must
# not make this program open other files, or the network.
CONTAINERS = "mp4,matroska,avi,mpegts,mpeg,flv,asf,ogg"
# Image formats in MP4's container: FFmpeg would show their tiles as frames.
IMAGE_BRANDS = ("avif", "avis", "heic", "heix", "hevc", "mif1", "msf1")
MAX_TIMED_FRAMES = 2**22  # of a video that is sampled by time: 19 hours at 60 frames a second

NOT_AN_IMAGE = "not an image, expected JPEG, PNG or another format that Pillow reads"


class NotAnImageError(ImageError):
    """A file that is not an image, for a model that reads no videos: perhaps it is one."""


@contextmanager
def with_video_advice() -> Iterator[None]:
    """Errors about such a file say how a video can be read, where `ReadOptions` can be chosen."""
    try:
        yield
    except NotAnImageError as error:
        raise NotAnImageError(
            f"{error}; videos need a model with temporal embeddings, or --video-as first, middle "
            "or sheet"
        ) from None


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


def read_media(
    path: str | Path, n_frames: int, options: ReadOptions | None = None
) -> Image.Image | Clip:
    """The image in a file, or a clip of an animation's or a video's frames.

    Args:
        n_frames: maximum number of frames of a clip (`GITConfig.frames`). With 0 the first frame of
            an animation is an image like any other, and a video is an error; `options.video_as`
            makes a clip of 1 or SHEET_FRAMES frames of both.

    Raises:
        ImageError: the file is missing, is not an image, animation or video, is damaged, is cut
            within a frame, has no frames, or has more pixels than Pillow's limit; or PyAV is needed
            and missing.
    """
    return _read(MediaFile(str(path), Path(path)), n_frames, options or ReadOptions())


def decode_media(
    data: bytes, name: str, n_frames: int, options: ReadOptions | None = None
) -> Image.Image | Clip:
    """The image or the clip in a file's bytes; errors call it `name`. See `read_media`."""
    return _read(MediaFile(name, data), n_frames, options or ReadOptions())


def is_clip(path: str | Path) -> bool:
    """Whether a file is a video, by its name, or an animation; False if it cannot be read."""
    path = Path(path)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return True
    try:
        with open_file(path) as content, open_with_pillow(content) as image:
            return image.format in ANIMATED and bool(getattr(image, "is_animated", False))
    except Exception:  # the caller that opens it reports the error
        return False


def _read(file: MediaFile, n_frames: int, options: ReadOptions) -> Image.Image | Clip:
    sampling = options.sampling
    if n_frames == 0:
        n_frames, sampling = options.for_stills()
    try:
        image = file.image(truncated=options.truncated)
    except UnknownFormatError:
        return _read_video(file, n_frames, sampling, options)
    if n_frames == 0 or image.format not in ANIMATED:
        return image
    return read_animation(file, n_frames, sampling, options) or image


def _read_video(file: MediaFile, n_frames: int, sampling: Sampling, options: ReadOptions) -> Clip:
    """Frames of a video. It is decoded to its end: once if its container states the true number of
    frames; otherwise, and for sampling by time, once to count the frames and once to take them."""
    if n_frames == 0:
        raise NotAnImageError(f"{file}: {NOT_AN_IMAGE}")
    with _opened(file) as (_, stream):
        n_stated = 0 if sampling == "time" else stream.frames  # 0: the container does not say
    decoder = _Decoder(file, options.truncated, is_timed=sampling == "time")
    indices = [] if sampling == "time" else sample_indices(n_stated, n_frames, sampling)
    decoder.decode(indices)
    n_total = decoder.n_frames
    if n_total == 0:
        raise ImageError(f"{file}: a video without frames, expected at least one")
    if n_total != n_stated:
        if sampling == "time":
            indices = sample_times(decoder.starts, decoder.end, n_frames)
        else:
            indices = sample_indices(n_total, n_frames, sampling)
        decoder.decode(indices)
    return Clip([decoder.images[index] for index in indices], indices, decoder.is_truncated)


@dataclass
class _Decoder:
    """Decodes a video from its first frame to its last.

    truncated: end at the first damage, which is otherwise an error.
    is_timed: record when each frame is shown.

    Attributes, after `decode`:
        images: the frames that were taken, upright, by their indices.
        n_frames: the number of frames of the whole video.
        starts, end: when each frame appears, and when the last one disappears, in seconds.
        is_truncated: whether there was damage.
    """

    file: MediaFile
    truncated: bool
    is_timed: bool
    images: dict[int, Image.Image] = field(default_factory=dict)
    n_frames: int = 0
    starts: "array[float]" = field(default_factory=lambda: array("d"))
    end: float = 0.0
    is_truncated: bool = False

    def decode(self, indices: Collection[int]) -> None:
        """Decode the video, and take the frames at these indices."""
        self.images, self.n_frames, self.starts = {}, 0, array("d")
        with _opened(self.file) as (container, stream):
            for frame in self._frames(container, stream):
                self._add(frame, indices)

    def _frames(self, container: "InputContainer", stream: "VideoStream") -> "Iterator[VideoFrame]":
        try:
            for packet in container.demux(stream):
                # MPEG-TS also marks packets as corrupt where two files were joined
                if packet.is_corrupt and container.format.name != "mpegts":
                    raise ImageError(
                        f"{self.file}: a frame is damaged or cut, expected a whole video"
                    )
                yield from packet.decode()
        except Exception:  # FFmpeg has many kinds
            if not self.truncated:
                raise
            self.is_truncated = True
            with suppress(Exception):
                yield from stream.decode()  # frames that the decoder still holds

    def _add(self, frame: "VideoFrame", indices: Collection[int]) -> None:
        _check_size(self.file, frame)
        size = frame.width, frame.height
        require_bounded(self.file, size, len(self.images) + 1, self.n_frames + 1, MAX_VIDEO)
        if self.n_frames in indices:
            self.images[self.n_frames] = _displayed(frame)
        if self.is_timed:
            self._add_time(frame)
        self.n_frames += 1

    def _add_time(self, frame: "VideoFrame") -> None:
        if frame.time is None or self.n_frames >= MAX_TIMED_FRAMES:
            raise ImageError(
                f"{self.file}: its frames state no times, or there are more than "
                f"{MAX_TIMED_FRAMES}: sample by index, --sampling uniform"
            )
        before = self.starts[-1] if self.starts else frame.time
        self.starts.append(max(frame.time, before))
        seconds = float(frame.duration * frame.time_base) if frame.time_base else 0.0
        self.end = self.starts[-1] + (seconds or frame.time - before)


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
def _opened(file: MediaFile) -> Iterator[tuple["InputContainer", "VideoStream"]]:
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


def _container(file: MediaFile, content: BinaryIO) -> "InputContainer":
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


def _video_stream(file: MediaFile, container: "InputContainer") -> "VideoStream":
    """The first video stream of a file that is not a cover image, decoded in several threads."""
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


def _check_size(file: MediaFile, video: "VideoStream | VideoFrame") -> None:
    """Refuse what exceeds Pillow's limit: a stream before decoding, and each frame, which may have
    another size."""
    if is_bomb((video.width, video.height)):
        limit = Image.MAX_IMAGE_PIXELS
        raise ImageError(f"{file}: too many pixels, expected at most {limit} in all")
