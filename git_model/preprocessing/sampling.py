"""Which frames of a clip are taken, and the other options for reading a file."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from git_model.config import MAX_FRAMES
from git_model.utils.errors import ConfigError

Sampling = Literal["uniform", "ends", "time"]
VideoAs = Literal["first", "middle", "sheet"]
SHEET_FRAMES = 4  # two rows of two


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How a file becomes an image or a clip.

    sampling: which frames of a clip, see `sample_indices`; "time": see `sample_times`.
    frames: maximum number of frames of a clip; None: as many as the model has temporal embeddings.
        More need `GIT.interpolate_frames`.
    truncated: if a file is cut short or damaged, take what can be decoded.
    video_as: the image that a model without temporal embeddings gets from a video or an animation:
        "first", the first frame; "middle", the middle one; "sheet", SHEET_FRAMES frames on one
        image. None: the first frame of an animation, and an error for a video.
    upright: rotate a photo as its EXIF orientation says, or leave it as it is stored; None: as the
        model's `PreprocessConfig.upright`.
    """

    sampling: Sampling = "uniform"
    frames: int | None = None
    truncated: bool = False
    video_as: VideoAs | None = None
    upright: bool | None = None

    def __post_init__(self) -> None:
        for name, kind in (("sampling", Sampling), ("video_as", VideoAs)):
            value, names = getattr(self, name), get_args(kind)
            if value not in names and not (name == "video_as" and value is None):
                raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(names)}")
        if self.frames is not None and not 1 <= self.frames <= MAX_FRAMES:
            raise ConfigError(f"frames is {self.frames}, expected from 1 to {MAX_FRAMES}")

    def for_stills(self) -> tuple[int, Sampling]:
        """How many frames a model without temporal embeddings takes, and by which rule."""
        if self.video_as == "first":
            return 1, "ends"
        if self.video_as == "middle":
            return 1, "time" if self.sampling == "time" else "uniform"
        return (0 if self.video_as is None else SHEET_FRAMES), self.sampling


def sample_indices(n_total: int, n_samples: int, sampling: Sampling = "uniform") -> list[int]:
    """The indices of the frames to take, in order; all frames if there are at most `n_samples`.

    Args:
        sampling: "uniform" takes the middle frame of each of n_samples equal parts; "ends" goes in
            equal steps from the first frame to the last, as np.linspace does, rounded down.

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
    raise ConfigError(f"sampling is {sampling!r}, expected one of uniform, ends")


def sample_times(starts: Sequence[float], end: float, n_samples: int) -> list[int]:
    """The indices of the frames that are on the screen in the middle of each of `n_samples` equal
    parts of a clip's duration. A frame that is shown for long may be taken several times; at most
    as many frames are taken as the clip has.

    Args:
        starts: when each frame appears, in order, in seconds.
        end: when the last one disappears.

    >>> sample_times([0.0, 1.0, 2.0, 3.0], 10.0, 4)  # the last frame stays for 7 seconds
    [1, 3, 3, 3]
    """
    n = min(n_samples, len(starts))
    middles = (starts[0] + (2 * i + 1) * (end - starts[0]) / (2 * n) for i in range(n))
    return [max(bisect_right(starts, middle) - 1, 0) for middle in middles]
