"""Accuracy on questions, by the rules of the VQA challenge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_model.evaluation.vqa import MIN_ANSWERS, SPELLING, normalise, vqa_accuracy

# Recorded from the evaluation code of VQA v2.
NORMALISED = {
    "The dogs, two of them; they dont care.": "dogs 2 of them they don't care",
    "1,000": "1000",
    "3.5 inches": "3.5 inches",
    "yes/no": "yes no",
    "black-and-white": "black and white",
    "T-shirt, blue": "t shirt blue",  # the comma stands beside a space, the hyphen does not
    "U.S.A.": "usa",
    "$1,000.50 (approx.)": "$1000.50 approx",
    "1,000-yard": "1000yard",  # with a number like this all marks are removed
    "red,white": "red white",
    "Yes.": "yes",
    "its a man": "its man",
    "hes": "he's",
    "none": "0",
    "no one": "no 1",
    "twenty one": "twenty 1",
    "a": "",
    '"stop"': "stop",
    "what?": "what",
    "8:00": "8:00",
    "st. george's": "st george's",
    "yall'd've": "y'all'd've",
    "somebody'd": "somebodyd",  # the only reversed entry of its table
    "100%": "100%",
    "1.": "1",
}


@pytest.mark.parametrize(("answer", "expected"), NORMALISED.items())
def test_answers_are_normalised_as_by_the_challenge(answer: str, expected: str) -> None:
    assert normalise(answer) == expected


def test_the_table_of_contractions_has_the_length_of_the_originals() -> None:
    # 120 there: 2 change nothing, and 4 never match, since they have capitals
    assert len(SPELLING) == 114
    assert SPELLING["couldnt've"] == SPELLING["couldn'tve"] == "couldn't've"
    assert "couldntve" not in SPELLING


@pytest.mark.parametrize(
    ("same", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)]
)
def test_an_answer_is_right_by_how_many_of_ten_people_agree(same: int, expected: float) -> None:
    answers = ["red"] * same + ["blue"] * (10 - same)
    assert vqa_accuracy("red", answers) == pytest.approx(expected)


def test_answers_are_normalised_only_where_people_differ() -> None:
    assert vqa_accuracy("2", ["two"] * 10) == 0
    assert vqa_accuracy("2", ["two"] * 9 + ["three"]) == 1
    assert vqa_accuracy(" two\n", ["two"] * 10) == 1


def test_with_too_few_answers_no_answer_has_accuracy_one() -> None:
    assert vqa_accuracy("red", ["red"]) == 0
    assert vqa_accuracy("red", ["red"] * (MIN_ANSWERS - 1)) < 1
    assert vqa_accuracy("red", ["red"] * MIN_ANSWERS) == 1


@given(st.text(), st.lists(st.text(), min_size=1, max_size=10), st.randoms())
def test_accuracy_is_a_share_and_does_not_depend_on_the_order(answer: str, answers, rng) -> None:
    value = vqa_accuracy(answer, answers)
    assert 0 <= value <= 1
    assert vqa_accuracy(answer, rng.sample(answers, len(answers))) == value


@given(st.text(), st.integers(MIN_ANSWERS, 10))
def test_the_answer_of_all_people_has_accuracy_one(answer: str, people: int) -> None:
    assert vqa_accuracy(answer, [answer] * people) == 1
