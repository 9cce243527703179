"""Whether a picture is of the kind that the model was made for."""

from collections.abc import Sequence

from PIL import Image

from git_model.config import GITConfig
from git_model.shapes.world import BACKGROUNDS

MIN_BACKGROUND_SHARE = 0.4  # of a drawn image; large shapes leave at least 0.55
MAX_GREY_DIFFERENCE = 3  # levels, of a background that was stored as JPEG


def doubt_about(frames: Sequence[Image.Image], config: GITConfig, *, shapes: bool) -> str:
    """The reason why a picture is not of the kind that the model was made for, or empty.

    Args:
        frames: the picture, or the frames of a clip, in RGB and in their own size.
        shapes: whether the model is the built-in one, which knows drawn shapes only.
    """
    side, (width, height) = config.purpose_side, frames[0].size
    if config.exceeds_purpose((width, height)):
        return f"it has {width} x {height} pixels, more than {side} x {side}"
    if shapes and not all(map(_is_drawn, frames)):
        return "it is not a drawing on a plain grey background"
    return ""


def _is_drawn(frame: Image.Image) -> bool:
    """Whether a large part of a frame is one of the greys that the shapes are drawn on."""
    colours = frame.getcolors(frame.width * frame.height) or []
    n_background = max(
        sum(count for count, colour in colours if _is_near(colour, grey)) for grey in BACKGROUNDS
    )
    return n_background >= MIN_BACKGROUND_SHARE * frame.width * frame.height


def _is_near(colour: object, grey: int) -> bool:
    return isinstance(colour, tuple) and all(
        abs(value - grey) <= MAX_GREY_DIFFERENCE for value in colour
    )
