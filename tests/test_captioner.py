"""Files in, text out."""

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import tiny_config, tiny_model

from git_model import Captioner, DecodingOptions, Frames
from git_model.captioner import ImageScene
from git_model.model.git import GIT
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.utils.errors import GITError

ROUNDING = 1e-5  # a search takes its logits in float32, whatever the model has
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"word{n}" for n in range(36))]


def picture(seed: int, size: tuple[int, int] = (20, 30)) -> Image.Image:
    pixels = torch.randint(
        0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed)
    )
    return Image.fromarray(pixels.to(torch.uint8).numpy())


@pytest.fixture
def captioner() -> Captioner:
    return Captioner(tiny_model().float(), Tokenizer.from_vocab(WORDS))


@pytest.fixture
def clips() -> Captioner:
    return Captioner(tiny_model(frames=3).float(), Tokenizer.from_vocab(WORDS))


@pytest.fixture
def exact() -> Captioner:
    """In float64, with weights large enough for texts to differ."""
    return exact_captioner()


def exact_captioner() -> Captioner:
    model = tiny_model()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=1.5 / parameter.shape[-1] ** 0.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.2)
        model.decoder.lm_head.bias[2] = 3.0  # texts end
    return Captioner(model, Tokenizer.from_vocab(WORDS))


def log_p(
    captioner: Captioner, pixels: torch.Tensor, prompt: list[int], text: list[int]
) -> list[float]:
    """By teacher forcing: one uncached pass over prompt and text."""
    tokens = torch.tensor([[*prompt, *text]])
    with torch.inference_mode():
        logprobs = captioner.model(pixels, tokens)[0].log_softmax(-1)
    return [logprobs[len(prompt) - 1 + n, token].item() for n, token in enumerate(text)]


def test_one_picture_gives_one_caption_and_a_list_gives_a_list(captioner: Captioner) -> None:
    one = captioner.caption(picture(0))
    assert one.text == " ".join(WORDS[token] for token in one.tokens if token > 3)
    assert one.logprob == pytest.approx(sum(one.token_logprobs))
    several = captioner.caption([picture(0), picture(1)])
    assert isinstance(several, list)
    assert several[0].tokens == one.tokens


