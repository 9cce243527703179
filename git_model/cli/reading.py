"""The options of commands that read images and clips: how files become the model's input."""

import functools
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import click

from git_model.cli.options import Command, option
from git_model.config import MAX_FRAMES

if TYPE_CHECKING:
    from git_model.model.git import GIT
    from git_model.preprocessing.sampling import ReadOptions, Sampling, VideoAs


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The values of `reading_options`: how files become images and clips."""

    sampling: "Sampling"
    frames: int | None
    interpolate_frames: bool
    video_as: "VideoAs | None"
    truncated: bool
    upright: bool | None

    def options_for(self, model: "GIT") -> "ReadOptions":
        """These options for a model, which `--interpolate-frames` changes.

        Raises:
            click.UsageError: they do not fit it.
        """
        from git_model.preprocessing.sampling import ReadOptions

        n = model.config.frames
        if n == 0 and (self.frames is not None or self.interpolate_frames):
            raise click.UsageError(
                "--frames and --interpolate-frames are for models with temporal embeddings; of a "
                "video this model gets one image: --video-as first, middle or sheet"
            )
        if n > 0 and self.video_as is not None:
            raise click.UsageError(
                f"--video-as is for models without temporal embeddings, this one has {n}"
            )
        if (self.frames or 0) > n and not self.interpolate_frames:
            raise click.UsageError(
                f"--frames is {self.frames}, but this model has {n} temporal embeddings: give "
                f"at most {n}, or add --interpolate-frames"
            )
        if self.interpolate_frames and (self.frames or 0) <= n:
            raise click.UsageError(f"--interpolate-frames is for --frames above the model's {n}")
        model.interpolate_frames = self.interpolate_frames
        return ReadOptions(
            sampling=self.sampling,
            frames=self.frames,
            truncated=self.truncated,
            video_as=self.video_as,
            upright=self.upright,
        )


def reading_options(command: Command) -> Command:
    """The options of a command that takes `reading`, see `Reading`."""

    @functools.wraps(command)
    def with_reading(**values: Any) -> Any:
        names = [item.name for item in fields(Reading)]
        return command(reading=Reading(**{name: values.pop(name) for name in names}), **values)

    decorated: Command = with_reading
    for decorate in reversed(READING_OPTIONS):
        decorated = decorate(decorated)
    return decorated


READING_OPTIONS = (
    option(
        "Input",
        "--sampling",
        type=click.Choice(["uniform", "ends", "time"]),
        default="uniform",
        show_default=True,
        help="Which frames of a clip a video model gets. uniform: the middle of equal parts; ends: "
        "in equal steps from the first to the last; time: the middle of equal times, for videos "
        "whose frames have different durations.",
    ),
    option(
        "Input",
        "--frames",
        type=click.IntRange(1, MAX_FRAMES),
        metavar="N",
        help="Maximum number of frames of a clip.  [default: the model's temporal embeddings]",
    ),
    option(
        "Input",
        "--interpolate-frames",
        is_flag=True,
        help="Let --frames exceed the model's temporal embeddings, by interpolating these.",
    ),
    option(
        "Input",
        "--video-as",
        type=click.Choice(["first", "middle", "sheet"]),
        help="What an image model gets of a clip: the first frame, the middle one, or a sheet of "
        "four frames as one image.  [default: an animation's first frame; a video is an error]",
    ),
    option(
        "Input",
        "--truncated",
        is_flag=True,
        help="Read what can be decoded of a file that is cut short or damaged, and mark its "
        "record.",
    ),
    option(
        "Input",
        "--upright/--no-upright",
        default=None,
        help="Rotate a photo as its EXIF orientation says, or leave it as it is stored.  "
        "[default: as the model's style]",
    ),
)


def sideways_line(n_images: int) -> str:
    """The warning about images that are left as they are stored."""
    return (
        f"{n_images} {'image is' if n_images == 1 else 'images are'} stored rotated or mirrored, "
        "and left so, as in the original's code; --upright rotates them"
    )
