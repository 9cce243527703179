"""Figures of a text as it is chosen: where its words looked, and the beams behind it."""

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from drawing.seeing import PICTURE
from drawing.style import INK, Drawing, bare, demo, rounded
from git_model.config import DecodingOptions
from git_model.explain import picture_tables
from git_model.explain.explanation import explain
from git_model.shapes.source import ShapesData

LEAST = 0.12  # of a picture that is left where the model did not look
NEW_PAIR = 25  # of the recombination split: here greedy search goes wrong


def looks() -> Drawing:
    """The picture once for each word of its caption, lit where the model looked."""
    found = explain(demo(), PICTURE)
    maps = found.patches()[:, 0]  # (words, 3, 3)
    to_image = found.image_attention.mean((0, 1)).sum((-1, -2))
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    places = figure.subplots(2, 7).flat
    for axes in places:
        bare(axes)
    picture = np.asarray(found.frames[0]) / 255
    for axes, word, weights, share in zip(figure.axes, found.words, maps, to_image, strict=False):
        axes.imshow(_faded(picture, weights / maps.max()))
        axes.add_patch(Rectangle((-0.5, -0.5), *picture.shape[1::-1], fill=False, edgecolor=INK))
        axes.set_title(word.text, weight="bold")
        axes.text(0.5, -0.04, f"{share:.0%}", transform=axes.transAxes, ha="center", va="top")
    figure.supxlabel(
        "clear: where the model looked for this word; below: the image's part of all its looks",
        fontsize=9,
    )
    data = {"words": [word.text for word in found.words], "maps": rounded(maps)}
    return Drawing(figure, data | {"to_image": rounded(to_image)})


def _faded(picture: np.ndarray, weights: Tensor) -> np.ndarray:
    """A picture (H, W, 3), faded to white where the weights (rows, columns), 0 to 1, are low."""
    side = len(picture) // len(weights)
    clear = LEAST + (1 - LEAST) * np.kron(weights.numpy(), np.ones((side, side)))[..., None]
    return clear * picture + (1 - clear)


def beams() -> Drawing:
    """The branches of a search with three beams, step by step, best on top."""
    git = demo()
    example = ShapesData(tasks=("captions",), split="recombination", size=NEW_PAIR + 1).open()
    found = explain(git, example[NEW_PAIR].media, options=DecodingOptions(num_beams=3))
    figure, tree = picture_tables.beams(found), found.tree or []
    figure.set_size_inches(10.5, 3.4)
    scores = [rounded(torch.tensor([one.score for one in step])) for step in tree]
    fates = [[one.fate for one in step] for step in tree]
    return Drawing(figure, {"scores": scores, "fates": fates})
