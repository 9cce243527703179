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
from git_model import captioner as captioner_module
from git_model.config import PreprocessConfig
from git_model.data.example import Annotation, BrokenExamples, Example, OpenExample
from git_model.evaluation.run import label_predictor, predict, text_predictor
from git_model.preprocessing.inputs import Frames
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.utils.errors import GITError

CAPTION = Annotation(("word1", "word2"))


def question(text: str, key: str = "") -> Annotation:
    return Annotation(("word3",), text, key)


class ListSource:
    """Examples in memory; None stands for one that cannot be read."""

    def __init__(self, examples: Sequence[Example | None]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        example = self.examples[index]
        if example is None:
            raise GITError(f"{index}.png: broken")
        return example


class ListStream(ListSource):
    """The same as a stream."""

    def stream(self, epoch: int, seed: int, reader: int, n_readers: int) -> Iterator[OpenExample]:
        for index in range(reader, len(self.examples), n_readers):
            yield lambda index=index: self[index]


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    """In float64, for images of different shapes: as in the microsoft style for questions."""
    return uncropped_captioner()


def uncropped_captioner() -> Captioner:
    captioner = exact_captioner()
    sizes = PreprocessConfig(short_side=16, long_side_max=32, crop=None)
    captioner.model.config = dataclasses.replace(captioner.model.config, preprocess=sizes)
    return captioner


SIZES = [(16, 16), (32, 16), (16, 32), (16, 16)]


def example(number: int, *annotations: Annotation) -> Example:
    return Example(f"{number}.png", picture(number, SIZES[number % 4]), annotations)


EXAMPLES = [
    example(0, CAPTION),
    example(1, CAPTION, question("word4 word5", "a"), question("word6", "b")),
    example(2),
    example(3, question("word7 word8 word9")),
    example(4, question("word4"), CAPTION, question("word5")),
    example(5, CAPTION),
]


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 7), st.permutations(range(6)), st.sampled_from([1, 3]), st.integers(1, 4))
def test_texts_do_not_depend_on_what_is_encoded_and_generated_together(
    batch_size: int, order: list[int], num_beams: int, max_rows: int
) -> None:
    captioner = uncropped_captioner()
    options = DecodingOptions(num_beams=num_beams, max_new_tokens=6)
    examples = [EXAMPLES[index] for index in order]
    expected = []
    for example in examples:
        for note in example.annotations:
            scene = captioner.see(example.media)
            if note.question is None:
                text = captioner.caption(scene, options)
            else:
                text = captioner.ask(scene, note.question, options)
            expected.append(((example.key, note.key, note.question, text.text), text.logprob))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captioner_module, "MAX_ROWS", max_rows)
        predictor = text_predictor(captioner, options)
        items = predict(captioner, ListSource(examples), predictor, batch_size=batch_size)
    for item, (fields, logprob) in zip(items, expected, strict=True):
        assert (item.key, item.question_key, item.question, item.text) == fields
        assert item.logprob == pytest.approx(logprob, abs=1e-5)


