"""The moving part of the shapes world: clips of four to six frames in which something happens."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from PIL import Image

from git_model.shapes.world import (
    BACKGROUNDS,
    CELL,
    LOOKS,
    SIZES,
    Look,
    Split,
    Thing,
    Tint,
    World,
    draw,
    pick,
    pick_several,
    random_tint,
    split_of,
)

FRAMES = (4, 5, 6)
MOVES = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # in cells
ACTS = (*(f"moves {way}" for way in MOVES), "grows", "shrinks", "fades", "bounces")
STAY = "stays"
SMALLEST, MIDDLE, LARGEST = SIZES["small"][0], 7.5, SIZES["large"][1]
FADED = 0.85  # so far that the last of it can just be seen


@dataclass(frozen=True, kw_only=True)
class Actor:
    """A thing and what it does. In a clip of one act it acts all the time; in a clip of two, the
    first act takes the first half of it and the second the second."""

    look: Look
    cell: int  # where it stands first
    acts: tuple[str | None, ...]  # by part of the clip; None: it waits
    tint: Tint = (0.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Story:
    """One or two actors on a grey background."""

    actors: tuple[Actor, ...]
    background: int
    frames: int

    @property
    def scene(self) -> str:
        """Who stands where and does what: what makes it another story than others."""
        return ", ".join(f"{a.look} {a.cell} {a.acts}" for a in self.actors)

    @property
    def parts(self) -> list[tuple[Actor, str]]:
        """What happens, one after the other: who does what."""
        n = len(self.actors[0].acts)
        return [(a, act) for part in range(n) for a in self.actors if (act := a.acts[part])]

    def worlds(self) -> list[World]:
        """The world at each frame."""
        times = [frame / (self.frames - 1) for frame in range(self.frames)]
        return [
            World(things=tuple(_at(a, time) for a in self.actors), background=self.background)
            for time in times
        ]


def draw_clip(story: Story) -> list[Image.Image]:
    """The frames."""
    return [draw(world) for world in story.worlds()]


def make_story(rng: Random, split: Split = "train") -> Story:
    """A story in which nobody comes into another's way or leaves the picture."""
    while True:
        story = _random_story(rng)
        if _fits(story) and split_of((a.look for a in story.actors), story.scene) == split:
            return story


def cells_of(actor: Actor) -> list[tuple[int, int]]:
    """(column, row) of each cell that an actor is in at some time; some may lie outside."""
    column, row = actor.cell % 3, actor.cell // 3
    cells = [(column, row)]
    for act in actor.acts:
        if act == "bounces":
            cells.append((column, row - 1))
        step_x, step_y = _step(act)
        column, row = column + step_x, row + step_y
        cells.append((column, row))
    return cells


def _at(actor: Actor, time: float) -> Thing:
    """The actor as a thing, at a time from 0 to 1."""
    column, row = actor.cell % 3, actor.cell // 3
    thing = Thing(
        colour=actor.look[0],
        shape=actor.look[1],
        x=(column + 0.5) * CELL,
        y=(row + 0.5) * CELL,
        radius=_first_radius(actor.acts),
        tint=actor.tint,
    )
    n = len(actor.acts)
    for part, act in enumerate(actor.acts):
        thing = _after(thing, act, min(max(time * n - part, 0.0), 1.0))
    return thing


def _after(thing: Thing, act: str | None, share: float) -> Thing:
    """The thing when this share of the act is over."""
    if share == 0:
        return thing
    if act == "grows":
        return replace(thing, radius=SMALLEST + share * (LARGEST - SMALLEST))
    if act == "shrinks":
        return replace(thing, radius=LARGEST + share * (SMALLEST - LARGEST))
    if act == "fades":
        return replace(thing, faded=share * FADED)
    if act == "bounces":
        return replace(thing, y=thing.y - CELL * math.sin(math.pi * share))
    step_x, step_y = _step(act)
    return replace(thing, x=thing.x + share * CELL * step_x, y=thing.y + share * CELL * step_y)


def _step(act: str | None) -> tuple[int, int]:
    """How far an act carries a thing, in cells to the right and down."""
    return MOVES.get((act or "").removeprefix("moves "), (0, 0))


def _first_radius(acts: Sequence[str | None]) -> float:
    """Small before it grows, large before it shrinks."""
    first = next((act for act in acts if act in ("grows", "shrinks")), None)
    return {"grows": SMALLEST, "shrinks": LARGEST, None: MIDDLE}[first]


def _fits(story: Story) -> bool:
    """Whether all cells lie inside and no cell is used by two actors."""
    used = [set(cells_of(actor)) for actor in story.actors]
    inside = all(0 <= x <= 2 and 0 <= y <= 2 for cells in used for x, y in cells)
    return inside and len(set.union(*used)) == sum(map(len, used))


def _random_story(rng: Random) -> Story:
    """One thing that does one thing or two, or two of which one stays, or both act in turn."""
    first, second = pick_several(rng, ACTS, 2)
    plays: tuple[tuple[tuple[str | None, ...], ...], ...] = (
        ((first,),),
        ((first, second),) if first != "fades" else ((second, first),),
        ((first,), (STAY,)),
        ((first, None), (None, pick(rng, ACTS))),
    )
    play = pick(rng, plays)
    looks = pick_several(rng, LOOKS, len(play))
    return Story(
        actors=tuple(
            Actor(look=look, cell=pick(rng, range(9)), acts=acts, tint=random_tint(rng))
            for look, acts in zip(looks, play, strict=True)
        ),
        background=pick(rng, BACKGROUNDS),
        frames=pick(rng, FRAMES),
    )
