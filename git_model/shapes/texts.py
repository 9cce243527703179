"""What is said about the shapes world: captions and class names, and the words they are made of.

The rules leave no choice, so each world has one right caption, and exact match is a fair measure.
"""

from string import ascii_lowercase, digits

from git_model.shapes.clips import ACTS, STAY, Story
from git_model.shapes.world import (
    COLOURS,
    KNOWN_LOOKS,
    LINES,
    LOOKS,
    OUTLINES,
    PLACES,
    SIZES,
    Look,
    Thing,
    World,
)

NUMBERS = ("none", "one", "two", "three", "four", "five")
# Words that stand in no other list here.
OTHER_WORDS = (
    "a an and above below between to of left right the first then while up down things "
    "what colour shape is thing there how many are where which or larger does do happens last way "
    "that yes no"
)


def describe(world: World) -> str:
    """The caption of a picture. By what there is to say:

    a close-up: its class name, `a red star`; one thing: `a small red star at the top left`;
    two that differ: `a small red circle above a large blue star`, the first in reading order first;
    three that differ and stand in a line: `a small red circle between a large blue star and …`;
    else how many of what there are, by first in reading order: `two red circles and a blue star`.
    """
    things = world.things
    if world.is_close_up:
        return class_name(things[0].look)
    if len(things) == 1:
        return f"{_sized(things[0])} {PLACES[things[0].cell]}"
    if len({thing.look for thing in things}) == len(things):
        if len(things) == 2:
            return f"{_sized(things[0])} {relation(*things)} {_sized(things[1])}"
        if tuple(thing.cell for thing in things) in LINES:
            first, middle, last = map(_sized, things)
            return f"{middle} between {first} and {last}"
    return _listed([_counted(look, n) for look, n in count_looks(world).items()])


def relation(one: Thing, other: Thing) -> str:
    """Where one thing is, seen from another: `above`, or `above and to the left of`."""
    rows = one.cell // 3 - other.cell // 3
    columns = one.cell % 3 - other.cell % 3
    height = "" if rows == 0 else "above" if rows < 0 else "below"
    side = "" if columns == 0 else "to the left of" if columns < 0 else "to the right of"
    return f"{height} and {side}" if height and side else height or side


def count_looks(world: World) -> dict[Look, int]:
    """How many of each look there are, by first in reading order."""
    looks = [thing.look for thing in world.things]
    return {look: looks.count(look) for look in dict.fromkeys(looks)}


def describe_story(story: Story) -> str:
    """The caption of a clip: `a red star moves left`, `a red star moves left, then grows`,
    `a red star grows while a blue cross stays`, `first a red star fades, then a blue cross grows`.
    """
    if len(story.parts) == 1:
        [(actor, act)] = story.parts
        return f"{class_name(actor.look)} {act}"
    (one, act), (other, then) = story.parts
    if one is other:
        return f"{class_name(one.look)} {act}, then {then}"
    if then == STAY:
        return f"{class_name(one.look)} {act} while {class_name(other.look)} {then}"
    return f"first {class_name(one.look)} {act}, then {class_name(other.look)} {then}"


def class_name(look: Look) -> str:
    """`a red star`, `an orange star`."""
    return f"{'an' if look[0][0] in 'aeiou' else 'a'} {look[0]} {look[1]}"


def class_names(*, new: bool = True) -> list[str]:
    """The labels to classify close-ups among, with or without those never seen in training."""
    return [class_name(look) for look in (LOOKS if new else KNOWN_LOOKS)]


def plural(shape: str) -> str:
    """`stars`, `crosses`."""
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def vocabulary() -> list[str]:
    """Every token of the world's WordPiece vocabulary, in the order of their ids.

    BERT's special tokens, the words of captions, questions and answers, then letters and digits
    (alone, and inside a word) and marks: any plain English text can be spelt, if at length.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    shapes = [*OUTLINES, *map(plural, OUTLINES)]
    acts = [*ACTS, STAY, *(act.split()[0].removesuffix("s") for act in ACTS)]
    words = " ".join((*SIZES, *COLOURS, *shapes, *PLACES, *NUMBERS, *acts, OTHER_WORDS))
    signs = list(ascii_lowercase + digits)
    inside = [f"##{sign}" for sign in signs]
    return list(dict.fromkeys([*special, *words.split(), *signs, *inside, *",.?!'-:"]))


def _sized(thing: Thing) -> str:
    return f"a {thing.size} {thing.colour} {thing.shape}"


def _counted(look: Look, n: int) -> str:
    return class_name(look) if n == 1 else f"{NUMBERS[n]} {look[0]} {plural(look[1])}"


def _listed(phrases: list[str]) -> str:
    """`x`, `x and y`, `x, y and z`."""
    *others, last = phrases
    return f"{', '.join(others)} and {last}" if others else last
