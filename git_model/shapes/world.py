"""The procedural world that the built-in model is trained on: images of shapes.

A `World` describes an image in numbers. `draw` makes the pixels, texts.py and questions.py make the
texts, so captions and answers are correct by construction. clips.py adds motion. A world's numbers
decide whether it belongs to training or to a held-out split (`split_of`).
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeVar

from PIL import Image, ImageDraw

IMAGE_SIZE = 64  # pixels
CELL = IMAGE_SIZE / 3  # width of a cell of the 3 x 3 grid
POSITIONS = (
    "at the top left", "at the top", "at the top right",
    "at the left", "in the middle", "at the right",
    "at the bottom left", "at the bottom", "at the bottom right",
)  # fmt: skip
LINES = (  # cells that make a row, a column or a diagonal
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

# Radii in pixels, lowest and highest. The largest thing fits into its cell even when its centre is
# moved by MAX_SHIFT, so things never overlap and their cells are never in doubt.
SIZES = {"small": (5.0, 5.6), "large": (9.0, 9.6)}
CLOSE_UP_RADII = (18, 24)
MAX_SHIFT = 1.0  # of a centre, from the centre of its cell
MAX_CLOSE_UP_SHIFT = 4  # of a centre, from the centre of the image
# Every thing gets a random tint, so that no two reds are equal. A model that is trained on these
# recognizes a shape even in a colour that training never combines with it.
MAX_TINT = 32.0

# Mostly worlds with long captions, but enough simple worlds for learning the words.
ARRANGEMENTS = ("one", "one", "two", "two", "line", "line", "groups", "groups", "groups")

Point = tuple[float, float]
Tint = tuple[float, float, float]  # red, green, blue
Split = Literal["train", "held_out", "recombination"]
T = TypeVar("T")


def _corners(*radii: float, turn: float = 0.0) -> list[Point]:
    """A corner at each of these distances around the centre, clockwise from the top."""
    angles = [2 * math.pi * i / len(radii) + turn for i in range(len(radii))]
    return [(r * math.sin(a), -r * math.cos(a)) for r, a in zip(radii, angles, strict=True)]


# Outlines of radius 1 around (0, 0); all of them cover the centre.
OUTLINES = {
    "circle": _corners(*[0.95] * 48),
    "square": _corners(*[1.2] * 4, turn=math.pi / 4),
    "triangle": [(0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)],
    "star": _corners(*[1.0, 0.42] * 5),
    "cross": [
        (-0.33, -1), (0.33, -1), (0.33, -0.33), (1, -0.33), (1, 0.33), (0.33, 0.33),
        (0.33, 1), (-0.33, 1), (-0.33, 0.33), (-1, 0.33), (-1, -0.33), (-0.33, -0.33),
    ],
}  # fmt: skip

Appearance = tuple[str, str]  # colour and shape
APPEARANCES = [(colour, shape) for colour in COLOURS for shape in OUTLINES]
# Training combines none of these colours and shapes, but it has each colour and each shape.
NEW_APPEARANCES = (("red", "star"), ("blue", "triangle"), ("yellow", "cross"), ("green", "circle"))
TRAINING_APPEARANCES = [item for item in APPEARANCES if item not in NEW_APPEARANCES]


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A shape in the image; its words follow from its numbers."""

    shape: str
    colour: str
    x: float  # of the centre, in pixels from the left
    y: float  # from the top
    radius: float
    tint: Tint = (0.0, 0.0, 0.0)  # added to the red, green and blue of its colour
    fade: float = 0.0  # 0: its colour, 1: the background's

    @property
    def appearance(self) -> Appearance:
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
        """Whether a single thing fills most of the image."""
        return self.things[0].radius >= CLOSE_UP_RADII[0]

    @property
    def signature(self) -> str:
        """The content that decides the world's split: all numbers of a close-up, and otherwise the
        things and their cells, without the background, the tints and the exact positions."""
        if self.is_close_up:
            [thing] = self.things
            centre = f"{thing.x} {thing.y} on {self.background}"
            return f"a close-up: {thing.colour} {thing.shape} of {thing.radius} at {centre}"
        return ", ".join(f"{t.size} {t.colour} {t.shape} {t.cell}" for t in self.things)


def split_of(appearances: Iterable[Appearance], signature: str) -> Split:
    """The split of a world, by its things and its signature.

    recombination: a thing has a colour and a shape that training never combines.
    held_out: a tenth of all other signatures; they never occur in training.
    """
    if any(appearance in NEW_APPEARANCES for appearance in appearances):
        return "recombination"
    digest = hashlib.sha256(signature.encode()).digest()
    return "held_out" if int.from_bytes(digest[:4], "big") % 10 == 0 else "train"


def make_world(rng: Random, split: Split = "train") -> World:
    """A random world of one to five things, each in its own cell."""
    return _build_for_split(split, rng, _random_world)


