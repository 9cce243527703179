"""Questions about the shapes world. Each is only asked where it has exactly one right answer, and
answers are balanced, so that guessing does not pay."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

from git_model.shapes.clips import ACTS, STAY, Story
from git_model.shapes.texts import NUMBERS, class_name, plural
from git_model.shapes.world import (
    COLOURS,
    KNOWN_LOOKS,
    OUTLINES,
    PLACES,
    Thing,
    World,
    pick,
    pick_several,
)

SIDES = {  # how far in columns and rows a thing is that stands there
    "to the left of": (-1, 0),
    "to the right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}


class Question(NamedTuple):
    """A question and its answer; the kind is for counting."""

    kind: str
    text: str
    answer: str


def ask_about(world: World, rng: Random, n: int) -> list[Question]:
    """At most n questions about a picture, each of another kind."""
    kinds = (_colours, _shapes, _places, _neighbours, _sizes, _counts, _presences)
    return _some([list(kind(world, rng)) for kind in kinds], rng, n)


def ask_about_story(story: Story, rng: Random, n: int) -> list[Question]:
    """At most n questions about a clip, each of another kind."""
    kinds = (_deeds, _ways, _agents, _orders, _whethers)
    return _some([list(kind(story, rng)) for kind in kinds], rng, n)


def _some(kinds: list[list[Question]], rng: Random, n: int) -> list[Question]:
    """One question of each of n kinds, or of all there are."""
    there = [kind for kind in kinds if kind]
    return [pick(rng, kind) for kind in pick_several(rng, there, min(n, len(there)))]


def _colours(world: World, _: Random) -> Iterator[Question]:
    for shape, [thing] in _alone(world.things, "shape"):
        yield Question("colour", f"what colour is the {shape}?", thing.colour)


def _shapes(world: World, _: Random) -> Iterator[Question]:
    for colour, [thing] in _alone(world.things, "colour"):
        yield Question("shape", f"what shape is the {colour} thing?", thing.shape)


def _places(world: World, _: Random) -> Iterator[Question]:
    if world.is_close_up:
        return
    for look, [thing] in _alone(world.things, "look"):
        yield Question("place", f"where is the {' '.join(look)}?", PLACES[thing.cell])
    for thing in world.things:
        yield Question("place", f"what is {PLACES[thing.cell]}?", class_name(thing.look))


def _neighbours(world: World, _: Random) -> Iterator[Question]:
    """What is left of a thing: asked where just one thing is, in the same row."""
    for look, [thing] in _alone(world.things, "look"):
        for side, way in SIDES.items():
            there = [other for other in world.things if _direction(thing, other) == way]
            if len(there) == 1:
                text = f"what is {side} the {' '.join(look)}?"
                yield Question("neighbour", text, class_name(there[0].look))


def _sizes(world: World, rng: Random) -> Iterator[Question]:
    things = [thing for _, [thing] in _alone(world.things, "look")]
    larger = [thing for thing in things if thing.size == "large"]
    smaller = [thing for thing in things if thing.size == "small"]
    if larger and smaller:
        right = pick(rng, larger)
        pair = [right, pick(rng, smaller)]
        one, other = (" ".join(t.look) for t in (pair if rng.random() < 0.5 else pair[::-1]))
        text = f"which is larger, the {one} or the {other}?"
        yield Question("larger", text, f"the {' '.join(right.look)}")


def _counts(world: World, rng: Random) -> Iterator[Question]:
    """A number is drawn first, then what there are as many of: not none most of the time."""
    shapes = [thing.shape for thing in world.things]
    colours = [thing.colour for thing in world.things]
    found = [(shapes.count(shape), plural(shape)) for shape in OUTLINES]
    found += [(colours.count(colour), f"{colour} things") for colour in COLOURS]
    found += [(len(shapes), "things")]
    number = pick(rng, sorted({n for n, _ in found}))
    what = pick(rng, [name for n, name in found if n == number])
    yield Question("count", f"how many {what} are there?", NUMBERS[number])


def _presences(world: World, rng: Random) -> Iterator[Question]:
    """Yes or no, as often; for a no, a colour or a shape that is there, on another thing."""
    there = [thing.look for thing in world.things]
    if rng.random() < 0.5:
        yield Question("presence", f"is there {class_name(pick(rng, there))}?", "yes")
        return
    colours, shapes = ({look[part] for look in there} for part in (0, 1))
    absent = [look for look in KNOWN_LOOKS if look not in there]
    mixed = [look for look in absent if look[0] in colours and look[1] in shapes]
    alike = [look for look in absent if look[0] in colours or look[1] in shapes]
    look = pick(rng, mixed if mixed and rng.random() < 0.5 else alike)
    yield Question("presence", f"is there {class_name(look)}?", "no")


def _deeds(story: Story, _: Random) -> Iterator[Question]:
    for actor in story.actors:
        acts = [act for act in actor.acts if act]
        if len(acts) == 1:
            yield Question("deed", f"what does the {' '.join(actor.look)} do?", acts[0])
        else:
            for when, act in zip(("first", "last"), acts, strict=True):
                text = f"what does the {' '.join(actor.look)} do {when}?"
                yield Question("deed", text, act)


def _ways(story: Story, _: Random) -> Iterator[Question]:
    for actor in story.actors:
        ways = [act.removeprefix("moves ") for act in actor.acts if act and _is_move(act)]
        if len(ways) == 1:
            yield Question("way", f"which way does the {' '.join(actor.look)} move?", ways[0])


def _agents(story: Story, _: Random) -> Iterator[Question]:
    """Who does it: asked for an act of which there is one."""
    acts = [act for _, act in story.parts]
    for actor, act in story.parts:
        if acts.count(act) == 1:
            colour, shape = actor.look
            yield Question("agent", f"what colour is the thing that {act}?", colour)
            yield Question("agent", f"what shape is the thing that {act}?", shape)


def _orders(story: Story, _: Random) -> Iterator[Question]:
    if len(story.parts) == 2 and STAY not in [act for _, act in story.parts]:
        for when, (actor, act) in zip(("first", "last"), story.parts, strict=True):
            text = f"{class_name(actor.look)} {act}"
            yield Question("order", f"what happens {when}?", text)


def _whethers(story: Story, rng: Random) -> Iterator[Question]:
    """Yes or no, as often; for a no, an act of the other one where that is none of its own."""
    done = [part for part in story.parts if part[1] != STAY]
    actor, act = pick(rng, done)
    answer = "yes"
    if rng.random() < 0.5:
        actor, answer = pick(rng, story.actors), "no"
        others = [act for act in ACTS if act not in actor.acts]
        seen = [act for _, act in done if act in others]
        act = pick(rng, seen if seen and rng.random() < 0.5 else others)
    verb, *way = act.split()
    text = " ".join((verb.removesuffix("s"), *way))
    yield Question("whether", f"does the {' '.join(actor.look)} {text}?", answer)


def _alone(things: Sequence[Thing], word: str) -> Iterator[tuple[str, list[Thing]]]:
    """Each colour, shape or look that one thing alone has, and the thing."""
    found: dict[str, list[Thing]] = {}
    for thing in things:
        found.setdefault(getattr(thing, word), []).append(thing)
    return ((value, those) for value, those in found.items() if len(those) == 1)


def _direction(thing: Thing, other: Thing) -> tuple[int, int]:
    """Whether the other thing stands left (-1) or right (1), and above (-1) or below (1)."""
    columns, rows = other.cell % 3 - thing.cell % 3, other.cell // 3 - thing.cell // 3
    return (columns > 0) - (columns < 0), (rows > 0) - (rows < 0)


def _is_move(act: str) -> bool:
    return act.startswith("moves ")
