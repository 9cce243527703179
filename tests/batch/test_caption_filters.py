"""Filters on captions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_model.batch.caption_filters import CaptionFilters, Mode, RecordEditor
from git_model.utils.errors import ConfigError

NO_WRITING = CaptionFilters(remove_words=True)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a book cover with the words the art of war on it", "a book cover"),
        ('a poster with the words " hello world " on it', "a poster"),
        ('a poster with the words " hello world', "a poster"),
        ("a can of soda with the word coke on it", "a can of soda"),
        ("a man with the number 3 on his shirt", "a man"),
        ("a man with the number 3 on his shirt and a dog", "a man and a dog"),
        ("a ship that has the name queen mary on the side of it", "a ship"),
        ("a sign that says no parking", "a sign"),
        ("a sign that says no parking, next to a road", "a sign, next to a road"),
        ("a woman with a sign that says ' i'm here '", "a woman"),
        ("a woman with a red sign that says stop in her hand", "a woman"),
        ("a mug which reads best dad ever", "a mug"),
        ("a shirt that says the word love on it", "a shirt"),
        ("two boxes and the letters abc on the front, from above", "two boxes, from above"),
        ("a cake with the words happy birthday and two candles", "a cake and two candles"),
        ("a bottle with a label that says wine on a table", "a bottle"),
        ('a dog saying " woof "', "a dog"),
        ("a jersey with the number 10 with the name messi on it", "a jersey"),
    ],
)  # fmt: skip
def test_phrases_on_writing_are_removed(caption: str, expected: str) -> None:
    assert NO_WRITING.clean(caption) == expected
    assert CaptionFilters().clean(caption) == caption


@pytest.mark.parametrize(
    "text",
    [
        "a man reading a book that is open",
        "a letter on the table",
        "two signs and a number of cars",
        "a bus and the number of its line",
        "a dog that has a red collar",
        "the name of the rose",
        "a woman with a title belt",
        "",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert NO_WRITING.clean(text) == text


PIECES = ["a cat", "with the words", "that says", '"', "'", "hello", "on it", ",", "and", "with",
          "the number", "3", "a sign", "stop", "in his hand", "has the name", "."]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join))
def test_cleaning_twice_is_cleaning_once_and_leaves_nothing_dangling(text: str) -> None:
    once = NO_WRITING.clean(text)
    assert NO_WRITING.clean(once) == once
    if once != text:
        assert once == " ".join(once.split())
        assert not once.endswith((",", " with", " and", " that"))
        assert " ," not in once


def test_phrases_are_removed_as_words_in_any_case() -> None:
    filters = CaptionFilters(remove=("arafed", "in the background"))
    assert filters.clean("Arafed man, with a hill in the background") == "man, with a hill"
    assert filters.clean("unarafed men") == "unarafed men"


@given(st.text(max_size=20), st.text(min_size=1, max_size=5))
def test_a_phrase_is_a_text_and_no_pattern(text: str, phrase: str) -> None:
    if phrase.strip():
        cleaned = CaptionFilters(remove=(phrase,)).clean(f"{text} {phrase} end")
        assert cleaned.endswith("end") or "end".startswith(phrase.strip().lower()) or cleaned == ""


def test_words_are_put_around_a_text() -> None:
    filters = CaptionFilters(trigger="sks", prefix="photo of ", postfix=", 4k")
    assert filters.frame("a cat") == "sks, photo of a cat, 4k"
    assert CaptionFilters().frame("a cat") == "a cat"


def test_only_the_models_own_words_are_counted() -> None:
    filters = CaptionFilters(min_words=2, max_words=3, prefix="one two three four ")
    assert filters.fault("cat") == "1 word, expected at least 2"
    assert filters.fault("a cat") is None
    assert filters.fault("a cat on a mat") == "5 words, expected at most 3"
    assert CaptionFilters().fault("") == "0 words, expected at least 1"


def test_settings_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least min_words, 5"):
        CaptionFilters(min_words=5, max_words=4)
    with pytest.raises(ConfigError, match="is empty"):
        CaptionFilters(remove=(" ",))


@pytest.mark.parametrize("mode", ["append", "prepend"])
@pytest.mark.parametrize("separator", ["\n", ", "])
@given(
    old=st.text("ab, \n", min_size=1, max_size=12).filter(str.strip),
    texts=st.lists(
        st.text("xy ", min_size=1, max_size=5).filter(str.strip), min_size=1, max_size=4
    ),
)
def test_several_texts_are_joined_to_the_old_one_once(
    mode: Mode, separator: str, old: str, texts: list[str]
) -> None:
    """A run that was killed when it was complete begins anew, with the joined texts as the old."""
    editor = RecordEditor(mode=mode, multiple=True)
    joined = editor._joined(texts, old)
    assert len(joined) == len(texts)
    for text, addition in zip(joined, texts, strict=True):
        expected = f"{old}, {addition}" if mode == "append" else f"{addition}, {old}"
        assert text == expected or old in (separator.join(texts), "\n".join(texts))
    assert editor._joined(texts, separator.join(joined)) == joined


def test_texts_without_an_old_one_are_no_addition_to_themselves() -> None:
    editor = RecordEditor(mode="append", multiple=True)
    assert editor._joined(["a cat", "a dog"], "a cat\na dog") == ["a cat", "a dog"]
    assert editor._joined(["a cat", "a dog"], None) == ["a cat", "a dog"]