def test_a_path_and_its_picture_are_the_same(captioner: Captioner, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture(3).save(path)
    for name in (path, str(path)):
        assert captioner.caption(name) == captioner.caption(picture(3))
    one, two = captioner.caption([path, str(path)])
    assert one == two
    assert one.tokens == captioner.caption(path).tokens
    assert one.logprob == pytest.approx(captioner.caption(path).logprob, abs=ROUNDING)


def test_a_scene_is_encoded_once_for_all_its_texts(captioner: Captioner) -> None:
    scene = captioner.see(picture(0))
    assert isinstance(scene, ImageScene)
    first = captioner.caption(scene)
    longer = captioner.caption(scene, DecodingOptions(max_new_tokens=23))
    assert longer.tokens[: len(first.tokens)] == first.tokens


def test_several_captions_come_best_first(captioner: Captioner) -> None:
    options = DecodingOptions(num_beams=3, num_return_sequences=3)
    [[captions]] = captioner.generate(captioner.see(picture(0)), [[None]], options)
    assert len(captions) == 3
    best = captioner.caption(picture(0), DecodingOptions(num_beams=3))
    assert best.tokens == captions[0].tokens


@pytest.mark.parametrize("frames", [0, 3])
def test_a_list_is_a_batch_with_any_model(frames: int) -> None:
    model = tiny_model(frames=frames).float()
    captions = Captioner(model, Tokenizer.from_vocab(WORDS)).caption([picture(n) for n in range(3)])
    assert isinstance(captions, list)
    assert len(captions) == 3


def test_frames_are_one_clip_and_a_list_of_them_a_batch(clips: Captioner) -> None:
    clip = Frames([picture(n) for n in range(3)])
    assert clips.see(clip).n_tokens == 15
    one, other = clips.caption([clip, Frames(clip.images[::-1])])
    assert one == clips.caption(clip)
    assert other.tokens


def test_frames_for_an_image_model_are_refused(captioner: Captioner) -> None:
    with pytest.raises(GITError, match="a clip of 2 frames, but this model has 0 temporal"):
        captioner.caption(Frames([picture(0), picture(1)]))


def test_a_batch_of_mixed_shapes_gives_what_each_image_gives_alone(clips: Captioner) -> None:
    images = [picture(0), Frames([picture(1), picture(2)]), picture(3), Frames([picture(0)])]
    scene = clips.see(images)
    assert [members for members, _ in scene.parts] == [[0, 2], [1], [3]]
    for image, caption in zip(images, clips.caption(scene), strict=True):
        assert caption.tokens == clips.caption(image).tokens
    scores = clips.score(scene, ["word1", "word2"])
    for image, row in zip(images, scores, strict=True):
        expected = [text.logprob for text in clips.score(image, ["word1", "word2"])]
        assert [text.logprob for text in row] == pytest.approx(expected, abs=ROUNDING)
    part = scene.select([3, 0, 1])
    assert [c.tokens for c in clips.caption(part)] == [
        clips.caption(images[n]).tokens for n in (3, 0, 1)
    ]


def test_an_empty_list_of_images_is_an_error(captioner: Captioner) -> None:
    with pytest.raises(GITError, match="no image was given"):
        captioner.see([])


def test_the_microsoft_style_searches_with_four_beams(captioner: Captioner) -> None:
    model = GIT.from_state(
        captioner.model.config.with_style("microsoft"), captioner.model.tensors(), "x"
    )
    originals = Captioner(model, captioner.tokenizer)
    assert model.decoder.embedding_norm.eps == 1e-8
    caption = originals.caption(picture(0))
    four = DecodingOptions(num_beams=4, length_penalty=0.6, style="microsoft", max_new_tokens=23)
    assert caption == originals.caption(picture(0), four)


def test_a_model_without_a_vocabulary_says_what_is_missing() -> None:
    with pytest.raises(GITError, match=r"no vocabulary.*--tokenizer FOLDER"):
        Captioner(tiny_model().float(), None).caption(picture(0))


def test_half_precision_gives_finite_captions() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        captioner = Captioner(tiny_model().to(dtype), Tokenizer.from_vocab(WORDS))
        assert captioner.caption(picture(0)).logprob > -200


def test_the_built_in_model_opens_by_its_name() -> None:
    captioner = Captioner.from_pretrained("demo")
    assert captioner.tokenizer.token_id("[CLS]") == captioner.model.config.bos_id
    assert captioner.tokenizer.token_id("[SEP]") == captioner.model.config.eos_id
    assert len(captioner.tokenizer) == captioner.model.config.decoder.vocab_size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype is 'int8', expected auto or one of float32, bfloat16"),
        ({"style": "meta"}, "style is 'meta', expected one of huggingface, microsoft"),
    ],
)
def test_unknown_ways_to_open_a_model_are_refused(options: dict, message: str) -> None:
    with pytest.raises(GITError, match=message):
        Captioner.from_pretrained("demo", **options)


def test_a_model_that_is_nowhere_is_one_line() -> None:
    with pytest.raises(GITError, match="no such folder") as error:
        Captioner.from_pretrained("/nowhere/at/all")
    assert "\n" not in str(error.value)


def test_the_tiny_model_is_what_it_says() -> None:
    assert GIT(tiny_config()).config.decoder.vocab_size == len(WORDS)


def test_one_question_gives_one_answer_and_a_list_gives_a_list(captioner: Captioner) -> None:
    one = captioner.ask(picture(0), "word1 word2")
    assert captioner.ask(picture(0), ["word1 word2"]) == [one]
    assert captioner.ask([picture(0)], "word1 word2") == [one]
    assert captioner.ask([picture(0)], ("word1 word2",)) == [[one]]


def test_answers_of_a_batch_are_those_of_each_picture_and_question(exact: Captioner) -> None:
    pictures = [picture(0), picture(1, (40, 20))]
    questions = ["word1", "word4 word5 word6", "word2 word2"]
    rows = exact.ask(pictures, questions)
    for image, row in zip(pictures, rows, strict=True):
        assert [one.tokens for one in row] == [exact.ask(image, q).tokens for q in questions]
        logprobs = [exact.ask(image, q).logprob for q in questions]
        assert [one.logprob for one in row] == pytest.approx(logprobs, abs=ROUNDING)
    assert len({tuple(one.tokens) for row in rows for one in row}) > 2
    assert [one.tokens for one in exact.ask(pictures, questions[1])] == [r[1].tokens for r in rows]


