"""Pictures of an explanation, for slides and papers: matplotlib Figures. Needs the extra `plot`."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from git_model.explain.explanation import Explanation
from git_model.explain.heat import enlarged, sheet, spotlight
from git_model.explain.picture_tables import beams, frames, layers
from git_model.explain.plotting import (
    IMAGE,
    INK,
    PALE,
    TEXT,
    bare_places,
    empty_figure,
    in_our_look,
    without_frame,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

NAMES = ("patches", "mask", "words", "frames", "layers", "beams", "word-*")
FILES = tuple(f"{name}.png" for name in NAMES)  # patterns of all that is drawn
MOST_ACROSS = 8  # words that stand side by side
SIDE, SMALL, GAP = 240, 96, 6  # pixels: of a frame, of one among many, between these


def save_pictures(found: Explanation, folder: Path) -> None:
    """Draw all that there is to draw, as PNG files in a folder."""
    for name, figure in _all_of(found):
        with warnings.catch_warnings():  # matplotlib's own font lacks some scripts
            warnings.filterwarnings("ignore", "Glyph .* missing")
            figure.savefig(folder / f"{name}.png", bbox_inches="tight", metadata={"Software": None})


def _all_of(found: Explanation) -> "Iterator[tuple[str, Figure]]":
    yield "patches", patches(found)
    yield "mask", mask(found)
    yield "words", words(found)
    if len(found.frames) > 1:
        yield "frames", frames(found)
    yield "layers", layers(found)
    if found.tree is not None:
        yield "beams", beams(found)
    for number in range(len(found.words)):
        yield f"word-{number + 1:02}", heads(found, number)


@in_our_look
def patches(found: Explanation) -> "Figure":
    """The picture, or each frame, as the model sees it, cut into patches."""
    n, (rows, columns) = len(found.frames), found.grid
    across = min(n, 3)
    figure = empty_figure(3.2 * across, 3.2 * rows / columns * -(-n // across) + 0.4)
    places = bare_places(figure, -(-n // across), across)
    for number, frame in enumerate(found.frames, start=1):
        axes = next(places)
        axes.imshow(np.asarray(frame), extent=(0, columns, rows, 0))
        for colour, dashes in ((INK, "-"), ("white", (0, (3, 3)))):  # shows on bright and dark
            axes.hlines(range(rows + 1), 0, columns, color=colour, linestyle=dashes, linewidth=0.8)
            axes.vlines(range(columns + 1), 0, rows, color=colour, linestyle=dashes, linewidth=0.8)
        axes.set_title(f"frame {number}" if n > 1 else f"{rows} x {columns} patches")
    for _ in places:
        pass
    return figure


@in_our_look
def mask(found: Explanation) -> "Figure":
    """Who may look at whom in this run. Text tokens have room for their names; if there are many
    image tokens, they are drawn smaller."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    n_image, n_text = found.n_image, len(found.tokens)
    cell = min(1.0, 10 / n_image)  # of an image token, where a text token has 1
    edge = cell * n_image
    edges = [*(cell * np.arange(n_image)), *(edge + np.arange(n_text + 1))]
    kinds = found.mask.numpy() * np.where(np.arange(len(found.mask)) < n_image, 1, 2)
    figure = empty_figure(1.7 + 0.2 * edges[-1], 1.9 + 0.2 * edges[-1])
    axes = figure.subplots()
    colours = ListedColormap([PALE, IMAGE, TEXT])
    axes.pcolormesh(edges, edges, kinds, cmap=colours, vmin=0, vmax=2)
    for line in (axes.axhline, axes.axvline):
        for place in edges if cell > 0.5 else edges[n_image:]:
            line(place, color="white", linewidth=0.6)
        line(edge, color=INK, linewidth=1.2)
    axes.set(aspect="equal", ylim=(edges[-1], 0))
    places = [edge / 2, *(edge + np.arange(n_text) + 0.5)]
    axes.set_xticks(places, [f"{n_image} image tokens", *found.tokens])
    axes.set_yticks(places, [f"{n_image} image tokens", *found.tokens])
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
    for label in axes.get_xticklabels()[1:]:
        label.set_rotation(90)
    axes.get_yticklabels()[0].set(rotation=90, va="center")
    without_frame(axes)
    axes.set_ylabel("a token of this row looks at …", weight="bold")
    legend = (("the image", IMAGE), ("text", TEXT), ("may not look", PALE))
    handles = [Patch(color=colour, label=label) for label, colour in legend]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


