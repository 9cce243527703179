"""Each question is parsed here and answered from the bare numbers of the world, independently of
the code that made it: there must be exactly one right answer, and it must be the question's."""

import re
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_model.shapes.clips import Story, make_story
from git_model.shapes.questions import Question, ask_about, ask_about_story
from git_model.shapes.texts import NUMBER_WORDS
from git_model.shapes.world import (
    COLOURS,
    NEW_APPEARANCES,
    OUTLINES,
    POSITIONS,
    Thing,
    make_close_up,
    make_world,
)

ALL = 99  # more than there are kinds
seeds = st.integers(0, 10**9)
splits = st.sampled_from(["train", "held_out", "recombination"])
COLOUR, SHAPE = f"({'|'.join(COLOURS)})", f"({'|'.join(OUTLINES)})"
APPEARANCE = f"{COLOUR} {SHAPE}"
SIDES = {"to the left of": (-1, 0), "to the right of": (1, 0), "above": (0, -1), "below": (0, 1)}


def name_of(thing: Thing) -> str:
    return f"{'an' if thing.colour == 'orange' else 'a'} {thing.colour} {thing.shape}"


def has(thing: Thing, words: tuple[str, ...]) -> bool:
    return all(word in (thing.colour, thing.shape) for word in words)


def cell_of(thing: Thing) -> tuple[int, int]:
    return int(thing.x * 3 // 64), int(thing.y * 3 // 64)


def at_side(thing: Thing, other: Thing, side: str) -> bool:
    """Whether the other thing stands on that side, in the same row or column."""
    (x, y), (other_x, other_y), (step_x, step_y) = cell_of(thing), cell_of(other), SIDES[side]
    steps = [(x + n * step_x, y + n * step_y) for n in (1, 2)]
    return (other_x, other_y) in steps


def right_answers(text: str, things: tuple[Thing, ...]) -> list[str]:
    """All right answers to a question about an image, one for each thing that gives one."""

    def match_of(pattern: str) -> tuple[str, ...]:
        match = re.fullmatch(pattern, text)
        return match.groups() if match else ()

    if words := match_of(rf"what colour is the {SHAPE}\?"):
        return [t.colour for t in things if has(t, words)]
    if words := match_of(rf"what shape is the {COLOUR} thing\?"):
        return [t.shape for t in things if has(t, words)]
    if words := match_of(rf"where is the {APPEARANCE}\?"):
        return [POSITIONS[3 * cell_of(t)[1] + cell_of(t)[0]] for t in things if has(t, words)]
    if words := match_of(rf"is there an? {APPEARANCE}\?"):
        return ["yes" if any(has(t, words) for t in things) else "no"]
    if words := match_of(rf"how many {SHAPE}e?s are there\?") or match_of(
        rf"how many {COLOUR} things are there\?"
    ):
        return [NUMBER_WORDS[sum(has(t, words) for t in things)]]
    if text == "how many things are there?":
        return [NUMBER_WORDS[len(things)]]
    if words := match_of(rf"what is ({'|'.join(SIDES)}) the {APPEARANCE}\?"):
        references = [t for t in things if has(t, words[1:])]
        return [name_of(o) for t in references for o in things if at_side(t, o, words[0])]
    if words := match_of(rf"which is larger, the {APPEARANCE} or the {APPEARANCE}\?"):
        pair = [t for kind in (words[:2], words[2:]) for t in things if has(t, kind)]
        assert len(pair) == 2
        largest = max(t.radius for t in pair)
        assert largest > 1.5 * min(t.radius for t in pair)
        return [f"the {t.colour} {t.shape}" for t in pair if t.radius == largest]
    if words := match_of(rf"what is ({'|'.join(sorted(POSITIONS, key=len, reverse=True))})\?"):
        return [
            name_of(t) for t in things if POSITIONS[3 * cell_of(t)[1] + cell_of(t)[0]] == words[0]
        ]
    raise AssertionError(f"an unknown question: {text}")


def right_answers_of(text: str, story: Story) -> list[str]:
    """The same for a clip."""
    actions_of = {a.appearance: [action for action in a.actions if action] for a in story.actors}
    assert len(actions_of) == len(story.actors)
    order = sorted(
        (part, f"{'an' if a.appearance[0] == 'orange' else 'a'} {' '.join(a.appearance)} {action}")
        for a in story.actors
        for part, action in enumerate(a.actions)
        if action
    )

    def match_of(pattern: str) -> tuple[str, ...]:
        match = re.fullmatch(pattern, text)
        return match.groups() if match else ()

    if words := match_of(rf"what does the {APPEARANCE} do\?"):
        return actions_of[words]
    if words := match_of(rf"what does the {APPEARANCE} do (first|last)\?"):
        return [actions_of[words[:2]][0 if words[2] == "first" else 1]]
    if words := match_of(rf"which way does the {APPEARANCE} move\?"):
        moves = [action for action in actions_of[words] if action.startswith("moves")]
        return [move.split()[1] for move in moves]
    if words := match_of(r"what (colour|shape) is the thing that (.+)\?"):
        part = 0 if words[0] == "colour" else 1
        return [
            kind[part]
            for kind, actions in actions_of.items()
            for _ in range(actions.count(words[1]))
        ]
    if words := match_of(r"what happens (first|last)\?"):
        assert len({part for part, _ in order}) == 2
        return [order[0 if words[0] == "first" else 1][1]]
    if words := match_of(rf"does the {APPEARANCE} (\w+)( \w+)?\?"):
        action = f"{words[2]}s{words[3] or ''}"
        return ["yes" if action in actions_of[words[:2]] else "no"]
    raise AssertionError(f"an unknown question: {text}")


@given(seeds, splits, st.sampled_from([make_world, make_close_up]))
def test_every_question_about_an_image_has_one_right_answer(seed, split, make):
    world = make(Random(seed), split)
    for question in ask_about(world, Random(seed), ALL):
        assert right_answers(question.text, world.things) == [question.answer]


@given(seeds, splits)
def test_every_question_about_a_clip_has_one_right_answer(seed, split):
    story = make_story(Random(seed), split)
    for question in ask_about_story(story, Random(seed), ALL):
        assert right_answers_of(question.text, story) == [question.answer]


@given(seeds, st.integers(1, 5))
def test_the_questions_are_of_different_kinds(seed, n):
    questions = ask_about(make_world(Random(seed)), Random(seed), n)
    assert len({question.kind for question in questions}) == len(questions) <= n
    assert len(questions) >= min(n, 3)


@given(seeds)
def test_no_question_about_a_close_up_is_about_positions(seed):
    questions = ask_about(make_close_up(Random(seed)), Random(seed), ALL)
    assert questions
    assert all(question.kind != "position" for question in questions)


def many_questions(n: int = 3000) -> list[Question]:
    rng, questions = Random(0), []
    for _ in range(n):
        questions += ask_about(make_world(rng), rng, ALL)
        questions += ask_about_story(make_story(rng), rng, ALL)
    return questions


def test_no_answer_can_be_guessed():
    answers: dict[str, Counter[str]] = {}
    for question in many_questions():
        answers.setdefault(question.kind, Counter())[question.answer] += 1
    share = {kind: max(counts.values()) / counts.total() for kind, counts in answers.items()}
    assert sum(answers["count"].values()) > 1000
    assert set(answers["count"]) == set(NUMBER_WORDS)
    assert {kind: highest for kind, highest in share.items() if highest > 0.4} == {
        "presence": pytest.approx(0.5, abs=0.03),
        "occurrence": pytest.approx(0.5, abs=0.03),
    }


def test_no_question_of_training_names_a_new_appearance():
    new = {" ".join(appearance) for appearance in NEW_APPEARANCES}
    texts = [f"{question.text} {question.answer}" for question in many_questions(2000)]
    assert [text for text in texts if any(name in text for name in new)] == []