def test_an_answer_is_what_the_model_says_behind_the_question(exact: Captioner) -> None:
    answer = exact.ask(picture(0), "word1 word2")
    expected = log_p(exact, exact.preprocess([picture(0)]).double(), [1, 5, 6], answer.tokens)
    assert answer.token_logprobs == pytest.approx(expected, abs=ROUNDING)
    assert answer.text == exact.tokenizer.decode(answer.tokens)


def test_many_questions_are_answered_a_few_at_a_time(
    exact: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = exact.see([picture(0), picture(1)])
    questions, options = (
        [f"word{n}" for n in range(7)],
        DecodingOptions(num_beams=2, num_return_sequences=2),
    )
    at_once = exact.generate(scene, [questions] * 2, options)
    assert [[len(answers) for answers in row] for row in at_once] == [[2] * 7] * 2
    monkeypatch.setattr("git_model.captioner.MAX_ROWS", 12)
    chunked = exact.generate(scene, [questions] * 2, options)
    for one, other in zip(at_once, chunked, strict=True):
        texts = [[[result.text for result in answers] for answers in row] for row in (one, other)]
        assert texts[0] == texts[1]


def test_the_microsoft_prompt_is_the_last_38_of_at_most_40_tokens() -> None:
    config = tiny_config()
    config = dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, positions=64))
    words = [f"word{n % 36}" for n in range(45)]
    ids = [4 + n % 36 for n in range(45)]
    tokenizer = Tokenizer.from_vocab(WORDS)
    original = Captioner(GIT(config.with_style("microsoft")), tokenizer)
    assert original.prompt(" ".join(words)) == [1, *ids[2:40]]
    assert original.prompt(" ".join(words[:39])) == [1, *ids[1:39]]
    assert original.prompt(" ".join(words[:38])) == [1, *ids[:38]]
    assert Captioner(GIT(config), tokenizer).prompt(" ".join(words)) == [1, *ids]


@pytest.mark.parametrize("question", [None, "word7 word8"])
def test_a_score_equals_teacher_forcing(exact: Captioner, question: str | None) -> None:
    texts = ["word1 word2", "word1", "word1 word2 word3", "word9", "word1"]
    pictures = [picture(0), picture(1)]
    prompt = [1] if question is None else [1, 11, 12]
    for image, row in zip(pictures, exact.score(pictures, texts, question=question), strict=True):
        pixels = exact.preprocess([image]).double()
        assert [one.text for one in row] == texts
        for one in row:
            assert one.tokens == [*exact.tokenizer.encode(one.text), 2]
            expected = log_p(exact, pixels, prompt, one.tokens)
            assert one.token_logprobs == pytest.approx(expected, abs=ROUNDING)
            assert one.logprob == pytest.approx(sum(expected), abs=ROUNDING)


def test_a_generated_caption_has_the_score_of_its_text(exact: Captioner) -> None:
    options = DecodingOptions(
        num_beams=3, suppress_tokens=(0, 1, 3), length_penalty=0.0, min_new_tokens=3
    )
    caption = exact.caption(picture(2), options)
    assert caption.text
    assert caption.tokens[-1] == 2
    (scored,) = exact.score(picture(2), [caption.text])
    assert scored.tokens == caption.tokens
    assert scored.logprob == pytest.approx(caption.logprob, abs=ROUNDING)


def test_probabilities_of_labels_are_the_softmax_of_their_scores(exact: Captioner) -> None:
    labels = ["word1", "word2 word3", "word2", "word30"]
    result = exact.classify(picture(0), labels, template="word5 {}", question="word6")
    texts = [f"word5 {label}" for label in labels]
    scores = [one.logprob for one in exact.score(picture(0), texts, question="word6")]
    shares = torch.tensor(scores, dtype=torch.float64).softmax(0).tolist()
    assert {one.label: one.probability for one in result} == pytest.approx(
        dict(zip(labels, shares, strict=True)), abs=1e-12
    )
    assert sum(one.probability for one in result) == pytest.approx(1, abs=1e-12)
    assert result == sorted(result, key=lambda one: -one.probability)


def greedy_under_a_trie(
    captioner: Captioner, image: Image.Image, start: list[int], texts: list[list[int]]
) -> list[int]:
    """The best token that some text goes on with, until a text has ended; uncached."""
    pixels, written = captioner.preprocess([image]).double(), []
    while not written or written[-1] != 2:
        n = len(written)
        going = sorted({text[n] for text in texts if text[:n] == written and len(text) > n})
        with torch.inference_mode():
            logits = captioner.model(pixels, torch.tensor([[*start, *written]]))[0, -1]
        written.append(max(going, key=lambda token: logits[token].item()))
    return written


