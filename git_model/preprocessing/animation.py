"""A clip from an animated image, read by Pillow."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate

from PIL import Image

from git_model.preprocessing.clip import MAX_ANIMATION, Clip, MediaFile, require_bounded
from git_model.preprocessing.formats import MAX_ANIMATION_FRAMES, count_gif_frames
from git_model.preprocessing.image import (
    ImageError,
    open_with_pillow,
    reason_of,
    truncated_allowed,
)
from git_model.preprocessing.sampling import ReadOptions, Sampling, sample_indices, sample_times
from git_model.utils.errors import GITError

# In other formats several images are not an animation: those of a TIFF are pages, and a phone's
# JPEG (MPO) holds the same photo twice.
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
UNSTATED_SECONDS = 0.1  # how long browsers show a frame that states no time


def read_animation(
    file: MediaFile, n_frames: int, sampling: Sampling, options: ReadOptions
) -> Clip | None:
    """Frames of an animated image; None if it has only one.

    Raises:
        ImageError: it is damaged, cut short, or too large.
    """
    try:
        return _whole_animation(file, n_frames, sampling)
    except GITError:
        raise
    except Exception as error:  # a damaged file makes Pillow's readers raise almost anything
        if not options.truncated:
            raise ImageError(f"{file}: {reason_of(error)}, expected a whole animation") from None
    try:
        with truncated_allowed():
            return _partial_animation(file, n_frames, sampling)
    except GITError:
        raise
    except Exception as error:
        raise ImageError(f"{file}: {reason_of(error)}, expected frames") from None


def _whole_animation(file: MediaFile, n_frames: int, sampling: Sampling) -> Clip | None:
    with _animation(file) as (image, first, total):
        if total < 2:
            return None
        indices = [first + index for index in _indices(image, first, total, n_frames, sampling)]
        require_bounded(file, image.size, len(indices), first + total, MAX_ANIMATION)
        frames = [_frame_of(image, index) for index in indices]
        _frame_of(image, first + total - 1)  # so that a file cut short is refused
        return Clip(frames, indices)


def _partial_animation(file: MediaFile, n_frames: int, sampling: Sampling) -> Clip | None:
    """A clip of the frames before the damage; None if fewer than two can be decoded."""
    with _animation(file) as (image, first, stated):
        require_bounded(file, image.size, n_frames, first + stated, MAX_ANIMATION)
        total = 0
        while total < stated:
            try:
                _frame_of(image, first + total)
            except Exception:
                break
            total += 1
        if total < 2:
            return None
        indices = [first + index for index in _indices(image, first, total, n_frames, sampling)]
        return Clip([_frame_of(image, index) for index in indices], indices, is_truncated=True)


@contextmanager
def _animation(file: MediaFile) -> Iterator[tuple[Image.Image, int, int]]:
    """An open image, the index of its animation's first frame, and how many frames follow."""
    with file.open() as content, open_with_pillow(content) as image:
        _require_few_frames(file, image)
        # a PNG may begin with an image for programs that cannot show the animation
        first = int(bool(image.info.get("default_image")))
        yield image, first, getattr(image, "n_frames", 1) - first


def _indices(
    image: Image.Image, first: int, total: int, n_frames: int, sampling: Sampling
) -> list[int]:
    """The frames to take, counted from the animation's first one."""
    if sampling != "time":
        return sample_indices(total, n_frames, sampling)
    seconds = [_seconds(image, first + index) for index in range(total)]
    *starts, end = accumulate(seconds, initial=0.0)
    return sample_times(starts, end, n_frames)


def _seconds(image: Image.Image, index: int) -> float:
    """How long a frame is shown."""
    image.seek(index)
    image.load()  # some formats state it only then
    return (image.info.get("duration") or 0) / 1000 or UNSTATED_SECONDS


def _require_few_frames(file: MediaFile, image: Image.Image) -> None:
    """Refuse an animation of more than MAX_ANIMATION_FRAMES frames, before they are walked."""
    if image.format == "GIF":  # Pillow would walk them to count them
        with file.open() as content:
            n_frames = count_gif_frames(content, MAX_ANIMATION_FRAMES + 1)
    else:
        n_frames = getattr(image, "n_frames", 1)
    if n_frames > MAX_ANIMATION_FRAMES:
        raise ImageError(
            f"{file}: an animation of more than {MAX_ANIMATION_FRAMES} frames, which is the limit"
        )


def _frame_of(image: Image.Image, index: int) -> Image.Image:
    image.seek(index)
    return image.copy()
