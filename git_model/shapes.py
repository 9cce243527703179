"""The procedural world that the built-in model is trained on: pictures of shapes, and captions.

A `World` says what is there, in numbers. `draw` makes pixels of it and `describe` makes words of
it, so a caption is right by construction. Worlds are numbered. A world's caption decides whether it
is for training or held out, so that no held-out caption was ever trained on.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from string import ascii_lowercase, digits
from typing import TypeVar

from PIL import Image, ImageDraw

SIDE = 64  # pixels
CELL = SIDE / 3
PLACES = (
    "at the top left", "at the top", "at the top right",
    "at the left", "in the middle", "at the right",
    "at the bottom left", "at the bottom", "at the bottom right",
)  # fmt: skip

COLOURS = {
    "red": (220, 40, 40),
    "orange": (250, 140, 20),
    "yellow": (245, 215, 40),
    "green": (40, 160, 60),
    "blue": (40, 90, 220),
    "purple": (130, 50, 170),
    "pink": (245, 130, 185),
    "black": (25, 25, 25),
}
BACKGROUNDS = (150, 175, 200, 225, 250)  # greys, lighter than black and duller than any colour

# Radii in pixels, lowest and highest. The largest thing, moved by SHIFT, still fits into its cell,
# so things never overlap and their places are never in doubt.
SIZES = {"small": (5.0, 5.6), "large": (9.0, 9.6)}
SHIFT = 1.0

Point = tuple[float, float]


def _ring(*radii: float, turn: float = 0.0) -> list[Point]:
    """Corners around the centre, clockwise from the top, one for each radius."""
    angles = [2 * math.pi * i / len(radii) + turn for i in range(len(radii))]
    return [(r * math.sin(a), -r * math.cos(a)) for r, a in zip(radii, angles, strict=True)]


# Outlines for radius 1, around (0, 0), which each of them covers.
OUTLINES = {
    "circle": _ring(*[0.95] * 48),
    "square": _ring(*[1.2] * 4, turn=math.pi / 4),
    "triangle": [(0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)],
    "star": _ring(*[1.0, 0.42] * 5),
    "cross": [
        (-0.33, -1), (0.33, -1), (0.33, -0.33), (1, -0.33), (1, 0.33), (0.33, 0.33),
        (0.33, 1), (-0.33, 1), (-0.33, 0.33), (-1, 0.33), (-1, -0.33), (-0.33, -0.33),
    ],
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One shape on the picture; its words follow from its numbers."""

    shape: str
    colour: str
    x: float  # of the centre, in pixels from the left
    y: float  # from the top
    radius: float

    @property
    def size(self) -> str:
        """`small` or `large`."""
        return "small" if self.radius <= SIZES["small"][1] else "large"

    @property
    def cell(self) -> int:
        """The cell of a 3 x 3 grid that holds the centre, 0 to 8 in reading order."""
        return 3 * int(self.y / CELL) + int(self.x / CELL)


@dataclass(frozen=True, kw_only=True)
class World:
    """Things in reading order on a grey background."""

    things: tuple[Thing, ...]
    background: int  # 0 to 255


def make_world(number: int, *, held_out: bool = False) -> World:
    """World `number` of those to train on, or of those held out: the same one on any machine."""
    # Only Random.random() is promised to stay the same in every Python to come.
    rng = Random(number)  # noqa: S311  (pictures, not secrets)
    while True:
        world = _random_world(rng)
        if is_held_out(describe(world)) == held_out:
            return world


def is_held_out(caption: str) -> bool:
    """Whether worlds with this caption are kept from training: one caption in ten is."""
    digest = hashlib.sha256(caption.encode()).digest()
    return int.from_bytes(digest[:4], "big") % 10 == 0


def describe(world: World) -> str:
    """The caption, such as `a small red circle at the top left and a large blue star in the
    middle`; three things are joined by a comma and `and`."""
    *others, last = (
        f"a {thing.size} {thing.colour} {thing.shape} {PLACES[thing.cell]}"
        for thing in world.things
    )
    return f"{', '.join(others)} and {last}" if others else last


def draw(world: World, *, finer: int = 4) -> Image.Image:
    """The picture, SIDE x SIDE pixels; drawn `finer` times as large first, to smooth the edges."""
    canvas = Image.new("RGB", (SIDE * finer,) * 2, (world.background,) * 3)
    pen = ImageDraw.Draw(canvas)
    for thing in world.things:
        outline = [
            (finer * (thing.x + thing.radius * x), finer * (thing.y + thing.radius * y))
            for x, y in OUTLINES[thing.shape]
        ]
        pen.polygon(outline, fill=COLOURS[thing.colour])
    return canvas.reduce(finer)


def vocabulary() -> list[str]:
    """Every token of the world's WordPiece vocabulary, in the order of their ids.

    BERT's special tokens, the words of the captions, then letters and digits (alone, and inside a
    word) and marks: any plain English text can be spelt, if at length.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = " ".join((*SIZES, *COLOURS, *OUTLINES, *PLACES, "and")).split()
    signs = list(ascii_lowercase + digits)
    inside = [f"##{sign}" for sign in signs]
    return list(dict.fromkeys([*special, *words, *signs, *inside, *",.?!'-:"]))


def _random_world(rng: Random) -> World:
    """One to three things, more of them more often: there are more ways for them to be."""
    free = list(range(len(PLACES)))
    count = _pick(rng, (1, 2, 2, 3, 3, 3))
    cells = sorted(free.pop(int(rng.random() * len(free))) for _ in range(count))
    things = tuple(_random_thing(rng, cell) for cell in cells)
    return World(things=things, background=_pick(rng, BACKGROUNDS))


def _random_thing(rng: Random, cell: int) -> Thing:
    low, high = SIZES[_pick(rng, list(SIZES))]
    row, column = divmod(cell, 3)
    return Thing(
        shape=_pick(rng, list(OUTLINES)),
        colour=_pick(rng, list(COLOURS)),
        x=(column + 0.5) * CELL + SHIFT * (2 * rng.random() - 1),
        y=(row + 0.5) * CELL + SHIFT * (2 * rng.random() - 1),
        radius=low + (high - low) * rng.random(),
    )


T = TypeVar("T")


def _pick(rng: Random, options: Sequence[T]) -> T:
    return options[int(rng.random() * len(options))]
