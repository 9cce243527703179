"""Texts to words, in Python and in Java."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_model.evaluation import coco_tools
from git_model.evaluation.words import split_words

# As the Penn Treebank's tokenizer does it, without punctuation; the Java test below holds it.
SPLIT = {
    "A man riding a wave on top of a surfboard.": "a man riding a wave on top of a surfboard",
    "It's a café, isn't it?": "it 's a café is n't it",
    "the dogs' toys; a girl's": "the dogs toys a girl 's",
    "He can't, she cannot, they don\u2019t": "he ca n't she can not they do n't",
    "a close-up of a T-shirt and/or 2-year-old": "a close-up of a t-shirt and/or 2-year-old",
    "at 10:30 a.m., $5 or 50% of 1,000": "at 10:30 a.m. $ 5 or 50 % of 1,000",
    "Mr. Smith (left) in the U.S. -- no. 7": "mr. smith -lrb- left -rrb- in the u.s. no. 7",
    '"stop" \u201cgo\u201d ... end': "stop go end",
    "red,white & blue; five o'clock!": "red white & blue five o'clock",
    "": "",
}


@pytest.mark.parametrize(("text", "words"), SPLIT.items())
def test_python_splits_everyday_captions_as_the_treebank(text: str, words: str) -> None:
    assert split_words([text]) == [words.split()]


@given(st.lists(st.text()))
def test_any_text_gives_words_without_spaces(texts: list[str]) -> None:
    found = split_words(texts)
    assert len(found) == len(texts)
    assert all(word.split() == [word] for words in found for word in words)


@pytest.mark.skipif(coco_tools.lacking() is not None, reason=f"needs {coco_tools.lacking()}")
def test_java_splits_them_so_as_well() -> None:
    assert coco_tools.ptb_words(list(SPLIT)) == [words.split() for words in SPLIT.values()]
