"""The report on a data set, and vocabularies."""

from random import Random

import pytest
from stored_examples import png, stored_example

from git_model.data.example import Annotation, StoredExample
from git_model.data.inspection import inspect
from git_model.data.vocabulary import train_vocabulary
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.utils.errors import GITError

TEXTS = ["a cat on a mat", "a cat on the mat", "two cats", "the mats and the cats"] * 3


def raising() -> StoredExample:
    raise GITError("row 5 is damaged")


def report(*examples, tokenizer=None):
    return inspect([*((lambda item=item: item) for item in examples), raising], tokenizer)


def test_a_report_counts_and_names_what_is_wrong():
    result = report(
        stored_example("a", 1, Annotation(("A cat.", "the cat"))),
        stored_example("b", 1, Annotation(("a dog",)), Annotation(("two", "2"), "how many?")),
        stored_example("c", 2, Annotation(())),
        StoredExample("d", "file d", png(3)[:30], (Annotation(("x",)),)),
    )
    assert result["examples"] == 3
    assert result["unreadable"]["count"] == 2
    assert result["unreadable"]["first"][0].startswith("file d: ")
    assert result["unreadable"]["first"][1] == "row 5 is damaged"
    assert result["formats"] == {"PNG": 3}
    assert result["width"] == {"min": 4, "median": 4, "p95": 4, "max": 4}
    assert result["height"]["max"] == 3
    assert result["identical_images"] == {"count": 1, "first": ["a = b"]}
    assert result["captions"] == 3
    assert result["captions_per_image"] == {"min": 0, "median": 1, "p95": 2, "max": 2}
    assert result["images_without_caption"] == 1
    assert result["near_duplicate_captions"] == {"count": 1, "first": ["A cat. = the cat"]}
    assert (result["questions"], result["answers"]) == (1, 2)
    # a cat . | the cat | a dog | how many ? | two | 2
    assert result["words_per_text"] == {"min": 1, "median": 2, "p95": 3, "max": 3}
    assert "unknown_words" not in result


def test_identical_images_may_have_one_key_but_not_one_place():
    first, second, other = (
        StoredExample(key, where, png(1), ())
        for key, where in (("7", "x: row 1"), ("7", "x: row 2"), ("8", "x: row 3"))
    )
    result = report(first, second, other, first)  # a mixture may repeat the first
    assert result["identical_images"] == {"count": 2, "first": ["x: row 1 = x: row 2", "7 = 8"]}


def test_a_report_says_which_words_a_vocabulary_lacks():
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "##s"]
    result = report(
        stored_example("a", 1, Annotation(("a cat", "a dog", "cats"))),
        tokenizer=Tokenizer.from_vocab(tokens),
    )
    assert result["unknown_words"] == {"count": 1, "first": ["dog"]}
    assert result["unknown_share"] == 1 / 5
    assert result["split_share"] == 1 / 5
    assert result["tokens_per_text"]["max"] == 2


def test_a_vocabulary_spells_every_word_and_depends_on_the_texts_alone():
    tokenizer = train_vocabulary(TEXTS, 40)
    texts = TEXTS[:]
    Random(1).shuffle(texts)
    assert train_vocabulary(texts, 40).vocabulary() == tokenizer.vocabulary()
    assert tokenizer.vocabulary().keys() >= {"cat", "the", "[MASK]"}
    assert len(tokenizer) <= 40
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.token_id("[PAD]") == 0


def test_a_vocabulary_without_words_or_place_for_its_letters_is_refused():
    with pytest.raises(GITError, match="no words"):
        train_vocabulary([" "], 40)
    with pytest.raises(GITError, match=r"size is 6, .* make \d+ tokens"):
        train_vocabulary(TEXTS, 6)
