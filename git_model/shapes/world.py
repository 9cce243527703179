"""The procedural world that the built-in model is trained on: pictures of shapes.

A `World` says what is there, in numbers. `draw` makes pixels of it, texts.py and
questions.py make words of it, so whatever is said is right by construction. clips.py
sets it in motion. A world's numbers decide whether it is for training or kept from it (`split_of`).
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeVar

from PIL import Image, ImageDraw

SIDE = 64  # pixels
CELL = SIDE / 3
PLACES = (
    "at the top left", "at the top", "at the top right",
    "at the left", "in the middle", "at the right",
    "at the bottom left", "at the bottom", "at the bottom right",
)  # fmt: skip
LINES = (
    (0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6),
)  # fmt: skip

COLOURS = {
    "red": (220, 40, 40),
    "orange": (250, 140, 20),
    "yellow": (245, 215, 40),
    "green": (40, 160, 60),
    "turquoise": (40, 185, 185),
    "blue": (40, 90, 220),
    "purple": (130, 50, 170),
    "pink": (245, 130, 185),
    "black": (25, 25, 25),
}
BACKGROUNDS = (150, 175, 200, 225, 250)  # greys, lighter than black and duller than any colour

# Radii in pixels, lowest and highest. The largest thing, moved by SHIFT, still fits into its cell,
# so things never overlap and their places are never in doubt.
SIZES = {"small": (5.0, 5.6), "large": (9.0, 9.6)}
CLOSE = (18, 24)  # the radius of the one thing of a close-up
SHIFT = 1.0
CLOSE_SHIFT = 4  # from the middle
# No two reds are quite the same: a shape must be seen whatever its colour is. It helps a model that
# learns from these to know a shape in a colour in which it never saw it.
TINT = 32.0

# More of those with more to say, but enough simple ones to learn the words from.
KINDS = ("one", "one", "two", "two", "line", "line", "groups", "groups", "groups")

Point = tuple[float, float]
Tint = tuple[float, float, float]  # red, green, blue
Split = Literal["train", "held_out", "recombination"]
T = TypeVar("T")


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

Look = tuple[str, str]  # colour and shape
LOOKS = [(colour, shape) for colour in COLOURS for shape in OUTLINES]
# No picture, clip or text of training has these together; each colour and each shape alone it has.
NEW_LOOKS = (("red", "star"), ("blue", "triangle"), ("yellow", "cross"), ("green", "circle"))
KNOWN_LOOKS = [look for look in LOOKS if look not in NEW_LOOKS]


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One shape on the picture; its words follow from its numbers."""

    shape: str
    colour: str
    x: float  # of the centre, in pixels from the left
    y: float  # from the top
    radius: float
    tint: Tint = (0.0, 0.0, 0.0)  # added to the usual red, green and blue of its colour
    faded: float = 0.0  # 0: its colour, 1: the background's

    @property
    def look(self) -> Look:
        """Colour and shape."""
        return self.colour, self.shape

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

    @property
    def is_close_up(self) -> bool:
        """Whether one thing fills most of the picture."""
        return self.things[0].radius >= CLOSE[0]

    @property
    def scene(self) -> str:
        """What makes this world another one than others: for a close-up everything, else what
        stands where, whatever the background and the last pixel of a place."""
        if self.is_close_up:
            [it] = self.things
            where = f"{it.x} {it.y} on {self.background}"
            return f"a close-up: {it.colour} {it.shape} of {it.radius} at {where}"
        return ", ".join(f"{t.size} {t.colour} {t.shape} {t.cell}" for t in self.things)


def split_of(looks: Iterable[Look], scene: str) -> Split:
    """Which worlds a world belongs to: each belongs to one.

    recombination: something in it has a colour and a shape that never meet in training.
    held_out: one scene in ten of the others; the same scene never occurs in training.
    """
    if any(look in NEW_LOOKS for look in looks):
        return "recombination"
    digest = hashlib.sha256(scene.encode()).digest()
    return "held_out" if int.from_bytes(digest[:4], "big") % 10 == 0 else "train"


def make_world(rng: Random, split: Split = "train") -> World:
    """A picture's world: one to five things, each in a cell of its own."""
    return _first(split, rng, _random_world)


