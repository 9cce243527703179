"""Colours, fonts and helpers that the figures share."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from git_model import Captioner

mpl.use("Agg")

# Okabe and Ito's colours, which colour-blind readers can tell apart.
IMAGE, TEXT, OTHER, INK, PALE = "#0072B2", "#E69F00", "#009E73", "#222222", "#E8E8E8"
SEQUENTIAL, DIVERGING = "Blues", "PuOr"  # colour maps for values from 0, and around 0
IMAGES = Path(__file__).parent.parent.parent / "examples" / "images"

RC_PARAMS: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "white",
    "savefig.dpi": 160,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True)
class Drawing:
    """A finished figure and the numbers that it shows."""

    figure: Figure
    data: dict[str, Any]


@cache
def demo() -> Captioner:
    """The built-in model."""
    return Captioner.from_pretrained("demo")


def rounded(values: Tensor) -> list[Any]:
    """Numbers for a figure's data, with three decimals: later ones differ between machines."""
    return torch.round(values.detach().double(), decimals=3).tolist()


def bare(axes: Axes) -> None:
    """Remove frame and ticks."""
    axes.set_axis_off()


def grid_lines(axes: Axes, rows: int, columns: int, colour: str = "white") -> None:
    """Draw thin lines between the cells of a matrix that `imshow` drew."""
    axes.set_xticks([n - 0.5 for n in range(1, columns)], minor=True)
    axes.set_yticks([n - 0.5 for n in range(1, rows)], minor=True)
    axes.grid(which="minor", color=colour, linewidth=0.8)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
