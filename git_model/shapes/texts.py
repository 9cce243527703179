"""The texts of the shapes world: captions, class names, and the vocabulary of both.

The rules are deterministic: a world has exactly one correct caption, so exact match is a fair
metric.
"""

from string import ascii_lowercase, digits

from git_model.shapes.clips import ACTIONS, STAY, Story
from git_model.shapes.world import (
    APPEARANCES,
    COLOURS,
    LINES,
    OUTLINES,
    POSITIONS,
    SIZES,
    TRAINING_APPEARANCES,
    Appearance,
    Thing,
    World,
)

NUMBER_WORDS = ("none", "one", "two", "three", "four", "five")
# The words of the templates.
TEMPLATE_WORDS = (
    "a an and above below between to of left right the first then while up down things "
    "what colour shape is thing there how many are where which or larger does do happens last way "
    "that yes no"
)


def describe(world: World) -> str:
    """The caption of an image. The first case that applies:

    - a close-up: its class name, `a red star`
    - one thing: `a small red star at the top left`
    - two different things, in reading order: `a small red circle above a large blue star`
    - three different things in a line: `a small red circle between a large blue star and …`
    - else the count of each kind, in reading order: `two red circles and a blue star`
    """
    things = world.things
    if world.is_close_up:
        return class_name(things[0].appearance)
    if len(things) == 1:
        return f"{_sized_name(things[0])} {POSITIONS[things[0].cell]}"
    if len({thing.appearance for thing in things}) == len(things):
        if len(things) == 2:
            return f"{_sized_name(things[0])} {relation(*things)} {_sized_name(things[1])}"
        if tuple(thing.cell for thing in things) in LINES:
            first, middle, last = map(_sized_name, things)
            return f"{middle} between {first} and {last}"
    return _join([_counted_name(kind, n) for kind, n in count_appearances(world).items()])


def relation(first: Thing, second: Thing) -> str:
    """The first thing's position relative to the second: `above`, `above and to the left of`, …"""
    rows = first.cell // 3 - second.cell // 3
    columns = first.cell % 3 - second.cell % 3
    height = "" if rows == 0 else "above" if rows < 0 else "below"
    side = "" if columns == 0 else "to the left of" if columns < 0 else "to the right of"
    return f"{height} and {side}" if height and side else height or side


def count_appearances(world: World) -> dict[Appearance, int]:
    """The number of things of each appearance, in reading order."""
    appearances = [thing.appearance for thing in world.things]
    return {kind: appearances.count(kind) for kind in dict.fromkeys(appearances)}


def describe_story(story: Story) -> str:
    """The caption of a clip: `a red star moves left`, `a red star moves left, then grows`,
    `a red star grows while a blue cross stays`, `first a red star fades, then a blue cross grows`.
    """
    if len(story.events) == 1:
        [(actor, action)] = story.events
        return f"{class_name(actor.appearance)} {action}"
    (actor, action), (second_actor, second_action) = story.events
    name, second_name = class_name(actor.appearance), class_name(second_actor.appearance)
    if actor is second_actor:
        return f"{name} {action}, then {second_action}"
    if second_action == STAY:
        return f"{name} {action} while {second_name} {second_action}"
    return f"first {name} {action}, then {second_name} {second_action}"


def class_name(appearance: Appearance) -> str:
    """`a red star`, `an orange star`."""
    colour, shape = appearance
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape}"


def class_names(*, new: bool = True) -> list[str]:
    """The labels of close-ups, with or without those that training never shows."""
    return [class_name(kind) for kind in (APPEARANCES if new else TRAINING_APPEARANCES)]


def plural(shape: str) -> str:
    """`stars`, `crosses`."""
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def vocabulary() -> list[str]:
    """Every token of the world's WordPiece vocabulary, in the order of their ids.

    BERT's special tokens; the words of captions, questions and answers; then letters and digits
    (alone, and inside a word) and punctuation, which spell any other plain English text.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    shapes = [*OUTLINES, *map(plural, OUTLINES)]
    verbs = [*ACTIONS, STAY, *(action.split()[0].removesuffix("s") for action in ACTIONS)]
    words = " ".join((*SIZES, *COLOURS, *shapes, *POSITIONS, *NUMBER_WORDS, *verbs, TEMPLATE_WORDS))
    letters = list(ascii_lowercase + digits)
    suffixes = [f"##{letter}" for letter in letters]
    return list(dict.fromkeys([*special, *words.split(), *letters, *suffixes, *",.?!'-:"]))


def _sized_name(thing: Thing) -> str:
    return f"a {thing.size} {thing.colour} {thing.shape}"


def _counted_name(appearance: Appearance, n: int) -> str:
    colour, shape = appearance
    return class_name(appearance) if n == 1 else f"{NUMBER_WORDS[n]} {colour} {plural(shape)}"


def _join(phrases: list[str]) -> str:
    """`x`, `x and y`, `x, y and z`."""
    *others, last = phrases
    return f"{', '.join(others)} and {last}" if others else last