def make_close_up(rng: Random, split: Split = "train") -> World:
    """The world of a random close-up: a single thing, larger than any other world has."""
    return _build_for_split(split, rng, _random_close_up)


def draw(world: World, *, scale: int = 3) -> Image.Image:
    """The image, IMAGE_SIZE x IMAGE_SIZE pixels. It is drawn `scale` times as large and then
    reduced, so that its edges are smooth."""
    canvas = Image.new("RGB", (IMAGE_SIZE * scale,) * 2, (world.background,) * 3)
    pen = ImageDraw.Draw(canvas)
    for thing in world.things:
        outline = [
            (scale * (thing.x + thing.radius * x), scale * (thing.y + thing.radius * y))
            for x, y in OUTLINES[thing.shape]
        ]
        pen.polygon(outline, fill=_fill_colour(thing, world.background))
    return canvas.reduce(scale)


def random_tint(rng: Random) -> Tint:
    """A random offset of a thing's colour."""
    red, green, blue = (uniform(rng, -MAX_TINT, MAX_TINT) for _ in range(3))
    return red, green, blue


def pick(rng: Random, options: Sequence[T]) -> T:
    """A random option. Only Random.random() stays the same in every version of Python."""
    return options[int(rng.random() * len(options))]


def pick_several(rng: Random, options: Iterable[T], n: int) -> list[T]:
    """n different options, in random order."""
    remaining = list(options)
    return [remaining.pop(int(rng.random() * len(remaining))) for _ in range(n)]


def uniform(rng: Random, low: float, high: float) -> float:
    """A random number from low to high."""
    return low + (high - low) * rng.random()


def _fill_colour(thing: Thing, background: int) -> tuple[int, int, int]:
    """Red, green and blue of a thing, from 0 to 255."""
    channels = [c + tint for c, tint in zip(COLOURS[thing.colour], thing.tint, strict=True)]
    blend = [c + thing.fade * (background - c) for c in channels]
    red, green, blue = (min(max(round(c), 0), 255) for c in blend)
    return red, green, blue


def _build_for_split(split: Split, rng: Random, build: Callable[[Random], World]) -> World:
    """Build random worlds until one belongs to the split."""
    while True:
        world = build(rng)
        if split_of((thing.appearance for thing in world.things), world.signature) == split:
            return world


def _random_world(rng: Random) -> World:
    """One thing, two, three in a line, or groups of equal ones: the cases of `texts.describe`."""
    arrangement = pick(rng, ARRANGEMENTS)
    if arrangement == "groups":
        groups = pick(rng, ((2,), (3,), (4,), (1, 2), (2, 2), (1, 3), (2, 3), (1, 1, 1), (1, 1, 2)))
    else:
        groups = (1,) * {"one": 1, "two": 2, "line": 3}[arrangement]
    kinds = pick_several(rng, APPEARANCES, len(groups))
    appearances = [kind for kind, n in zip(kinds, groups, strict=True) for _ in range(n)]
    is_line = arrangement == "line"
    cells = pick(rng, LINES) if is_line else pick_several(rng, range(9), len(appearances))
    things = [
        random_thing(rng, appearance, cell)
        for appearance, cell in zip(appearances, cells, strict=True)
    ]
    return World(
        things=tuple(sorted(things, key=lambda thing: thing.cell)),
        background=pick(rng, BACKGROUNDS),
    )


def random_thing(rng: Random, appearance: Appearance, cell: int) -> Thing:
    """A thing of this appearance near the middle of a cell (0 to 8, row by row)."""
    row, column = divmod(cell, 3)
    return Thing(
        colour=appearance[0],
        shape=appearance[1],
        x=(column + 0.5) * CELL + uniform(rng, -MAX_SHIFT, MAX_SHIFT),
        y=(row + 0.5) * CELL + uniform(rng, -MAX_SHIFT, MAX_SHIFT),
        radius=uniform(rng, *pick(rng, list(SIZES.values()))),
        tint=random_tint(rng),
    )


def _random_close_up(rng: Random) -> World:
    """A close-up of whole numbers, so that the same ones recur and a split can exclude them."""
    colour, shape = pick(rng, APPEARANCES)
    middle = range(IMAGE_SIZE // 2 - MAX_CLOSE_UP_SHIFT, IMAGE_SIZE // 2 + MAX_CLOSE_UP_SHIFT + 1)
    thing = Thing(
        colour=colour,
        shape=shape,
        x=pick(rng, middle),
        y=pick(rng, middle),
        radius=pick(rng, range(CLOSE_UP_RADII[0], CLOSE_UP_RADII[1] + 1)),
        tint=random_tint(rng),
    )
    return World(things=(thing,), background=pick(rng, BACKGROUNDS))
