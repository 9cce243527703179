"""Figures of a text as it is generated: its attention to the image, and the beams of a search."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from drawing.theme import INK, SEQUENTIAL, Drawing, bare, demo, grid_lines, rounded
from drawing.vision import IMAGE_PATH
from git_model.config import DecodingOptions
from git_model.explain import figures as explain_figures
from git_model.explain.drawings import overlay, upscaled
from git_model.explain.explanation import explain
from git_model.shapes.source import ShapesData

CONTENT_WORDS = ("large", "blue", "circle", "small", "green", "cross")
NEW_PAIR = 25  # an example of the recombination split on which greedy search goes wrong


def attention() -> Drawing:
    """The image, and the image once for each word of its caption, bright where the attention is
    high."""
    explanation = explain(demo(), IMAGE_PATH)
    maps = explanation.patch_attention()[:, 0]  # (tokens, 3, 3)
    to_image = explanation.image_attention.mean((0, 1)).sum((-1, -2))
    words = [token.text for token in explanation.generated]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    first, *panels = figure.subplots(2, 7).ravel()
    first.imshow(_enlarged(explanation.frames[0]))
    first.set_title("input", style="italic")
    bare(first)
    for axes, word, weights, share in zip(panels, words, maps, to_image, strict=True):
        _draw_map(axes, explanation.frames[0], weights, maps.max().item())
        axes.set_title(word, weight="bold")
        axes.text(0.5, -0.04, f"{share:.0%}", transform=axes.transAxes, ha="center", va="top")
    figure.supxlabel(
        "bright: patches with much attention when the word is predicted; "
        "below: the image's share of all attention",
        fontsize=9,
    )
    return Drawing(
        figure, {"words": words, "maps": rounded(maps), "image_share": rounded(to_image)}
    )


def _enlarged(frame: Image.Image) -> Image.Image:
    return upscaled(frame, 252)


def _draw_map(axes: Axes, frame: Image.Image, weights: Tensor, most: float) -> None:
    """The frame, dark where the weights are low; the square root keeps weak ones visible."""
    axes.imshow(overlay(_enlarged(frame), weights.sqrt(), most**0.5))
    bare(axes)


def occlusion() -> Drawing:
    """For six words: the attention to each patch, and what a blank patch costs the word."""
    explanation = explain(demo(), IMAGE_PATH, occlude=True)
    assert explanation.occlusion is not None
    attention_maps = explanation.patch_attention()[:, 0]
    drops = explanation.occlusion[:, 0]
    words = [token.text for token in explanation.generated]
    columns = [words.index(word) for word in CONTENT_WORDS]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(2, 1 + len(columns))
    for axes, title in zip(panels[:, 0], ("attention", "occlusion"), strict=True):
        bare(axes)
        axes.text(0.95, 0.5, title, ha="right", va="center", weight="bold")
    for (upper, lower), index in zip(panels[:, 1:].T, columns, strict=True):
        _draw_map(upper, explanation.frames[0], attention_maps[index], attention_maps.max().item())
        upper.set_title(words[index], weight="bold")
        _draw_drops(lower, drops[index])
    figure.supxlabel(
        "above: bright patches get much attention; below: nats that the word loses when a patch is "
        "blank",
        fontsize=9,
    )
    data = {"words": list(CONTENT_WORDS), "drops": rounded(drops[columns])}
    return Drawing(figure, data)


def _draw_drops(axes: Axes, drops: Tensor) -> None:
    """A cell for each patch, with what it costs."""
    axes.imshow(drops.clamp(min=0), cmap=SEQUENTIAL, vmin=0, vmax=9)
    for row, values in enumerate(drops.tolist()):
        for column, value in enumerate(values):
            colour = "white" if value > 4.5 else INK
            text = f"{value:.1f}".replace("-0.0", "0.0")
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    grid_lines(axes, 3, 3, colour="#cccccc")
    axes.set(xticks=[], yticks=[])


def beams() -> Drawing:
    """The branches of a search with three beams, step by step, best on top."""
    example = ShapesData(tasks=("captions",), split="recombination", size=NEW_PAIR + 1).open()
    explanation = explain(demo(), example[NEW_PAIR].media, options=DecodingOptions(num_beams=3))
    figure, tree = explain_figures.beams(explanation), explanation.tree or []
    figure.set_size_inches(10.5, 4.0)
    scores = [rounded(torch.tensor([branch.score for branch in step])) for step in tree]
    outcomes = [[branch.outcome for branch in step] for step in tree]
    return Drawing(figure, {"scores": scores, "outcomes": outcomes})
