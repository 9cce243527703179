"""What the pictures share: colours, matplotlib's settings, empty figures. Needs the extra `plot`.

Colours are those of Okabe and Ito, which colour-blind people can tell apart.
"""

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ParamSpec

from git_model.utils.errors import GITError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMAGE, TEXT, ENDED, INK, QUIET, PALE = (
    "#0072B2", "#E69F00", "#00795A", "#222222", "#6B6B6B", "#E4E4E4",
)  # fmt: skip
LOOK = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.edgecolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # a word may be a $
    "savefig.dpi": 160,
}

P = ParamSpec("P")


def require_matplotlib() -> None:
    """Refuse before there is anything to lose.

    Raises:
        GITError: it is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise GITError("pictures need matplotlib: pip install 'git-model[plot]'") from None


def in_our_look(draw: "Callable[P, Figure]") -> "Callable[P, Figure]":
    """Draw with `LOOK`, whatever the caller's own settings are."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> "Figure":
        require_matplotlib()
        import matplotlib as mpl

        with mpl.rc_context(LOOK):  # type: ignore[arg-type]
            return draw(*args, **kwargs)

    return drawn


def empty_figure(width: float, height: float) -> "Figure":
    """A white figure, in inches, that keeps its parts from overlapping."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def bare_places(figure: "Figure", rows: int, columns: int) -> "Iterator[Axes]":
    """Axes without frame and ticks, row by row."""
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
        yield axes


def without_frame(axes: "Axes") -> None:
    """Labels, but no lines around and no ticks."""
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
