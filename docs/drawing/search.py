"""Figures of a text as it is generated: its attention to the image, and the beams of a search."""

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from drawing.theme import INK, Drawing, bare, demo, rounded
from drawing.vision import IMAGE_PATH
from git_model.config import DecodingOptions
from git_model.explain import figures as explain_figures
from git_model.explain.explanation import explain
from git_model.shapes.source import ShapesData

MIN_OPACITY = 0.12  # of the image where the attention is 0
NEW_PAIR = 25  # an example of the recombination split on which greedy search goes wrong


def attention() -> Drawing:
    """The image once for each word of its caption, bright where the attention is high."""
    explanation = explain(demo(), IMAGE_PATH)
    maps = explanation.patch_attention()[:, 0]  # (tokens, 3, 3)
    to_image = explanation.image_attention.mean((0, 1)).sum((-1, -2))
    words = [token.text for token in explanation.generated]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    panels = figure.subplots(2, 7).ravel()
    for axes in panels:
        bare(axes)
    image = np.asarray(explanation.frames[0]) / 255
    for axes, word, weights, share in zip(panels, words, maps, to_image, strict=False):
        axes.imshow(_faded(image, weights / maps.max()))
        axes.add_patch(Rectangle((-0.5, -0.5), *image.shape[1::-1], fill=False, edgecolor=INK))
        axes.set_title(word, weight="bold")
        axes.text(0.5, -0.04, f"{share:.0%}", transform=axes.transAxes, ha="center", va="top")
    figure.supxlabel(
        "strong colours: patches with high attention when the word is predicted; "
        "below: the image's share of all attention",
        fontsize=9,
    )
    return Drawing(
        figure, {"words": words, "maps": rounded(maps), "image_share": rounded(to_image)}
    )


def _faded(image: np.ndarray, weights: Tensor) -> np.ndarray:
    """An image (H, W, 3), faded to white where the weights (rows, columns), 0 to 1, are low."""
    side = len(image) // len(weights)
    share = np.kron(weights.numpy(), np.ones((side, side)))[..., None]
    opacity = MIN_OPACITY + (1 - MIN_OPACITY) * share
    return opacity * image + (1 - opacity)


def beams() -> Drawing:
    """The branches of a search with three beams, step by step, best on top."""
    example = ShapesData(tasks=("captions",), split="recombination", size=NEW_PAIR + 1).open()
    explanation = explain(demo(), example[NEW_PAIR].media, options=DecodingOptions(num_beams=3))
    figure, tree = explain_figures.beams(explanation), explanation.tree or []
    figure.set_size_inches(10.5, 3.4)
    scores = [rounded(torch.tensor([branch.score for branch in step])) for step in tree]
    outcomes = [[branch.outcome for branch in step] for step in tree]
    return Drawing(figure, {"scores": scores, "outcomes": outcomes})
