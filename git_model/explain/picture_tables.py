"""Pictures of what was said: frames and their shares, layers, beams. Needs the extra `plot`."""

from typing import TYPE_CHECKING

import numpy as np

from git_model.explain.explanation import Explanation
from git_model.explain.plotting import (
    ENDED,
    IMAGE,
    INK,
    QUIET,
    empty_figure,
    in_our_look,
    without_frame,
)
from git_model.utils.errors import GITError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from numpy.typing import NDArray

    from git_model.explain.beam_tree import Branch


@in_our_look
def frames(found: Explanation) -> "Figure":
    """A clip's frames, and the share that each has of a word's looking at the clip."""
    shares = found.frame_shares()
    n_words, n_frames = shares.shape
    figure = empty_figure(1.1 * n_frames + 1.2, 1.5 + 0.25 * n_words)
    grid = figure.add_gridspec(2, n_frames, height_ratios=(1.2, 0.25 * n_words), wspace=0)
    for number, frame in enumerate(found.frames):
        axes = figure.add_subplot(grid[0, number])
        axes.imshow(np.asarray(frame))
        axes.set_title(f"frame {number + 1}")
        axes.set_axis_off()
    axes = figure.add_subplot(grid[1, :])
    _coloured_table(
        axes, shares.numpy(), [[f"{share:.0%}" for share in row] for row in shares.tolist()]
    )
    axes.set_xticks(range(n_frames), [""] * n_frames)
    axes.set_yticks(range(n_words), [word.text for word in found.words])
    without_frame(axes)
    return figure


@in_our_look
def layers(found: Explanation) -> "Figure":
    """What each layer would have said, word by word: its state through the output layer."""
    best = [[word.layers[n][0] for word in found.words] for n in range(len(found.words[0].layers))]
    n_layers, n_words = len(best), len(best[0])
    figure = empty_figure(max(1.2 + 0.85 * n_words, 5), 1.0 + 0.5 * n_layers)
    axes = figure.subplots()
    texts = _coloured_table(
        axes,
        np.array([[guess.probability for guess in row] for row in best]),
        [[f"{guess.text}\n{guess.probability:.0%}" for guess in row] for row in best],
    )
    for row, labels in zip(best, texts, strict=True):
        for guess, label, word in zip(row, labels, found.words, strict=True):
            label.set_fontweight("bold" if guess.token == word.token else "normal")
    axes.set_xticks(range(n_words), [word.text for word in found.words], weight="bold")
    axes.set_yticks(range(n_layers), [f"layer {n}" for n in range(1, n_layers + 1)])
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.set_xlabel("bold: the word that was written; colour: how sure the layer is of its own")
    without_frame(axes)
    return figure


def _coloured_table(
    axes: "Axes", shares: "NDArray[np.floating]", texts: list[list[str]]
) -> "list[list[Text]]":
    """A table of shares, 0 to 1, each cell with its text; the texts as they were drawn."""
    most = max(0.5, float(shares.max()))
    axes.imshow(shares, cmap="cividis", vmin=0, vmax=most, aspect="auto")
    return [
        [
            axes.text(
                column, row, text, ha="center", va="center", fontsize=8,
                color="black" if shares[row, column] > 0.47 * most else "white",  # contrast 4.5
            )
            for column, text in enumerate(line)
        ]
        for row, line in enumerate(texts)
    ]  # fmt: skip


@in_our_look
def beams(found: Explanation) -> "Figure":
    """The beam search step by step, best branch on top, with the branches that it dropped.

    Raises:
        GITError: the text was not found by beam search.
    """
    if found.tree is None:
        raise GITError("there is no tree of beams to draw, expected beam search")
    n_steps, n_ranks = len(found.tree), max(map(len, found.tree))
    figure = empty_figure(0.8 + 0.95 * n_steps, 0.9 + 0.3 * n_ranks)
    axes = figure.subplots()
    for step, branches in enumerate(found.tree):
        for rank, branch in enumerate(branches):
            _draw_branch(axes, (step, rank), branch)
    axes.set(xlim=(-0.6, n_steps - 0.4), ylim=(n_ranks - 0.4, -0.6))
    axes.set_xticks(range(n_steps), list(map(str, range(1, n_steps + 1))))
    axes.set_yticks(range(n_ranks), list(map(str, range(1, n_ranks + 1))))
    axes.set(xlabel="step", ylabel="rank")
    axes.set_title("bold blue: won   black: kept   green: ended   grey, dashed: dropped")
    without_frame(axes)
    return figure


def _draw_branch(axes: "Axes", place: tuple[int, int], branch: "Branch") -> None:
    """A word at its step and rank, with a line from the branch that it continues."""
    step, rank = place
    colour = (
        IMAGE if branch.chosen else {"kept": INK, "ended": ENDED, "dropped": QUIET}[branch.fate]
    )
    if branch.parent is not None:
        axes.plot(
            (step - 1, step), (branch.parent, rank), color=colour, zorder=0,
            linewidth=2.5 if branch.chosen else 0.8,
            linestyle="--" if branch.fate == "dropped" else "-",
        )  # fmt: skip
    axes.text(
        step, rank, branch.text, ha="center", va="center", color=colour, fontsize=8,
        weight="bold" if branch.chosen else "normal",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2},
    )  # fmt: skip
