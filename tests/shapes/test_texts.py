import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_model.preprocessing.tokenizer import Tokenizer
from git_model.shapes.clips import ACTIONS, STAY, Actor, Story, make_story
from git_model.shapes.source import ShapesData
from git_model.shapes.texts import (
    NUMBER_WORDS,
    class_name,
    class_names,
    describe,
    describe_story,
    vocabulary,
)
from git_model.shapes.world import (
    COLOURS,
    NEW_APPEARANCES,
    OUTLINES,
    POSITIONS,
    Thing,
    World,
    make_close_up,
    make_world,
)

SPLITS = ("train", "held_out", "recombination")
seeds = st.integers(0, 10**9)
worlds = st.builds(
    lambda seed, split: make_world(Random(seed), split), seeds, st.sampled_from(SPLITS)
)
THING = rf"an? (?:(small|large) )?({'|'.join(COLOURS)}) ({'|'.join(OUTLINES)})"
SIDES = {"above": (0, -1), "below": (0, 1), "to the left of": (-1, 0), "to the right of": (1, 0)}


def world(*things: tuple[str, str, str, int]) -> World:
    """From (size, colour, shape, cell)."""
    radius = {"small": 5.0, "large": 9.0}
    return World(
        things=tuple(
            Thing(
                colour=colour,
                shape=shape,
                radius=radius[size],
                x=10 + 21 * (cell % 3),
                y=10 + 21 * (cell // 3),
            )
            for size, colour, shape, cell in things
        ),
        background=200,
    )


RED, BLUE, PINK = ("small", "red", "circle"), ("large", "blue", "star"), ("small", "pink", "cross")


@pytest.mark.parametrize(
    ("things", "caption"),
    [
        ([(*RED, 0)], "a small red circle at the top left"),
        ([(*RED, 0), (*BLUE, 2)], "a small red circle to the left of a large blue star"),
        ([(*RED, 1), (*BLUE, 4)], "a small red circle above a large blue star"),
        (
            [(*RED, 2), (*BLUE, 3)],
            "a small red circle above and to the right of a large blue star",
        ),
        (
            [(*RED, 2), (*BLUE, 4), (*PINK, 6)],
            "a large blue star between a small red circle and a small pink cross",
        ),
        ([(*RED, 0), (*BLUE, 1), (*PINK, 8)], "a red circle, a blue star and a pink cross"),
        ([(*RED, 0), ("large", "red", "circle", 5)], "two red circles"),
        (
            [(*PINK, 0), (*BLUE, 1), (*PINK, 3), (*PINK, 4), (*BLUE, 5)],
            "three pink crosses and two blue stars",
        ),
        (
            [("small", "orange", "star", 1), (*RED, 4), (*RED, 7)],
            "an orange star and two red circles",
        ),
    ],
)
def test_captions_follow_the_rules(things, caption):
    assert describe(world(*things)) == caption


@given(worlds)
def test_a_caption_is_true_of_its_world(world):
    caption, facts = describe(world), [(t.size, *t.appearance) for t in world.things]
    if match := re.fullmatch(rf"{THING} ((?:at|in) .+)", caption):
        size, colour, shape, position = match.groups()
        assert facts == [(size, colour, shape)]
        assert POSITIONS.index(position) == world.things[0].cell
    elif match := re.fullmatch(rf"{THING} between {THING} and {THING}", caption):
        assert [match.groups()[start : start + 3] for start in (3, 0, 6)] == facts
        first, middle, last = (divmod(t.cell, 3) for t in world.things)
        assert (first[0] + last[0], first[1] + last[1]) == (2 * middle[0], 2 * middle[1])
    elif match := re.fullmatch(rf"{THING} ({'|'.join(SIDES)}|.+ and .+) {THING}", caption):
        *subject, relation, size, colour, shape = match.groups()
        assert facts == [tuple(subject), (size, colour, shape)]
        steps = [SIDES[part] for part in relation.split(" and ")]
        first, second = (t.cell for t in world.things)
        offset = (first % 3 - second % 3, first // 3 - second // 3)
        assert tuple((x > 0) - (x < 0) for x in offset) == tuple(map(sum, zip(*steps, strict=True)))
    else:
        things = []
        for phrase in re.split(", | and ", caption):
            number, colour, shape = phrase.split()
            n = 1 if number in ("a", "an") else NUMBER_WORDS.index(number)
            shape = next(name for name in OUTLINES if shape in (name, f"{name}s", f"{name}es"))
            things += [(colour, shape)] * n
        assert sorted(things) == sorted((colour, shape) for _, colour, shape in facts)


def caption_of(*actors: tuple[tuple[str, str], tuple[str | None, ...]]) -> str:
    cast = tuple(Actor(appearance=kind, cell=4, actions=actions) for kind, actions in actors)
    return describe_story(Story(actors=cast, background=200, frames=5))


def test_captions_of_clips_follow_the_rules():
    star, cross = ("orange", "star"), ("blue", "cross")
    assert caption_of((star, ("moves left",))) == "an orange star moves left"
    assert caption_of((star, ("moves left", "grows"))) == "an orange star moves left, then grows"
    caption = caption_of((star, ("fades",)), (cross, (STAY,)))
    assert caption == "an orange star fades while a blue cross stays"
    caption = caption_of((star, ("fades", None)), (cross, (None, "bounces")))
    assert caption == "first an orange star fades, then a blue cross bounces"


@given(seeds)
def test_the_caption_of_a_close_up_is_its_class(seed):
    world = make_close_up(Random(seed))
    assert describe(world) == class_name(world.things[0].appearance)
    assert describe(world) in class_names()


def test_no_other_image_has_a_class_for_its_caption():
    captions = {describe(make_world(Random(seed))) for seed in range(3000)}
    assert not captions & set(class_names())


def test_there_are_forty_five_classes_and_four_of_them_are_new():
    new = {class_name(appearance) for appearance in NEW_APPEARANCES}
    assert len(class_names()) == 45
    assert set(class_names()) - set(class_names(new=False)) == new


@pytest.mark.parametrize("split", SPLITS)
def test_every_word_is_one_token_and_decodes_to_itself(split):
    tokenizer = Tokenizer.from_vocab(vocabulary())
    source = ShapesData(split=split, size=300, questions=9).open()
    for index in range(len(source)):
        for annotation in source[index].annotations:
            for text in (*annotation.texts, annotation.question or ""):
                ids = tokenizer.encode(text)
                assert len(ids) == len(re.findall(r"\w+|[,?]", text))
                assert tokenizer.decode(ids) == text


def test_the_vocabulary_has_no_unused_word():
    source = ShapesData(split="recombination", size=1500, questions=9).open()
    texts = [
        text
        for index in range(len(source))
        for annotation in source[index].annotations
        for text in (*annotation.texts, annotation.question or "")
    ]
    used = set(re.findall(r"[a-z]+", " ".join(texts)))
    words = {word for word in vocabulary() if re.fullmatch("[a-z]{2,}", word)}
    assert words - used == set()


def test_captions_name_all_actions():
    captions = " ".join(describe_story(make_story(Random(seed))) for seed in range(500))
    assert all(action in captions for action in (*ACTIONS, STAY))


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789 ,.?!'-:", max_size=40))
def test_any_plain_text_can_be_spelled(text):
    tokenizer = Tokenizer.from_vocab(vocabulary())
    assert tokenizer.token_id("[UNK]") not in tokenizer.encode(text)
