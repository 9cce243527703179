"""A model on a data set."""

import dataclasses
from collections.abc import Iterator, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_captioner import WORDS, exact_captioner, picture
from tiny import tiny_model

from git_model import Captioner, DecodingOptions
from git_model import captioner as speaker
from git_model.config import PreprocessConfig
from git_model.data.example import Annotation, Example
from git_model.data.webdataset import Sealed
from git_model.evaluation.run import BrokenSamples, predict, ranks, writes
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.utils.errors import GITError

CAPTION = Annotation(("word1", "word2"))


def question(text: str, key: str = "") -> Annotation:
    return Annotation(("word3",), text, key)


class Listed:
    """Examples in memory; those that are None are broken."""

    def __init__(self, examples: Sequence[Example | None]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        found = self.examples[index]
        if found is None:
            raise GITError(f"{index}.png: broken")
        return found


class Streamed(Listed):
    """The same one after the other, without numbers."""

    def stream(self, epoch: int, seed: int, reader: int, n_readers: int) -> Iterator[Sealed]:
        for index in range(reader, len(self.examples), n_readers):
            yield lambda index=index: self[index]


@pytest.fixture(scope="module")
def git() -> Captioner:
    """In float64, its pictures of different shapes: as in the microsoft style for questions."""
    git = exact_captioner()
    sizes = PreprocessConfig(short_side=16, long_side_max=32, crop=None)
    git.model.config = dataclasses.replace(git.model.config, preprocess=sizes)
    return git


SIZES = [(16, 16), (32, 16), (16, 32), (16, 16)]


def example(number: int, *targets: Annotation) -> Example:
    return Example(f"{number}.png", picture(number, SIZES[number % 4]), targets)


ASKED = [
    example(0, CAPTION),
    example(1, CAPTION, question("word4 word5", "a"), question("word6", "b")),
    example(2),
    example(3, question("word7 word8 word9")),
    example(4, question("word4"), CAPTION, question("word5")),
    example(5, CAPTION),
]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 7), st.permutations(range(6)), st.sampled_from([1, 3]), st.integers(1, 4))
def test_what_is_said_does_not_depend_on_what_is_read_and_asked_together(
    size: int, order: list[int], beams: int, rows: int
) -> None:
    git = exact_captioner()
    sizes = PreprocessConfig(short_side=16, long_side_max=32, crop=None)
    git.model.config = dataclasses.replace(git.model.config, preprocess=sizes)
    options = DecodingOptions(num_beams=beams, max_new_tokens=6)
    expected = []
    for one in [ASKED[place] for place in order]:
        for target in one.annotations:
            view = git.see(one.media)
            if target.question is None:
                said = git.caption(view, options)
            else:
                said = git.ask(view, target.question, options)
            expected.append((one.key, target.key, target.question, said.text, said.logprob))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speaker, "ROWS", rows)
        source = Listed([ASKED[place] for place in order])
        found = predict(git, source, writes(git, options), batch_size=size)
    for one, (key, question_key, asked, text, logprob) in zip(found, expected, strict=True):
        assert (one.key, one.question_key, one.question, one.text) == (
            key, question_key, asked, text,
        )  # fmt: skip
        assert one.logprob == pytest.approx(logprob, abs=1e-5)


def test_a_picture_is_read_once_for_all_that_is_asked(
    git: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    monkeypatch.setattr(
        git.model, "see", lambda x, see=git.model.see: read.append(len(x)) or see(x)
    )
    predict(git, Listed(ASKED), writes(git), batch_size=4)
    assert sorted(read) == [1, 2, 3]  # by shape
    read.clear()
    predict(git, Listed(ASKED), writes(git), batch_size=2)
    assert sorted(read) == [1, 1, 2, 2]


def test_predictions_carry_the_answers(git: Captioner) -> None:
    found = predict(git, Listed(ASKED[:2]), writes(git))
    assert [one.answers for one in found] == [CAPTION.texts, CAPTION.texts, *[("word3",)] * 2]
    assert [one.task for one in found] == ["captions", "captions", "questions", "questions"]


def test_labels_are_ranked_as_by_the_captioner(git: Captioner) -> None:
    labels = [f"word{n}" for n in range(7)]
    found = predict(git, Listed(ASKED), ranks(git, labels, "word9 {}"), batch_size=3)
    assert [one.key for one in found] == [one.key for one in ASKED for _ in one.annotations]
    for one in found:
        view = next(other.media for other in ASKED if other.key == one.key)
        best = git.classify(view, labels, template="word9 {}", question=one.question)
        assert one.top == tuple(label.label for label in best[:5])
        assert (one.text, one.task) == (best[0].label, "labels")
        assert one.logprob == pytest.approx(best[0].logprob, abs=1e-5)


def test_broken_examples_are_left_out_and_named_up_to_a_limit(git: Captioner) -> None:
    flat = Example("flat.png", Image.new("RGB", (1000, 1)), (CAPTION,))
    silent = Example("silent.png", picture(0), (question("word1"), question(" ")))
    source = Listed([None, ASKED[0], silent, flat, ASKED[5]])
    broken = BrokenSamples(limit=3)
    found = predict(git, source, writes(git), broken=broken)
    assert [one.key for one in found] == ["0.png", "5.png"]
    assert [str(error).partition(" ")[0] for error in broken.errors] == [
        "0.png:", "silent.png:", "flat.png:",
    ]  # fmt: skip
    assert "the question ' ' is empty" in str(broken.errors[1])
    assert "1000 x 1 pixels would be resized to" in str(broken.errors[2])
    with pytest.raises(GITError, match=r"2 broken samples, expected at most 1; .* silent.png: the"):
        predict(git, source, writes(git), broken=BrokenSamples(limit=1))
    with pytest.raises(GITError, match=r"1 broken samples, expected at most 0; .* 0.png: broken"):
        predict(git, source, writes(git))


@pytest.mark.parametrize("source", [Listed([]), Listed([None]), Streamed([])])
def test_a_source_with_nothing_in_it_is_an_error(git: Captioner, source: Listed) -> None:
    with pytest.raises(GITError, match="there is no example that can be used"):
        predict(git, source, writes(git), broken=BrokenSamples(limit=1))


def test_a_stream_is_read_as_well_and_a_limit_is_kept(git: Captioner) -> None:
    listed, streamed = (
        predict(git, kind(ASKED), writes(git), limit=2) for kind in (Listed, Streamed)
    )
    assert listed == streamed
    assert {one.key for one in listed} == {"0.png", "1.png"}


def test_a_model_in_training_is_in_training_again(git: Captioner) -> None:
    modes = []
    for training in (True, False):
        git.model.train(training)
        predict(git, Listed(ASKED[:1]), lambda *_: modes.append(git.model.training) or [[]])
        assert git.model.training == training
    assert modes == [False, False]


def test_clips_are_read_as_clips() -> None:
    git = Captioner(tiny_model(frames=3).float(), Tokenizer.from_vocab(WORDS))
    frames = [picture(n) for n in range(3)]
    source = Listed([Example("a", frames, (CAPTION,)), Example("b", frames[:2], (CAPTION,))])
    found = predict(git, source, writes(git))
    assert [one.text for one in found] == [git.caption(view).text for view in (frames, frames[:2])]


def test_nothing_is_kept_for_gradients(git: Captioner) -> None:
    kept = []

    def say(scene, examples):
        kept.append(scene.layers[0].key.requires_grad)
        return [[] for _ in examples]

    with torch.enable_grad():
        predict(git, Listed(ASKED[:1]), say)
    assert kept == [False]
