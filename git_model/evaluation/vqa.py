"""The accuracy of the VQA challenge.

The rules are those of the VQA v2 evaluation code (GT-Vision-Lab/VQA, vqaEval.py, its last version),
peculiarities included: the normalisation of answers decides a point or two of the score.
"""

import re
from collections.abc import Sequence

MIN_ANSWERS = 4  # of a question; with fewer no answer can have accuracy 1

MARKS = ';/[]"{}()=+\\_-><@`,?!'
ARTICLES = ("a", "an", "the")
NUMERALS = "zero one two three four five six seven eight nine ten"
CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't
    mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've
    should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've
    someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't
    what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's
    who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd
    you'd've you'll you're you've
"""


def _misspellings(word: str) -> list[str]:
    """A contraction without one of its apostrophes, each in turn."""
    return [word[:i] + word[i + 1 :] for i, letter in enumerate(word) if letter == "'"]


# The original's table, in which one entry is reversed.
SPELLING = {wrong: word for word in CONTRACTIONS.split() for wrong in _misspellings(word)}
SPELLING["somebody'd"] = "somebodyd"
DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(NUMERALS.split())}


def vqa_accuracy(answer: str, answers: Sequence[str]) -> float:
    """The accuracy of an answer, from 0 to 1, given the answers of several people.

    An answer gets a third for each person who gave the same answer, at most 1. The result is the
    mean over all ways to leave one person out, so that a person's answer can be compared with those
    of the others. Answers are normalised only if people differ.

    Args:
        answers: one for each person; VQAv2 has ten. See `MIN_ANSWERS`.
    """
    answer, answers = _clean(answer), [_clean(other) for other in answers]
    if len(set(answers)) > 1:
        answer, answers = normalise(answer), [normalise(other) for other in answers]
    n_same, n = answers.count(answer), len(answers)
    if not n_same:
        return 0.0
    same_left_out = n_same * min(1, (n_same - 1) / 3)
    other_left_out = (n - n_same) * min(1, n_same / 3)
    return (same_left_out + other_left_out) / n


def normalise(answer: str) -> str:
    """An answer without punctuation and articles, in lower case, with digits and apostrophes.

    >>> normalise("The dogs, two of them; they dont care.")
    "dogs 2 of them they don't care"
    """
    words = _without_punctuation(answer).lower().split()
    words = [DIGITS.get(word, word) for word in words]
    return " ".join(SPELLING.get(word, word) for word in words if word not in ARTICLES)


def _clean(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


def _without_punctuation(text: str) -> str:
    """A mark that stands beside a space anywhere is removed, and so is every mark in a text with a
    number like 1,000; others become a space. Full stops are removed, except decimal points."""
    has_number, result = re.search(r"\d,\d", text), text
    for mark in MARKS:
        beside_space = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if beside_space or has_number else " ")
    # The original passes the flag re.UNICODE, which is 32, in the place of `count`.
    return re.sub(r"\.(?!\d)", "", result, count=32)
