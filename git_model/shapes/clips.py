"""The moving part of the shapes world: clips of four to six frames that show one or two actions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from PIL import Image

from git_model.shapes.world import (
    APPEARANCES,
    BACKGROUNDS,
    CELL,
    SIZES,
    Appearance,
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

FRAME_COUNTS = (4, 5, 6)
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # in cells
ACTIONS = (*(f"moves {direction}" for direction in DIRECTIONS), "grows", "shrinks", "fades",
           "bounces")  # fmt: skip
STAY = "stays"
MIN_RADIUS, MEDIUM_RADIUS, MAX_RADIUS = SIZES["small"][0], 7.5, SIZES["large"][1]
MAX_FADE = 0.85  # still just visible


@dataclass(frozen=True, kw_only=True)
class Actor:
    """A thing and its actions. A single action takes the whole clip, two take a half each."""

    appearance: Appearance
    cell: int  # at the start
    actions: tuple[str | None, ...]  # for each part of the clip; None: it waits
    tint: Tint = (0.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Story:
    """One or two actors on a grey background."""

    actors: tuple[Actor, ...]
    background: int
    frames: int

    @property
    def signature(self) -> str:
        """The content that decides the story's split: actors, cells and actions."""
        return ", ".join(f"{a.appearance} {a.cell} {a.actions}" for a in self.actors)

    @property
    def events(self) -> list[tuple[Actor, str]]:
        """Actors and their actions, in order of time."""
        n_parts = len(self.actors[0].actions)
        return [
            (actor, action)
            for part in range(n_parts)
            for actor in self.actors
            if (action := actor.actions[part])
        ]

    def worlds(self) -> list[World]:
        """The world at each frame."""
        times = [frame / (self.frames - 1) for frame in range(self.frames)]
        return [
            World(things=tuple(_thing_at(a, time) for a in self.actors), background=self.background)
            for time in times
        ]


def draw_clip(story: Story) -> list[Image.Image]:
    """The frames of a story."""
    return [draw(world) for world in story.worlds()]


def make_story(rng: Random, split: Split = "train") -> Story:
    """A random story in which the actors stay within the image and never meet."""
    while True:
        story = _random_story(rng)
        appearances = [actor.appearance for actor in story.actors]
        if _fits(story) and split_of(appearances, story.signature) == split:
            return story


def cells_of(actor: Actor) -> list[tuple[int, int]]:
    """(column, row) of all cells that an actor visits; they may lie outside the image."""
    column, row = actor.cell % 3, actor.cell // 3
    cells = [(column, row)]
    for action in actor.actions:
        if action == "bounces":
            cells.append((column, row - 1))
        step_x, step_y = _step(action)
        column, row = column + step_x, row + step_y
        cells.append((column, row))
    return cells


def _thing_at(actor: Actor, time: float) -> Thing:
    """The actor as a thing, at a time from 0 to 1."""
    column, row = actor.cell % 3, actor.cell // 3
    thing = Thing(
        colour=actor.appearance[0],
        shape=actor.appearance[1],
        x=(column + 0.5) * CELL,
        y=(row + 0.5) * CELL,
        radius=_initial_radius(actor.actions),
        tint=actor.tint,
    )
    n_parts = len(actor.actions)
    for part, action in enumerate(actor.actions):
        thing = _after(thing, action, min(max(time * n_parts - part, 0.0), 1.0))
    return thing


def _after(thing: Thing, action: str | None, share: float) -> Thing:
    """The thing after this share, 0 to 1, of an action."""
    if share == 0:
        return thing
    if action == "grows":
        return replace(thing, radius=MIN_RADIUS + share * (MAX_RADIUS - MIN_RADIUS))
    if action == "shrinks":
        return replace(thing, radius=MAX_RADIUS + share * (MIN_RADIUS - MAX_RADIUS))
    if action == "fades":
        return replace(thing, fade=share * MAX_FADE)
    if action == "bounces":
        return replace(thing, y=thing.y - CELL * math.sin(math.pi * share))
    step_x, step_y = _step(action)
    return replace(thing, x=thing.x + share * CELL * step_x, y=thing.y + share * CELL * step_y)


def _step(action: str | None) -> tuple[int, int]:
    """The movement of an action, in cells to the right and down."""
    return DIRECTIONS.get((action or "").removeprefix("moves "), (0, 0))


def _initial_radius(actions: Sequence[str | None]) -> float:
    """Small before a thing grows, large before it shrinks."""
    first = next((action for action in actions if action in ("grows", "shrinks")), None)
    return {"grows": MIN_RADIUS, "shrinks": MAX_RADIUS, None: MEDIUM_RADIUS}[first]


def _fits(story: Story) -> bool:
    """Whether all cells lie in the image and no two actors share a cell."""
    cells = [set(cells_of(actor)) for actor in story.actors]
    in_image = all(0 <= x <= 2 and 0 <= y <= 2 for visits in cells for x, y in visits)
    return in_image and len(set.union(*cells)) == sum(map(len, cells))


def _random_story(rng: Random) -> Story:
    """One actor with one action or two, or two actors: one acts and one stays, or both act in turn.

    `casts` holds these four cases, and each case the actions of each actor.
    """
    first, second = pick_several(rng, ACTIONS, 2)
    casts: tuple[tuple[tuple[str | None, ...], ...], ...] = (
        ((first,),),
        ((first, second),) if first != "fades" else ((second, first),),
        ((first,), (STAY,)),
        ((first, None), (None, pick(rng, ACTIONS))),
    )
    cast = pick(rng, casts)
    actors = tuple(
        Actor(
            appearance=appearance,
            cell=pick(rng, range(9)),
            actions=actions,
            tint=random_tint(rng),
        )
        for appearance, actions in zip(pick_several(rng, APPEARANCES, len(cast)), cast, strict=True)
    )
    return Story(
        actors=actors,
        background=pick(rng, BACKGROUNDS),
        frames=pick(rng, FRAME_COUNTS),
    )