@settings(max_examples=15, deadline=None)
@given(
    words=st.sets(st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple), min_size=1),
    question=st.sampled_from([None, "word8"]),
)
def test_a_generated_label_is_the_one_that_greedy_search_among_them_finds(
    words: set[tuple[int, ...]], question: str | None
) -> None:
    captioner = exact_captioner()
    labels = [" ".join(f"word{n}" for n in label) for label in sorted(words)]
    texts = [[*captioner.tokenizer.encode(label), 2] for label in labels]
    pictures = [picture(0), picture(1)]
    for image, result in zip(
        pictures,
        captioner.classify(pictures, labels, question=question, generate=True),
        strict=True,
    ):
        start = [1] if question is None else [1, 12]
        assert result.tokens == greedy_under_a_trie(captioner, image, start, texts)
        assert result.text == labels[texts.index(result.tokens)]
        (scored,) = captioner.score(image, [result.text], question=question)
        assert result.logprob == pytest.approx(scored.logprob, abs=ROUNDING)


LONG = " ".join(["word1"] * 24)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda c: c.ask(picture(0), " "), r"question ' ' is empty, expected some words"),
        (lambda c: c.ask(picture(0), []), r"the questions are \[\], expected a list"),
        (lambda c: c.ask(picture(0), LONG), "has 24 tokens, expected at most 22"),
        (lambda c: c.score(picture(0), []), r"the texts are \[\], expected a list"),
        (lambda c: c.score(picture(0), "word1"), "the texts are 'word1', expected a list"),
        (lambda c: c.score(picture(0), ["word1", ""]), "the text '' is empty"),
        (lambda c: c.score(picture(0), ["word1 [SEP]"]), "holds the end token"),
        (lambda c: c.score(picture(0), [LONG]), "more than this model's 24 positions"),
        (lambda c: c.score(picture(0), ["word1"], question=""), "the question '' is empty"),
        (lambda c: c.classify(picture(0), []), r"the labels are \[\], expected a list"),
        (lambda c: c.classify(picture(0), "word1"), "the labels are 'word1', expected a list"),
        (lambda c: c.classify(picture(0), ["word1", " "]), "label 2 is empty"),
        (lambda c: c.classify(picture(0), ["word1", "WORD1"]), "'word1' and 'WORD1' have the same"),
        (lambda c: c.classify(picture(0), ["word1"], template="a"), "no place for the label"),
        (lambda c: c.classify(picture(0), ["word1", "word1"], generate=True), "the same tokens"),
        (lambda c: c.classify(picture(0), ["word1 [SEP] 2"], generate=True), "holds the end"),
        (lambda c: c.classify(picture(0), [LONG], generate=True), "25 tokens with its end, exp"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line(
    captioner: Captioner, work: Callable[[Captioner], object], message: str
) -> None:
    with pytest.raises(GITError, match=message) as error:
        work(captioner)
    assert "\n" not in str(error.value)


def test_the_longest_texts_that_fit_are_answered_scored_and_generated(captioner: Captioner) -> None:
    words = ["word1"] * 23
    assert len(captioner.ask(picture(0), " ".join(words[:22])).tokens) == 1
    assert len(captioner.score(picture(0), [" ".join(words[:22])])[0].tokens) == 23
    assert len(captioner.classify(picture(0), [" ".join(words[:22])], generate=True).tokens) == 23


def test_an_animation_is_a_clip_where_the_model_knows_clips(
    captioner: Captioner, clips: Captioner, tmp_path: Path
) -> None:
    path = tmp_path / "moving.gif"
    frames = [Image.new("RGB", (16, 16), (20 * n, 0, 0)) for n in range(9)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    scene = clips.see(path)
    assert (scene.n_tokens, scene.frames) == (15, [1, 4, 7])
    assert clips.see(path, "ends").frames == [0, 4, 8]
    first = captioner.see(path)
    assert (first.n_tokens, first.frames) == (5, None)
    assert len(clips.see([path, path])) == 2


def test_a_still_picture_on_a_video_model_is_one_picture(clips: Captioner, tmp_path: Path) -> None:
    path = tmp_path / "still.png"
    picture(0).save(path)
    assert clips.see(path).n_tokens == 5


# What an image may be


def same_image(tmp_path: Path) -> dict[str, Any]:
    """One image as everything that may be given."""
    image = picture(0)
    image.save(tmp_path / "a.png")
    data, values = (tmp_path / "a.png").read_bytes(), np.asarray(image)
    opaque = np.concatenate([values, np.full((30, 20, 1), 255, np.uint8)], axis=2)
    tensor = torch.from_numpy(values.copy()).permute(2, 0, 1)
    return {
        "str": str(tmp_path / "a.png"),
        "path": tmp_path / "a.png",
        "bytes": data,
        "file object": io.BytesIO(data),
        "uint8": values,
        "with alpha": opaque,
        "uint16": values.astype(np.uint16) * 257,
        "float32, 0 to 1": values.astype(np.float32) / 255,
        "float64, 0 to 255": values.astype(np.float64),
        "tensor": tensor,
        "tensor, 0 to 1": tensor.float() / 255,
        "turned tensor": tensor.permute(0, 2, 1).contiguous().permute(0, 2, 1),
    }


def test_an_image_may_be_a_path_bytes_a_file_an_array_or_a_tensor(
    captioner: Captioner, tmp_path: Path
) -> None:
    expected = captioner.load(picture(0)).pixels
    images = same_image(tmp_path)
    batch = captioner.caption([*same_image(tmp_path).values()])
    assert [caption.tokens for caption in batch] == [captioner.caption(picture(0)).tokens] * 12
    for name, image in images.items():
        assert torch.equal(captioner.load(image).pixels, expected), name
    with (tmp_path / "a.png").open("rb") as file:
        assert torch.equal(captioner.load(file).pixels, expected)


@pytest.mark.parametrize("shape", [(30, 20), (30, 20, 1)])
def test_a_grey_array_is_a_grey_image(captioner: Captioner, shape: tuple[int, ...]) -> None:
    grey = picture(0).convert("L")
    pixels = captioner.load(np.asarray(grey).reshape(shape)).pixels
    assert torch.equal(pixels, captioner.load(grey).pixels)
    tensor = torch.from_numpy(np.array(grey))[None]
    assert torch.equal(captioner.load(tensor).pixels, captioner.load(grey).pixels)


def test_frames_may_be_of_any_of_these_types(clips: Captioner, tmp_path: Path) -> None:
    images = list(same_image(tmp_path).values())
    pixels = clips.load(Frames(images)).pixels
    assert pixels.shape == (12, 3, 16, 16)
    assert torch.equal(pixels, clips.load(picture(0)).pixels.expand_as(pixels))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (None, "of type NoneType"),
        (7, "of type int"),
        ({"path": "a.png"}, "of type dict"),
        (io.StringIO("a cat"), "a file opened as text"),
        (np.zeros((3, 20, 30), np.uint8), "a ndarray (3, 20, 30) in uint8"),
        (np.zeros((2, 20, 30, 3), np.uint8), "a ndarray (2, 20, 30, 3) in uint8"),
        (np.zeros((20, 30), np.int64), "a ndarray (20, 30) in int64"),
        (np.zeros((20, 30), object), "a ndarray (20, 30) in object"),
        (torch.zeros(20, 30, 3), "a tensor (20, 30, 3) in float32"),
        (torch.zeros(3, 20, 30, dtype=torch.int32), "a tensor (3, 20, 30) in int32"),
    ],
)
def test_another_type_is_a_type_error_that_names_what_is_taken(
    captioner: Captioner, image: Any, words: str
) -> None:
    for verb in (captioner.see, captioner.caption):
        with pytest.raises(TypeError) as error:
            verb(image)
        assert str(error.value).startswith(f"the image is {words}, expected a path, a web address,")
    with pytest.raises(TypeError, match="the image is"):
        captioner.see([picture(0), image])


def test_a_file_opened_as_text_is_a_type_error(captioner: Captioner, tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    with (tmp_path / "a.png").open() as file, pytest.raises(TypeError, match="opened as text"):
        captioner.see(file)  # type: ignore[call-overload]


def test_floats_beyond_every_range_are_refused(captioner: Captioner) -> None:
    for values in (np.array([[0.0, np.nan]]), np.array([[-1.0, 1.0]])):
        with pytest.raises(GITError, match=r"finite|expected a range of 0 to 1"):
            captioner.see(values)