@in_our_look
def words(found: Explanation) -> "Figure":
    """Where the model looked for each word, all layers and heads averaged; a clip's words stand
    below each other, for each has a map on every frame."""
    shares = found.image_attention.mean((0, 1)).sum((-1, -2)).tolist()
    n, n_frames = len(found.words), len(found.frames)
    rows = n if n_frames > 1 else -(-n // MOST_ACROSS)
    across = n_frames if n_frames > 1 else -(-n // rows)
    figure = empty_figure(
        1.3 * across + (n_frames > 1), 0.5 + (1.3 if n_frames > 1 else 1.7) * rows
    )
    places = bare_places(figure, rows, across)
    for word, maps, share in zip(found.words, found.patches(), shares, strict=True):
        axes = _lit(found, maps, places)
        if n_frames > 1:
            axes.annotate(
                f"{word.text}\n{share:.0%}", (-0.06, 0.5), xycoords="axes fraction", ha="right",
                va="center",
            )  # fmt: skip
        else:
            axes.set_title(f"{word.text}\n{share:.0%}")
    for _ in places:
        pass
    note = (
        "bright: where the model looked for this word; %: how much of its looking was at the image"
    )
    figure.supxlabel(note, fontsize=8 if across > 4 else 6)
    return figure


def _lit(found: Explanation, maps: "Tensor", places: "Iterator[Axes]") -> "Axes":
    """Draw one map (F, rows, columns), frame by frame; the first frame's axes."""
    drawn = []
    for frame, weights in zip(found.frames, maps, strict=True):
        drawn.append(next(places))
        light = spotlight(enlarged(frame, SIDE), weights, maps.max().item())
        drawn[-1].imshow(np.asarray(light))
    return drawn[0]


@in_our_look
def heads(found: Explanation, number: int) -> "Figure":
    """Where the model looked for one word: each layer and head, averages, and the rollout.

    Args:
        number: of the word, the first being 0.
    """
    n_layers, n_heads = found.image_attention.shape[:2]
    cell = sheet(found.frames, found.patches()[number], SMALL)
    width = cell.width / SMALL * 0.8
    height = cell.height / SMALL * 0.8
    figure = empty_figure(width * (n_heads + 3) + 1.2, max(height * n_layers, 1.3) + 0.9)
    figure.suptitle(f"where it looked for “{found.words[number].text}”", fontsize=10)
    left, *right = figure.subplots(1, 3, width_ratios=(n_heads, 1.5, 1.5))
    step = cell.width + GAP, cell.height + GAP
    whole = Image.new("RGB", (n_heads * step[0] - GAP, n_layers * step[1] - GAP), "white")
    for layer in range(n_layers):
        for head in range(n_heads):
            one = sheet(found.frames, found.patches(layer, head)[number], SMALL)
            whole.paste(one, (head * step[0], layer * step[1]))
    left.imshow(np.asarray(whole))
    left.set_xticks([(n + 0.5) * step[0] for n in range(n_heads)], _numbers(n_heads))
    left.set_yticks([(n + 0.5) * step[1] for n in range(n_layers)], _numbers(n_layers))
    left.set(xlabel="head", ylabel="layer")
    without_frame(left)
    for axes, maps, name in zip(
        right, (found.patches(), found.rollout), ("all averaged", "rollout"), strict=True
    ):
        axes.imshow(np.asarray(sheet(found.frames, maps[number], SIDE)))
        axes.set_title(name)
        axes.set_axis_off()
    return figure


def _numbers(n: int) -> list[str]:
    return [str(number) for number in range(1, n + 1)]
