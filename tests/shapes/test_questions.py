"""Each question is read again here and answered from the bare numbers of the world, in another way
than it was made: it must have one right answer, and that must be the one given."""

import re
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_model.shapes.clips import Story, make_story
from git_model.shapes.questions import Question, ask_about, ask_about_story
from git_model.shapes.texts import NUMBERS
from git_model.shapes.world import (
    COLOURS,
    NEW_LOOKS,
    OUTLINES,
    PLACES,
    Thing,
    make_close_up,
    make_world,
)

ALL = 99  # more than there are kinds
seeds = st.integers(0, 10**9)
splits = st.sampled_from(["train", "held_out", "recombination"])
COLOUR, SHAPE = f"({'|'.join(COLOURS)})", f"({'|'.join(OUTLINES)})"
LOOK = f"{COLOUR} {SHAPE}"
SIDES = {"to the left of": (-1, 0), "to the right of": (1, 0), "above": (0, -1), "below": (0, 1)}


def named(thing: Thing) -> str:
    return f"{'an' if thing.colour == 'orange' else 'a'} {thing.colour} {thing.shape}"


def has(thing: Thing, words: tuple[str, ...]) -> bool:
    return all(word in (thing.colour, thing.shape) for word in words)


def where(thing: Thing) -> tuple[int, int]:
    return int(thing.x * 3 // 64), int(thing.y * 3 // 64)


def at_side(thing: Thing, other: Thing, side: str) -> bool:
    """Whether the other thing stands on that side, in the same row or column."""
    (x, y), (other_x, other_y), (way_x, way_y) = where(thing), where(other), SIDES[side]
    steps = [(x + n * way_x, y + n * way_y) for n in (1, 2)]
    return (other_x, other_y) in steps


def right_answers(text: str, things: tuple[Thing, ...]) -> list[str]:
    """All right answers to a question about a picture, a word for each thing that gives one."""

    def asks(pattern: str) -> tuple[str, ...]:
        match = re.fullmatch(pattern, text)
        return match.groups() if match else ()

    if words := asks(rf"what colour is the {SHAPE}\?"):
        return [t.colour for t in things if has(t, words)]
    if words := asks(rf"what shape is the {COLOUR} thing\?"):
        return [t.shape for t in things if has(t, words)]
    if words := asks(rf"where is the {LOOK}\?"):
        return [PLACES[3 * where(t)[1] + where(t)[0]] for t in things if has(t, words)]
    if words := asks(rf"is there an? {LOOK}\?"):
        return ["yes" if any(has(t, words) for t in things) else "no"]
    if words := asks(rf"how many {SHAPE}e?s are there\?") or asks(
        rf"how many {COLOUR} things are there\?"
    ):
        return [NUMBERS[sum(has(t, words) for t in things)]]
    if text == "how many things are there?":
        return [NUMBERS[len(things)]]
    if words := asks(rf"what is ({'|'.join(SIDES)}) the {LOOK}\?"):
        known = [t for t in things if has(t, words[1:])]
        return [named(o) for t in known for o in things if at_side(t, o, words[0])]
    if words := asks(rf"which is larger, the {LOOK} or the {LOOK}\?"):
        pair = [t for look in (words[:2], words[2:]) for t in things if has(t, look)]
        assert len(pair) == 2
        most = max(t.radius for t in pair)
        assert most > 1.5 * min(t.radius for t in pair)
        return [f"the {t.colour} {t.shape}" for t in pair if t.radius == most]
    if words := asks(rf"what is ({'|'.join(sorted(PLACES, key=len, reverse=True))})\?"):
        return [named(t) for t in things if PLACES[3 * where(t)[1] + where(t)[0]] == words[0]]
    raise AssertionError(f"an unknown question: {text}")


def right_answers_of(text: str, story: Story) -> list[str]:
    """The same for a clip."""
    told = [(*actor.look, [act for act in actor.acts if act]) for actor in story.actors]
    order = sorted(
        (part, f"{'an' if a.look[0] == 'orange' else 'a'} {' '.join(a.look)} {act}")
        for a in story.actors
        for part, act in enumerate(a.acts)
        if act
    )

    def asks(pattern: str) -> tuple[str, ...]:
        match = re.fullmatch(pattern, text)
        return match.groups() if match else ()

    if words := asks(rf"what does the {LOOK} do\?"):
        return [act for *look, acts in told if tuple(look) == words for act in acts]
    if words := asks(rf"what does the {LOOK} do (first|last)\?"):
        [acts] = [acts for *look, acts in told if tuple(look) == words[:2]]
        return [acts[0 if words[2] == "first" else 1]]
    if words := asks(rf"which way does the {LOOK} move\?"):
        [acts] = [acts for *look, acts in told if tuple(look) == words]
        return [act.split()[1] for act in acts if act.startswith("moves")]
    if words := asks(r"what (colour|shape) is the thing that (.+)\?"):
        part = 0 if words[0] == "colour" else 1
        return [look[part] for *look, acts in told for act in acts if act == words[1]]
    if words := asks(r"what happens (first|last)\?"):
        assert len({part for part, _ in order}) == 2
        return [order[0 if words[0] == "first" else 1][1]]
    if words := asks(rf"does the {LOOK} (\w+)( \w+)?\?"):
        [acts] = [acts for *look, acts in told if tuple(look) == words[:2]]
        return ["yes" if f"{words[2]}s{words[3] or ''}" in acts else "no"]
    raise AssertionError(f"an unknown question: {text}")


@given(seeds, splits, st.sampled_from([make_world, make_close_up]))
def test_every_question_about_a_picture_has_one_right_answer(seed, split, make):
    world = make(Random(seed), split)
    for question in ask_about(world, Random(seed), ALL):
        assert right_answers(question.text, world.things) == [question.answer]


@given(seeds, splits)
def test_every_question_about_a_clip_has_one_right_answer(seed, split):
    story = make_story(Random(seed), split)
    for question in ask_about_story(story, Random(seed), ALL):
        assert right_answers_of(question.text, story) == [question.answer]


@given(seeds, st.integers(1, 5))
def test_each_question_is_of_another_kind(seed, n):
    questions = ask_about(make_world(Random(seed)), Random(seed), n)
    assert len({question.kind for question in questions}) == len(questions) <= n
    assert len(questions) >= min(n, 3)


@given(seeds)
def test_a_close_up_is_not_asked_for_its_place(seed):
    assert all(q.kind != "place" for q in ask_about(make_close_up(Random(seed)), Random(seed), ALL))


def asked(n: int = 3000) -> list[Question]:
    rng, found = Random(0), []
    for _ in range(n):
        found += ask_about(make_world(rng), rng, ALL)
        found += ask_about_story(make_story(rng), rng, ALL)
    return found


def test_no_answer_can_be_guessed():
    answers: dict[str, Counter[str]] = {}
    for question in asked():
        answers.setdefault(question.kind, Counter())[question.answer] += 1
    share = {kind: max(found.values()) / found.total() for kind, found in answers.items()}
    assert sum(answers["count"].values()) > 1000
    assert set(answers["count"]) == set(NUMBERS)
    assert {kind: most for kind, most in share.items() if most > 0.4} == {
        "presence": pytest.approx(0.5, abs=0.03),
        "whether": pytest.approx(0.5, abs=0.03),
    }


def test_no_question_of_training_names_a_new_look():
    new = {" ".join(look) for look in NEW_LOOKS}
    texts = [f"{question.text} {question.answer}" for question in asked(2000)]
    assert [text for text in texts if any(look in text for look in new)] == []
