"""Questions about the shapes world. Every question has exactly one correct answer, and the answers
are balanced, so that guessing does not help."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

from git_model.shapes.clips import ACTIONS, STAY, Story
from git_model.shapes.texts import NUMBER_WORDS, class_name, plural
from git_model.shapes.world import (
    COLOURS,
    OUTLINES,
    POSITIONS,
    TRAINING_APPEARANCES,
    Appearance,
    Thing,
    World,
    pick,
    pick_several,
)

SIDES = {  # the direction of a neighbour, in columns and rows
    "to the left of": (-1, 0),
    "to the right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}


class Question(NamedTuple):
    """A question and its answer; the kind is for statistics."""

    kind: str
    text: str
    answer: str


def ask_about(world: World, rng: Random, n: int) -> list[Question]:
    """At most n questions about an image, all of different kinds."""
    kinds = (_colours, _shapes, _positions, _neighbours, _sizes, _counts, _presences)
    return _pick_questions([list(kind(world, rng)) for kind in kinds], rng, n)


def ask_about_story(story: Story, rng: Random, n: int) -> list[Question]:
    """At most n questions about a clip, all of different kinds."""
    kinds = (_actions, _directions, _agents, _orders, _occurrences)
    return _pick_questions([list(kind(story, rng)) for kind in kinds], rng, n)


def _pick_questions(kinds: list[list[Question]], rng: Random, n: int) -> list[Question]:
    """A question of each of n kinds, or of all kinds if fewer have any."""
    non_empty = [questions for questions in kinds if questions]
    return [
        pick(rng, questions) for questions in pick_several(rng, non_empty, min(n, len(non_empty)))
    ]


def _colours(world: World, _: Random) -> Iterator[Question]:
    for shape, thing in _unique(world.things, "shape"):
        yield Question("colour", f"what colour is the {shape}?", thing.colour)


def _shapes(world: World, _: Random) -> Iterator[Question]:
    for colour, thing in _unique(world.things, "colour"):
        yield Question("shape", f"what shape is the {colour} thing?", thing.shape)


def _positions(world: World, _: Random) -> Iterator[Question]:
    if world.is_close_up:
        return
    for _appearance, thing in _unique(world.things, "appearance"):
        yield Question("position", f"where is the {_name(thing)}?", POSITIONS[thing.cell])
    for thing in world.things:
        text = f"what is {POSITIONS[thing.cell]}?"
        yield Question("position", text, class_name(thing.appearance))


def _neighbours(world: World, _: Random) -> Iterator[Question]:
    """What is to the left of a thing: only if a single thing is there, in the same row."""
    for _appearance, thing in _unique(world.things, "appearance"):
        for side, direction in SIDES.items():
            others = [other for other in world.things if _direction(thing, other) == direction]
            if len(others) == 1:
                text = f"what is {side} the {_name(thing)}?"
                yield Question("neighbour", text, class_name(others[0].appearance))


def _sizes(world: World, rng: Random) -> Iterator[Question]:
    things = [thing for _, thing in _unique(world.things, "appearance")]
    large = [thing for thing in things if thing.size == "large"]
    small = [thing for thing in things if thing.size == "small"]
    if large and small:
        larger = pick(rng, large)
        pair = [larger, pick(rng, small)]
        first, second = pair if rng.random() < 0.5 else pair[::-1]
        text = f"which is larger, the {_name(first)} or the {_name(second)}?"
        yield Question("size", text, f"the {_name(larger)}")


def _counts(world: World, rng: Random) -> Iterator[Question]:
    """The number is drawn before the kind of things, because most kinds do not occur at all."""
    shapes = [thing.shape for thing in world.things]
    colours = [thing.colour for thing in world.things]
    counts = [(shapes.count(shape), plural(shape)) for shape in OUTLINES]
    counts += [(colours.count(colour), f"{colour} things") for colour in COLOURS]
    counts += [(len(shapes), "things")]
    number = pick(rng, sorted({n for n, _ in counts}))
    name = pick(rng, [name for n, name in counts if n == number])
    yield Question("count", f"how many {name} are there?", NUMBER_WORDS[number])


def _presences(world: World, rng: Random) -> Iterator[Question]:
    """Yes and no are equally likely; for a no, another thing has the colour or the shape."""
    present = [thing.appearance for thing in world.things]
    if rng.random() < 0.5:
        yield Question("presence", f"is there {class_name(pick(rng, present))}?", "yes")
        return
    colours, shapes = ({appearance[part] for appearance in present} for part in (0, 1))

    def absent(n_shared: int) -> list[Appearance]:
        """Appearances that do not occur, but at least n_shared of their colour and shape do."""
        return [
            appearance
            for appearance in TRAINING_APPEARANCES
            if appearance not in present
            and (appearance[0] in colours) + (appearance[1] in shapes) >= n_shared
        ]

    both = absent(2)
    appearance = pick(rng, both if both and rng.random() < 0.5 else absent(1))
    yield Question("presence", f"is there {class_name(appearance)}?", "no")


def _actions(story: Story, _: Random) -> Iterator[Question]:
    for actor in story.actors:
        name = " ".join(actor.appearance)
        actions = [action for action in actor.actions if action]
        if len(actions) == 1:
            yield Question("action", f"what does the {name} do?", actions[0])
        else:
            for order, action in zip(("first", "last"), actions, strict=True):
                yield Question("action", f"what does the {name} do {order}?", action)


def _directions(story: Story, _: Random) -> Iterator[Question]:
    for actor in story.actors:
        directions = [
            action.removeprefix("moves ")
            for action in actor.actions
            if action and action.startswith("moves ")
        ]
        if len(directions) == 1:
            text = f"which way does the {' '.join(actor.appearance)} move?"
            yield Question("direction", text, directions[0])


def _agents(story: Story, _: Random) -> Iterator[Question]:
    """Who does something: only for an action that occurs once."""
    actions = [action for _, action in story.events]
    for actor, action in story.events:
        if actions.count(action) == 1:
            colour, shape = actor.appearance
            yield Question("agent", f"what colour is the thing that {action}?", colour)
            yield Question("agent", f"what shape is the thing that {action}?", shape)


def _orders(story: Story, _: Random) -> Iterator[Question]:
    if len(story.events) == 2 and STAY not in [action for _, action in story.events]:
        for order, (actor, action) in zip(("first", "last"), story.events, strict=True):
            text = f"{class_name(actor.appearance)} {action}"
            yield Question("order", f"what happens {order}?", text)


def _occurrences(story: Story, rng: Random) -> Iterator[Question]:
    """Yes and no are equally likely; for a no, often an action of the other actor."""
    events = [event for event in story.events if event[1] != STAY]
    actor, action = pick(rng, events)
    answer = "yes"
    if rng.random() < 0.5:
        actor, answer = pick(rng, story.actors), "no"
        absent = [action for action in ACTIONS if action not in actor.actions]
        other_actors = [action for _, action in events if action in absent]
        action = pick(rng, other_actors if other_actors and rng.random() < 0.5 else absent)
    verb, *direction = action.split()
    text = " ".join((verb.removesuffix("s"), *direction))
    yield Question("occurrence", f"does the {' '.join(actor.appearance)} {text}?", answer)


def _unique(things: Sequence[Thing], attribute: str) -> Iterator[tuple[str, Thing]]:
    """Each value of an attribute that a single thing has, and the thing."""
    groups: dict[str, list[Thing]] = {}
    for thing in things:
        groups.setdefault(getattr(thing, attribute), []).append(thing)
    return ((value, group[0]) for value, group in groups.items() if len(group) == 1)


def _name(thing: Thing) -> str:
    return " ".join(thing.appearance)


def _direction(thing: Thing, other: Thing) -> tuple[int, int]:
    """The sign of the other thing's offset: -1 left or above, 1 right or below."""
    columns, rows = other.cell % 3 - thing.cell % 3, other.cell // 3 - thing.cell // 3
    return (columns > 0) - (columns < 0), (rows > 0) - (rows < 0)
