"""Figures of an explanation, for slides and papers, with matplotlib. Needs the extra `plot`.

Colours are those of Okabe and Ito, which colour-blind people can tell apart.
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import numpy as np
from PIL import Image

from git_model.explain.beam_tree import Branch
from git_model.explain.drawings import contact_sheet, overlay, upscaled
from git_model.explain.explanation import Explanation
from git_model.utils.errors import GITError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from numpy.typing import NDArray
    from torch import Tensor

NAMES = (
    "patches", "mask", "tokens", "frames", "logit-lens", "text-heads", "encoder-heads", "beams",
    "token-*",
)  # fmt: skip
FILES = tuple(f"{name}.png" for name in NAMES)  # patterns of all files that `save_figures` writes
MAX_COLUMNS = 8  # tokens per row in the figure of all tokens
FRAME_SIZE, THUMBNAIL_SIZE, GAP = 240, 96, 6  # pixels: a large frame, a small one, between two
IMAGE, TEXT, FINISHED, INK, GREY, LIGHT_GREY = (
    "#0072B2", "#E69F00", "#00795A", "#222222", "#6B6B6B", "#E4E4E4",
)  # fmt: skip
RC_PARAMS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.edgecolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # a token may be a $
    "savefig.dpi": 160,
}

P = ParamSpec("P")


def save_figures(explanation: Explanation, folder: Path) -> None:
    """Save every figure of an explanation as a PNG file in a folder."""
    for name, figure in _all_figures(explanation):
        with warnings.catch_warnings():  # matplotlib's own font lacks some scripts
            warnings.filterwarnings("ignore", "Glyph .* missing")
            figure.savefig(folder / f"{name}.png", bbox_inches="tight", metadata={"Software": None})


def _all_figures(explanation: Explanation) -> "Iterator[tuple[str, Figure]]":
    yield "patches", patches(explanation)
    yield "mask", mask(explanation)
    yield "tokens", tokens(explanation)
    if len(explanation.frames) > 1:
        yield "frames", frames(explanation)
    yield "logit-lens", logit_lens(explanation)
    yield "text-heads", matrices(explanation.text_matrix, "attention of text to text")
    if len(explanation.encoder_attention):
        yield "encoder-heads", matrices(explanation.encoder_attention, "attention in the encoder")
    if explanation.tree is not None:
        yield "beams", beams(explanation)
    for index in range(len(explanation.generated)):
        yield f"token-{index + 1:02}", heads(explanation, index)


def require_matplotlib() -> None:
    """Check that figures can be drawn, before the model runs.

    Raises:
        GITError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise GITError("figures need matplotlib: pip install 'git-model[plot]'") from None


