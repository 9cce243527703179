"""Draw the figures of the documentation from the built-in model as it runs.

    python docs/figures.py                 # all figures, into docs/figures
    python docs/figures.py mask attention  # these figures

Needs the extra `plot`. The PNG of a figure carries the numbers it shows as text under the key
`data`; tests/docs/test_figures.py draws all figures again and compares numbers and pixels.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from drawing import architecture, checks, search, text, vision
from drawing.theme import RC_PARAMS, Drawing

FOLDER = Path(__file__).parent / "figures"
FIGURES: dict[str, Callable[[], Drawing]] = {
    draw.__name__: draw
    for draw in (
        architecture.architecture,
        architecture.tokens,
        vision.patches,
        vision.encoder,
        text.clip,
        vision.mask,
        text.layers,
        text.cache,
        text.loss,
        search.attention,
        search.occlusion,
        search.beams,
        checks.mistakes,
        checks.training,
        checks.metrics,
    )
}


def save(name: str, folder: Path = FOLDER) -> Path:
    """Draw one figure and return the path of its PNG."""
    path = folder / f"{name}.png"
    with mpl.rc_context(RC_PARAMS):
        drawing = FIGURES[name]()
        data = json.dumps(drawing.data, separators=(",", ":"))
        drawing.figure.savefig(path, metadata={"Software": None, "data": data})
    return path


if __name__ == "__main__":
    for figure_name in sys.argv[1:] or FIGURES:
        print(save(figure_name))
