"""A map of patches laid over its picture, as light: where the model looked the picture is bright.

Light keeps the picture's own colours, which the words are about, and needs no eye for colour.
Pillow and numpy are enough, so the page and the report can use it, too.
"""

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
