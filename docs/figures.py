"""Draw the figures of the documentation: from the built-in model as it runs, not by hand.

    python docs/figures.py             # all of them, into docs/figures
    python docs/figures.py mask looks  # these

Needs the extra `plot`. A figure's PNG carries, as text under the key `data`, the numbers it shows;
tests/test_figures.py draws all of them anew and compares numbers and pixels.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from drawing import choosing, proof, seeing, writing
from drawing.style import LOOK, Drawing

FOLDER = Path(__file__).parent / "figures"
FIGURES: dict[str, Callable[[], Drawing]] = {
    draw.__name__: draw
    for draw in (
        seeing.patches,
        seeing.encoder,
        writing.clip,
        seeing.mask,
        writing.layers,
        writing.cache,
        writing.loss,
        choosing.looks,
        choosing.beams,
        proof.mistakes,
        proof.training,
    )
}


def save(name: str, folder: Path = FOLDER) -> Path:
    """Draw one figure; the file that holds it."""
    path = folder / f"{name}.png"
    with mpl.rc_context(LOOK):
        drawing = FIGURES[name]()
        data = json.dumps(drawing.data, separators=(",", ":"))
        drawing.figure.savefig(path, metadata={"Software": None, "data": data})
    return path


if __name__ == "__main__":
    for name in sys.argv[1:] or FIGURES:
        print(save(name))