def make_close_up(rng: Random, split: Split = "train") -> World:
    """The world of a close-up: one thing, so large that it can be nothing else."""
    return _first(split, rng, _random_close_up)


def draw(world: World, *, finer: int = 3) -> Image.Image:
    """The picture, SIDE x SIDE pixels; drawn `finer` times as large first, to smooth the edges."""
    canvas = Image.new("RGB", (SIDE * finer,) * 2, (world.background,) * 3)
    pen = ImageDraw.Draw(canvas)
    for thing in world.things:
        outline = [
            (finer * (thing.x + thing.radius * x), finer * (thing.y + thing.radius * y))
            for x, y in OUTLINES[thing.shape]
        ]
        pen.polygon(outline, fill=_paint(thing, world.background))
    return canvas.reduce(finer)


def random_tint(rng: Random) -> Tint:
    """What one thing adds to its colour."""
    return between(rng, -TINT, TINT), between(rng, -TINT, TINT), between(rng, -TINT, TINT)


def pick(rng: Random, options: Sequence[T]) -> T:
    """One of the options. Only Random.random() is promised to stay the same in every Python."""
    return options[int(rng.random() * len(options))]


def pick_several(rng: Random, options: Iterable[T], n: int) -> list[T]:
    """n of the options, each at most once, in random order."""
    left = list(options)
    return [left.pop(int(rng.random() * len(left))) for _ in range(n)]


def between(rng: Random, low: float, high: float) -> float:
    """A number from low to high."""
    return low + (high - low) * rng.random()


def _paint(thing: Thing, background: int) -> tuple[int, int, int]:
    """Red, green and blue of a thing, each from 0 to 255."""
    own = [c + tint for c, tint in zip(COLOURS[thing.colour], thing.tint, strict=True)]
    mixed = [c + thing.faded * (background - c) for c in own]
    red, green, blue = (min(max(round(c), 0), 255) for c in mixed)
    return red, green, blue


def _first(split: Split, rng: Random, build: Callable[[Random], World]) -> World:
    """The first of many worlds that belongs to the split."""
    while True:
        world = build(rng)
        if split_of((thing.look for thing in world.things), world.scene) == split:
            return world


def _random_world(rng: Random) -> World:
    """One thing, two, three in a line, or some groups of equals, as texts.py tells them."""
    kind = pick(rng, KINDS)
    if kind == "groups":
        groups = pick(rng, ((2,), (3,), (4,), (1, 2), (2, 2), (1, 3), (2, 3), (1, 1, 1), (1, 1, 2)))
    else:
        groups = (1,) * {"one": 1, "two": 2, "line": 3}[kind]
    looks = pick_several(rng, LOOKS, len(groups))
    each = [look for look, n in zip(looks, groups, strict=True) for _ in range(n)]
    cells = pick(rng, LINES) if kind == "line" else pick_several(rng, range(9), len(each))
    things = [_random_thing(rng, look, cell) for look, cell in zip(each, cells, strict=True)]
    return World(
        things=tuple(sorted(things, key=lambda thing: thing.cell)),
        background=pick(rng, BACKGROUNDS),
    )


def _random_thing(rng: Random, look: Look, cell: int) -> Thing:
    row, column = divmod(cell, 3)
    return Thing(
        colour=look[0],
        shape=look[1],
        x=(column + 0.5) * CELL + between(rng, -SHIFT, SHIFT),
        y=(row + 0.5) * CELL + between(rng, -SHIFT, SHIFT),
        radius=between(rng, *pick(rng, list(SIZES.values()))),
        tint=random_tint(rng),
    )


def _random_close_up(rng: Random) -> World:
    """A scene of whole numbers, so that there are not too many to keep some of them apart."""
    colour, shape = pick(rng, LOOKS)
    middle = range(SIDE // 2 - CLOSE_SHIFT, SIDE // 2 + CLOSE_SHIFT + 1)
    thing = Thing(
        colour=colour,
        shape=shape,
        x=pick(rng, middle),
        y=pick(rng, middle),
        radius=pick(rng, range(CLOSE[0], CLOSE[1] + 1)),
        tint=random_tint(rng),
    )
    return World(things=(thing,), background=pick(rng, BACKGROUNDS))
