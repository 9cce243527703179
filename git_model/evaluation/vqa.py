"""Accuracy on questions as the VQA challenge counts it.

The rules are those of the VQA v2 evaluation code (GT-Vision-Lab/VQA, vqaEval.py, its last version),
oddities and all: what is tidied, and what a word becomes, decides a point or two of the score.
"""

import re
from collections.abc import Sequence

LEAST = 4  # answers of a question, for with fewer even the right one is not fully right

MARKS = ';/[]"{}()=+\\_-><@`,?!'
ARTICLES = ("a", "an", "the")
NUMBERS = "zero one two three four five six seven eight nine ten"
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


def _misspelt(word: str) -> list[str]:
    """A contraction without one of its apostrophes, each in turn."""
    return [word[:i] + word[i + 1 :] for i, letter in enumerate(word) if letter == "'"]


# The original's table, which has one entry the wrong way round.
SPELLING = {wrong: word for word in CONTRACTIONS.split() for wrong in _misspelt(word)}
SPELLING["somebody'd"] = "somebodyd"
DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(NUMBERS.split())}


def vqa_accuracy(answer: str, answers: Sequence[str]) -> float:
    """How right an answer is, from 0 to 1, given what several people said.

    It is right to a third for each person who said the same, at most to 1; the mean over all ways
    to leave one person out, as a person's own answer would be judged. Only where people differ
    are answers normalised.

    Args:
        answers: one a person; VQAv2 has ten. A single one never agrees with another, so that
            nothing can be right; see `LEAST`.
    """
    answer, answers = _tidy(answer), [_tidy(other) for other in answers]
    if len(set(answers)) > 1:
        answer, answers = normalise(answer), [normalise(other) for other in answers]
    same, n = answers.count(answer), len(answers)
    if not same:
        return 0.0
    without_one_of_them = same * min(1, (same - 1) / 3)
    without_another = (n - same) * min(1, same / 3)
    return (without_one_of_them + without_another) / n


def normalise(answer: str) -> str:
    """An answer without marks and articles, in lower case, with digits and apostrophes.

    >>> normalise("The dogs, two of them; they dont care.")
    "dogs 2 of them they don't care"
    """
    words = _without_marks(answer).lower().split()
    words = [DIGITS.get(word, word) for word in words]
    return " ".join(SPELLING.get(word, word) for word in words if word not in ARTICLES)


def _tidy(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


def _without_marks(text: str) -> str:
    """Marks beside a space vanish, and so do all in a text with a number like 1,000; others become
    a space. Full stops vanish, save decimal points."""
    number, tidied = re.search(r"\d,\d", text), text
    for mark in MARKS:
        beside_space = f"{mark} " in text or f" {mark}" in text
        tidied = tidied.replace(mark, "" if beside_space or number else " ")
    # the original passes the flag re.UNICODE where the number of stops to take goes: 32
    return re.sub(r"\.(?!\d)", "", tidied, count=32)