def with_rc_params(draw: "Callable[P, Figure]") -> "Callable[P, Figure]":
    """Draw with `RC_PARAMS`, independent of the caller's own settings."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> "Figure":
        require_matplotlib()
        import matplotlib as mpl

        with mpl.rc_context(RC_PARAMS):  # type: ignore[arg-type]
            return draw(*args, **kwargs)

    return wrapper


@with_rc_params
def patches(explanation: Explanation) -> "Figure":
    """The model's input, the image or each frame, cut into patches."""
    n_frames, (rows, columns) = len(explanation.frames), explanation.grid
    n_columns = min(n_frames, 3)
    n_rows = -(-n_frames // n_columns)
    figure = _new_figure(3.2 * n_columns, 3.2 * rows / columns * n_rows + 0.4)
    cells = _blank_axes(figure, n_rows, n_columns)
    for number, (axes, frame) in enumerate(zip(cells, explanation.frames, strict=False), start=1):
        axes.imshow(np.asarray(frame), extent=(0, columns, rows, 0))
        for colour, dashes in ((INK, "-"), ("white", (0, (3, 3)))):  # shows on bright and dark
            axes.hlines(range(rows + 1), 0, columns, color=colour, linestyle=dashes, linewidth=0.8)
            axes.vlines(range(columns + 1), 0, rows, color=colour, linestyle=dashes, linewidth=0.8)
        axes.set_title(f"frame {number}" if n_frames > 1 else f"{rows} x {columns} patches")
    return figure


@with_rc_params
def mask(explanation: Explanation) -> "Figure":
    """The attention mask of this run. Text tokens are drawn large enough for their labels; image
    tokens are drawn smaller if there are many."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    n_image, labels = explanation.n_image, explanation.input_tokens
    cell = min(1.0, 10 / n_image)  # side of an image token, where that of a text token is 1
    border = cell * n_image
    edges = [*(cell * np.arange(n_image)), *(border + np.arange(len(labels) + 1))]
    kinds = explanation.mask.numpy() * np.where(np.arange(len(edges) - 1) < n_image, 1, 2)
    figure = _new_figure(1.7 + 0.2 * edges[-1], 1.9 + 0.2 * edges[-1])
    axes = figure.subplots()
    colours = ListedColormap([LIGHT_GREY, IMAGE, TEXT])
    axes.pcolormesh(edges, edges, kinds, cmap=colours, vmin=0, vmax=2)
    for line in (axes.axhline, axes.axvline):
        for edge in edges if cell > 0.5 else edges[n_image:]:
            line(edge, color="white", linewidth=0.6)
        line(border, color=INK, linewidth=1.2)
    axes.set(aspect="equal", ylim=(edges[-1], 0))
    centres = [border / 2, *(border + np.arange(len(labels)) + 0.5)]
    axes.set_xticks(centres, [f"{n_image} image tokens", *labels])
    axes.set_yticks(centres, [f"{n_image} image tokens", *labels])
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
    for label in axes.get_xticklabels()[1:]:
        label.set_rotation(90)
    axes.get_yticklabels()[0].set(rotation=90, va="center")
    _hide_spines(axes)
    axes.set_xlabel("key", weight="bold")
    axes.xaxis.set_label_position("top")
    axes.set_ylabel("query: the token of this row attends to …", weight="bold")
    legend = (("the image", IMAGE), ("text", TEXT), ("masked", LIGHT_GREY))
    handles = [Patch(color=colour, label=label) for label, colour in legend]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


@with_rc_params
def tokens(explanation: Explanation) -> "Figure":
    """The attention of each generated token to the image, averaged over layers and heads. For a
    clip there is a row for each token, with a map for every frame."""
    shares = explanation.image_attention.mean((0, 1)).sum((-1, -2)).tolist()
    n_tokens, n_frames = len(explanation.generated), len(explanation.frames)
    is_clip = n_frames > 1
    rows = n_tokens if is_clip else -(-n_tokens // MAX_COLUMNS)
    columns = n_frames if is_clip else -(-n_tokens // rows)
    figure = _new_figure(1.3 * columns + is_clip, 0.5 + (1.3 if is_clip else 1.7) * rows)
    cells = _blank_axes(figure, rows, columns)
    for index, (token, maps) in enumerate(
        zip(explanation.generated, explanation.patch_attention(), strict=True)
    ):
        token_cells = cells[index * n_frames : (index + 1) * n_frames]
        _draw_overlays(explanation, maps, token_cells)
        label = f"{token.text}\n{shares[index]:.0%}"
        if is_clip:
            token_cells[0].annotate(
                label, (-0.06, 0.5), xycoords="axes fraction", ha="right", va="center"
            )
        else:
            token_cells[0].set_title(label)
    note = "bright: much attention; %: the token's attention to the image, the rest goes to text"
    figure.supxlabel(note, fontsize=8 if columns > 4 else 6)
    return figure


def _draw_overlays(explanation: Explanation, maps: "Tensor", cells: "list[Axes]") -> None:
    """Draw the attention maps (F, rows, columns) of a token over the frames."""
    for frame, weights, axes in zip(explanation.frames, maps, cells, strict=True):
        image = overlay(upscaled(frame, FRAME_SIZE), weights, maps.max().item())
        axes.imshow(np.asarray(image))


@with_rc_params
def heads(explanation: Explanation, index: int) -> "Figure":
    """The attention of one generated token: each layer and head, the average, the rollout, and the
    occlusion if it was measured.

    Args:
        index: of the generated token, the first being 0.
    """
    n_layers, n_heads = explanation.image_attention.shape[:2]
    average = explanation.patch_attention()
    thumbnail = contact_sheet(explanation.frames, average[index], THUMBNAIL_SIZE)
    width, height = (side / THUMBNAIL_SIZE * 0.8 for side in thumbnail.size)
    panels = [("average", average), ("rollout", explanation.rollout)]
    if explanation.occlusion is not None:
        panels.append(("occlusion", explanation.occlusion.clamp(min=0)))
    n_wide = 1.5 * len(panels)
    figure = _new_figure(width * (n_heads + n_wide) + 1.2, max(height * n_layers, 1.3) + 0.9)
    figure.suptitle(f"attention of “{explanation.generated[index].text}”", fontsize=10)
    ratios = (n_heads, *[1.5] * len(panels))
    left, *right = figure.subplots(1, 1 + len(panels), width_ratios=ratios)
    step = thumbnail.width + GAP, thumbnail.height + GAP
    left.imshow(np.asarray(_head_grid(explanation, index, step)))
    left.set_xticks([(n + 0.5) * step[0] for n in range(n_heads)], _numbers(n_heads))
    left.set_yticks([(n + 0.5) * step[1] for n in range(n_layers)], _numbers(n_layers))
    left.set(xlabel="head", ylabel="layer")
    _hide_spines(left)
    for axes, (title, maps) in zip(right, panels, strict=True):
        axes.imshow(np.asarray(contact_sheet(explanation.frames, maps[index], FRAME_SIZE)))
        axes.set_title(title)
        axes.set_axis_off()
    return figure


def _head_grid(explanation: Explanation, index: int, step: tuple[int, int]) -> Image.Image:
    """A thumbnail for each layer (row) and head (column), `step` pixels apart."""
    n_layers, n_heads = explanation.image_attention.shape[:2]
    grid = Image.new("RGB", (n_heads * step[0] - GAP, n_layers * step[1] - GAP), "white")
    for layer in range(n_layers):
        for head in range(n_heads):
            maps = explanation.patch_attention(layer, head)[index]
            thumbnail = contact_sheet(explanation.frames, maps, THUMBNAIL_SIZE)
            grid.paste(thumbnail, (head * step[0], layer * step[1]))
    return grid


@with_rc_params
def matrices(weights: "Tensor", title: str) -> "Figure":
    """Attention matrices (layers, heads, queries, keys), a row of figures for each layer."""
    n_layers, n_heads = weights.shape[:2]
    figure = _new_figure(0.9 * n_heads + 0.8, 0.9 * n_layers + 0.9)
    cells = _blank_axes(figure, n_layers, n_heads)
    for axes, matrix in zip(cells, weights.flatten(0, 1).numpy(), strict=True):
        axes.imshow(matrix, cmap="gray", vmin=0, vmax=max(float(matrix.max()), 1e-12))
    for head, axes in enumerate(cells[:n_heads], start=1):
        axes.set_title(f"head {head}", fontsize=8)
    for layer, axes in enumerate(cells[::n_heads], start=1):
        axes.text(
            -0.1, 0.5, f"layer {layer}", transform=axes.transAxes, rotation=90, fontsize=8,
            ha="right", va="center",
        )  # fmt: skip
    figure.suptitle(f"{title}: rows are queries, columns keys; bright: much attention", fontsize=8)
    return figure


@with_rc_params
def frames(explanation: Explanation) -> "Figure":
    """A clip's frames, and each frame's share of a token's attention to the clip."""
    shares = explanation.frame_shares()
    n_tokens, n_frames = shares.shape
    figure = _new_figure(1.1 * n_frames + 1.2, 1.5 + 0.25 * n_tokens)
    grid = figure.add_gridspec(2, n_frames, height_ratios=(1.2, 0.25 * n_tokens), wspace=0)
    for index, frame in enumerate(explanation.frames):
        axes = figure.add_subplot(grid[0, index])
        axes.imshow(np.asarray(frame))
        axes.set_title(f"frame {index + 1}")
        axes.set_axis_off()
    axes = figure.add_subplot(grid[1, :])
    _draw_table(
        axes, shares.numpy(), [[f"{share:.0%}" for share in row] for row in shares.tolist()]
    )
    axes.set_xticks(range(n_frames), [""] * n_frames)
    axes.set_yticks(range(n_tokens), [token.text for token in explanation.generated])
    _hide_spines(axes)
    return figure


@with_rc_params
def logit_lens(explanation: Explanation) -> "Figure":
    """The most probable token after each layer: its hidden state passed through `lm_head`."""
    generated = explanation.generated
    n_layers, n_tokens = len(generated[0].logit_lens), len(generated)
    top = [[token.logit_lens[layer][0] for token in generated] for layer in range(n_layers)]
    figure = _new_figure(max(1.2 + 0.85 * n_tokens, 5), 1.0 + 0.5 * n_layers)
    axes = figure.subplots()
    cells = _draw_table(
        axes,
        np.array([[guess.probability for guess in row] for row in top]),
        [[f"{guess.text}\n{guess.probability:.0%}" for guess in row] for row in top],
    )
    for guesses, row in zip(top, cells, strict=True):
        for guess, cell, token in zip(guesses, row, generated, strict=True):
            cell.set_fontweight("bold" if guess.token == token.token else "normal")
    axes.set_xticks(range(n_tokens), [token.text for token in generated], weight="bold")
    axes.set_yticks(range(n_layers), [f"layer {n}" for n in range(1, n_layers + 1)])
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.set_xlabel("bold: the generated token; colour and %: probability after this layer")
    _hide_spines(axes)
    return figure


def _draw_table(
    axes: "Axes", shares: "NDArray[np.floating]", texts: list[list[str]]
) -> "list[list[Text]]":
    """A table of shares, 0 to 1, as colours, with a text in each cell; these texts as drawn."""
    vmax = max(0.5, float(shares.max()))
    axes.imshow(shares, cmap="cividis", vmin=0, vmax=vmax, aspect="auto")
    return [
        [
            axes.text(
                column, row, text, ha="center", va="center", fontsize=8,
                color="black" if shares[row, column] > 0.47 * vmax else "white",  # contrast 4.5
            )
            for column, text in enumerate(line)
        ]
        for row, line in enumerate(texts)
    ]  # fmt: skip


@with_rc_params
def beams(explanation: Explanation) -> "Figure":
    """The beam search step by step, best branch on top, with scores and the branches that it
    pruned.

    Raises:
        GITError: the text does not come from beam search.
    """
    tree = explanation.tree
    if tree is None:
        raise GITError("there is no beam tree to draw, expected beam search")
    n_steps, n_ranks = len(tree), max(map(len, tree))
    figure = _new_figure(0.8 + 0.95 * n_steps, 0.9 + 0.42 * n_ranks)
    axes = figure.subplots()
    for step, branches in enumerate(tree):
        for rank, branch in enumerate(branches):
            _draw_branch(axes, step, rank, branch)
    axes.set(xlim=(-0.6, n_steps - 0.4), ylim=(n_ranks - 0.4, -0.6))
    axes.set_xticks(range(n_steps), _numbers(n_steps))
    axes.set_yticks(range(n_ranks), _numbers(n_ranks))
    axes.set(xlabel="step", ylabel="rank")
    axes.set_title(
        "bold blue: best text   black: kept   green: finished\ngrey, dashed: pruned   small: score"
    )
    _hide_spines(axes)
    return figure


def _draw_branch(axes: "Axes", step: int, rank: int, branch: Branch) -> None:
    """A token at its step and rank, with a line from its parent."""
    colour = {"kept": INK, "finished": FINISHED, "pruned": GREY}[branch.outcome]
    colour = IMAGE if branch.on_best_path else colour
    if branch.parent is not None:
        axes.plot(
            (step - 1, step), (branch.parent, rank), color=colour, zorder=0,
            linewidth=2.5 if branch.on_best_path else 0.8,
            linestyle="--" if branch.outcome == "pruned" else "-",
        )  # fmt: skip
    axes.text(
        step, rank, branch.text, ha="center", va="center", color=colour, fontsize=8,
        weight="bold" if branch.on_best_path else "normal",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2},
    )  # fmt: skip
    axes.annotate(
        f"{branch.score:.2f}", (step, rank), (0, -6), textcoords="offset points", ha="center",
        va="top", color=colour, fontsize=6,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3},
    )  # fmt: skip


def _new_figure(width: float, height: float) -> "Figure":
    """A white figure, in inches, with a layout that prevents overlaps."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _blank_axes(figure: "Figure", rows: int, columns: int) -> "list[Axes]":
    """Axes without frame and ticks, row by row."""
    grid: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    return grid


def _hide_spines(axes: "Axes") -> None:
    """Keep the labels, hide frame and ticks."""
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _numbers(n: int) -> list[str]:
    return [str(number) for number in range(1, n + 1)]
