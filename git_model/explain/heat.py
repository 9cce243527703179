"""A map of patches laid over its picture, as light: where the model looked the picture is bright.

Light keeps the picture's own colours, which the words are about, and needs no eye for colour.
Pillow and numpy are enough, so the page and the report can use it, too.
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

DARK = 0.12  # what is left of the light where the model did not look at all


def spotlight(frame: Image.Image, weights: Tensor, brightest: float) -> Image.Image:
    """A frame, dark where the model did not look.

    Args:
        weights: (rows, columns), 0 or more.
        brightest: the weight that shows the picture as it is; that of the brightest patch of all
            frames, say, so that frames can be compared.
    """
    light = DARK + (1 - DARK) * np.clip(weights.numpy() / max(brightest, 1e-12), 0, 1)
    size = frame.width // weights.shape[1], frame.height // weights.shape[0]
    shade = light.repeat(size[1], axis=0).repeat(size[0], axis=1)[..., None]
    return Image.fromarray((np.asarray(frame) * shade).round().astype(np.uint8))


def enlarged(frame: Image.Image, side: int) -> Image.Image:
    """A frame whose longer side has at least so many pixels, each of its own pixels a square."""
    times = -(-side // max(frame.size))
    return frame.resize((times * frame.width, times * frame.height), Image.Resampling.NEAREST)


def sheet(frames: Sequence[Image.Image], maps: Tensor, side: int) -> Image.Image:
    """One small picture of a map on all frames, three of these side by side.

    Args:
        maps: (F, rows, columns); the brightest patch of all has full light.
        side: about the pixels of a frame's longer side.

    Returns:
        RGBA, clear where there is no frame.
    """
    rows, columns = maps.shape[1:]
    patch = max(1, round(side / max(rows, columns)))  # pixels, so that a frame has whole patches
    size, gap = (patch * columns, patch * rows), 2 if len(frames) > 1 else 0
    across = min(len(frames), 3)
    down = -(-len(frames) // across)
    step = size[0] + gap, size[1] + gap
    whole = Image.new("RGBA", (across * step[0] - gap, down * step[1] - gap))
    for number, (frame, weights) in enumerate(zip(frames, maps, strict=True)):
        lit = spotlight(frame.resize(size), weights, maps.max().item())
        whole.paste(lit, (number % across * step[0], number // across * step[1]))
    return whole


def data_address(image: Image.Image) -> str:
    """A picture as a data: address, which a page can hold in itself."""
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