def test_an_image_is_encoded_once_for_all_its_questions(
    captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    see = captioner.model.see
    monkeypatch.setattr(captioner.model, "see", lambda x: sizes.append(len(x)) or see(x))
    predict(captioner, ListSource(EXAMPLES), text_predictor(captioner), batch_size=4)
    assert sorted(sizes) == [1, 2, 3]  # by shape
    sizes.clear()
    predict(captioner, ListSource(EXAMPLES), text_predictor(captioner), batch_size=2)
    assert sorted(sizes) == [1, 1, 2, 2]


def test_predictions_hold_the_answers(captioner: Captioner) -> None:
    items = predict(captioner, ListSource(EXAMPLES[:2]), text_predictor(captioner))
    assert [item.answers for item in items] == [CAPTION.texts, CAPTION.texts, *[("word3",)] * 2]
    assert [item.task for item in items] == ["captions", "captions", "questions", "questions"]


def test_labels_are_ranked_as_by_the_captioner(captioner: Captioner) -> None:
    labels = [f"word{n}" for n in range(7)]
    predictor = label_predictor(captioner, labels, "word9 {}")
    items = predict(captioner, ListSource(EXAMPLES), predictor, batch_size=3)
    keys = [example.key for example in EXAMPLES for _ in example.annotations]
    assert [item.key for item in items] == keys
    for item in items:
        image = next(example.media for example in EXAMPLES if example.key == item.key)
        best = captioner.classify(image, labels, template="word9 {}", question=item.question)
        assert item.top == tuple(label.label for label in best[:5])
        assert (item.text, item.task) == (best[0].label, "labels")
        assert item.logprob == pytest.approx(best[0].logprob, abs=1e-5)


def test_broken_examples_are_left_out_and_listed_up_to_a_limit(captioner: Captioner) -> None:
    flat = Example("flat.png", Image.new("RGB", (1000, 1)), (CAPTION,))
    empty = Example("empty.png", picture(0), (question("word1"), question(" ")))
    source = ListSource([None, EXAMPLES[0], empty, flat, EXAMPLES[5]])
    predictor, broken = text_predictor(captioner), BrokenExamples(limit=3)
    items = predict(captioner, source, predictor, broken=broken)
    assert [item.key for item in items] == ["0.png", "5.png"]
    assert [reason.partition(" ")[0] for reason in broken.reasons] == [
        "0.png:", "empty.png:", "flat.png:",
    ]  # fmt: skip
    assert "the question ' ' is empty" in broken.reasons[1]
    assert "1000 x 1 pixels would be resized to" in broken.reasons[2]
    with pytest.raises(GITError, match=r"2 examples cannot be read, .* 1; .* empty.png: the"):
        predict(captioner, source, predictor, broken=BrokenExamples(limit=1))
    with pytest.raises(GITError, match=r"1 examples cannot be read, .* 0; .* 0.png: broken"):
        predict(captioner, source, predictor)


@pytest.mark.parametrize("source", [ListSource([]), ListSource([None]), ListStream([])])
def test_a_source_without_a_usable_example_is_an_error(
    captioner: Captioner, source: ListSource
) -> None:
    with pytest.raises(GITError, match="there is no example that can be used"):
        predict(captioner, source, text_predictor(captioner), broken=BrokenExamples(limit=1))


def test_a_stream_gives_the_same_and_a_limit_holds(captioner: Captioner) -> None:
    items, streamed = (
        predict(captioner, kind(EXAMPLES), text_predictor(captioner), limit=2)
        for kind in (ListSource, ListStream)
    )
    assert items == streamed
    assert {item.key for item in items} == {"0.png", "1.png"}


def test_the_mode_of_the_model_is_restored(captioner: Captioner) -> None:
    modes, model = [], captioner.model
    for training in (True, False):
        model.train(training)
        source = ListSource(EXAMPLES[:1])
        predict(captioner, source, lambda *_: modes.append(model.training) or [[]])
        assert model.training == training
    assert modes == [False, False]


def test_clips_are_encoded_as_clips() -> None:
    captioner = Captioner(tiny_model(frames=3).float(), Tokenizer.from_vocab(WORDS))
    frames = [picture(n) for n in range(3)]
    source = ListSource([Example("a", frames, (CAPTION,)), Example("b", frames[:2], (CAPTION,))])
    items = predict(captioner, source, text_predictor(captioner))
    clips = Frames(frames), Frames(frames[:2])
    assert [item.text for item in items] == [captioner.caption(clip).text for clip in clips]


def test_no_graph_is_built_for_gradients(captioner: Captioner) -> None:
    flags = []

    def predictor(scene, examples):
        flags.extend(part.layers[0].key.requires_grad for _, part in scene.parts)
        return [[] for _ in examples]

    with torch.enable_grad():
        predict(captioner, ListSource(EXAMPLES[:1]), predictor)
    assert flags == [False]
