"""docs/explorer: its GIT in JavaScript equals the PyTorch model, and its page works.

The rest of the page's tests are in test_explorer_page.py.
"""

import json
from dataclasses import asdict
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from explorer import (
    CAPTION,
    DESKTOP,
    FOLDER,
    PANELS,
    PHONE,
    caption_of,
    encoded,
    open_page,
    pixels_of,
    settle,
)
from scripts import load_script

from git_model.captioner import Captioner
from git_model.config import DecodingOptions
from git_model.shapes.questions import ask_about
from git_model.shapes.texts import describe
from git_model.shapes.world import World, draw, make_close_up

# The model


def test_the_generated_files_are_what_build_py_writes() -> None:
    for name, text in load_script("docs/explorer/build.py").files().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, f"run build.py: {name} is old"


def test_the_model_is_at_most_600_lines_of_javascript() -> None:
    assert len((FOLDER / "git.js").read_text().splitlines()) <= 600


@pytest.mark.parametrize("n", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_logits_equal_pytorchs_on_pictures_and_texts(
    captioner: Captioner, engine: Any, worlds: list[World], n: int
) -> None:
    for number, world in enumerate(worlds[:n]):
        question = ask_about(world, Random(number), 1)[0]
        text = f"{question.text} {question.answer}" if number % 2 else describe(world)
        ids = [2, *captioner.tokenizer.encode(text)]
        image = draw(world)
        with torch.inference_mode():
            expected = captioner.model(pixels_of(captioner, image), torch.tensor([ids]))[0].numpy()
        logits = engine.evaluate(
            """([rgb, ids]) => {
                const sequence = seen(rgb).fork();
                sequence.append(ids);
                return ids.map((_, t) => Array.from(sequence.lens(LAST_LAYER, t)));
            }""",
            [encoded(image), ids],
        )
        np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("n", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_captions_equal_pytorchs_on_held_out_scenes(
    captioner: Captioner, engine: Any, worlds: list[World], n: int
) -> None:
    images = [draw(world) for world in worlds[:n]]
    captions = engine.evaluate(
        """(images) => images.map((rgb) => {
            const { tokens } = generate(model, seen(rgb), promptOf(model, ""));
            return model.tokenizer.decode(tokens.map(({ id }) => id));
        })""",
        [encoded(image) for image in images],
    )
    expected = captioner.caption(images)
    assert captions == [caption.text for caption in expected]


def test_scenes_are_drawn_pixel_for_pixel_as_pillow_draws_them(
    engine: Any, worlds: list[World]
) -> None:
    scenes = worlds + [make_close_up(Random(i), "held_out") for i in range(50)]
    drawn = engine.evaluate(
        "(scenes) => scenes.map((scene) => btoa(String.fromCharCode(...drawScene(scene))))",
        [asdict(world) for world in scenes],
    )
    assert drawn == [encoded(draw(world)) for world in scenes]


def test_a_text_appended_word_by_word_gives_what_it_gives_at_once(engine: Any) -> None:
    difference = engine.evaluate(
        """() => {
            const prefix = model.see(model.preprocess(picture()));
            const ids = promptOf(model, "a large red circle above a small blue star");
            const once = prefix.fork(), slow = prefix.fork();
            const a = once.append(ids);
            const b = ids.map((id) => slow.append([id])).at(-1);
            return Math.max(...a.map((value, i) => Math.abs(value - b[i])));
        }"""
    )
    assert difference < 1e-5


def test_texts_of_one_picture_share_its_image_prefix_and_nothing_else(engine: Any) -> None:
    shared = engine.evaluate(
        """() => {
            const prefix = model.see(model.preprocess(picture()));
            const one = prefix.fork(), two = prefix.fork();
            one.append([2, 53]);
            two.append([2]);
            const key = (sequence) => sequence.cache[0].keys[3];
            const lengths = [prefix, one, two].map((sequence) => sequence.cache[0].keys.length);
            return [key(one) === key(two), ...lengths];
        }"""
    )
    assert shared == [True, 10, 12, 11]


MASKS = {  # for two image tokens and two of text: queries down, keys across
    "prefix": ["1100", "1100", "1110", "1111"],
    "causal_image": ["1000", "1100", "1110", "1111"],
    "isolated_image": ["1000", "0100", "1110", "1111"],
    "image_sees_text": ["1111", "1111", "1110", "1111"],
}


@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_lets_through_what_its_picture_shows(engine: Any, mask: str) -> None:
    rows = engine.evaluate(
        "(mask) => [0, 1, 2, 3].map((q) =>"
        " [0, 1, 2, 3].map((k) => Number(MASKS[mask](q, k, 2))).join(''))",
        mask,
    )
    assert rows == MASKS[mask]


def test_only_an_image_that_sees_text_changes_with_it(engine: Any) -> None:
    moved = engine.evaluate(
        """() => Object.keys(MASKS).map((mask) => {
            const prefix = model.see(model.preprocess(picture()), mask);
            const text = prefix.fork();
            text.append([2, 53, 6]);
            const [a, b] = [prefix, text].map((sequence) => sequence.hidden[2][4]);
            return Math.max(...a.map((value, i) => Math.abs(value - b[i])));
        })"""
    )
    assert moved[:3] == [0, 0, 0]
    assert moved[3] > 0.01


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mask", MASKS)
def test_the_mask_panel_counts_right(engine: Any, worlds: list[World], mask: str) -> None:
    count, shown = engine.evaluate(
        """([images, captions, mask]) => [images.filter((rgb, i) => {
            const { tokens } = generate(model, seen(rgb, mask), promptOf(model, ""));
            return model.tokenizer.decode(tokens.map(({ id }) => id)) === captions[i];
        }).length, RIGHT[mask]]""",
        [[encoded(draw(world)) for world in worlds], [describe(world) for world in worlds], mask],
    )
    assert count == shown


def test_texts_are_tokenized_and_written_as_in_python(captioner: Captioner, engine: Any) -> None:
    rng = Random(0)
    alphabet = [*"abzRS é Üß.,?!'-:#[]$+<=>^`|~\t\n\x00\u200b中文🙂", "[SEP]", "star", " red "]
    texts = ["".join(rng.choices(alphabet, k=rng.randrange(30))) for _ in range(2000)]
    texts += ["what colour is the RED star?", "", "  ", "a" * 101, "two reds, it's 3-4!", "[CLS] a"]
    ids = engine.evaluate("(texts) => texts.map((text) => model.tokenizer.encode(text))", texts)
    assert ids == [captioner.tokenizer.encode(text) for text in texts]
    decoded = engine.evaluate("(rows) => rows.map((ids) => model.tokenizer.decode(ids))", ids)
    assert decoded == [captioner.tokenizer.decode(row) for row in ids]


@pytest.mark.parametrize(("beams", "penalty"), [(1, 1.0), (3, 0.6), (4, 1.0), (4, 2.0)])
def test_beam_search_finds_the_texts_and_scores_that_pytorch_finds(
    captioner: Captioner, engine: Any, worlds: list[World], beams: int, penalty: float
) -> None:
    options = DecodingOptions(num_beams=beams, length_penalty=penalty, max_new_tokens=24)
    for world in worlds[:5]:
        image = draw(world)
        text, score = engine.evaluate(
            """([rgb, beams, lengthPenalty]) => {
                const [best] = beamSearch(model, seen(rgb), [2], { beams, lengthPenalty }).ended;
                return [model.tokenizer.decode(idsOf(best)), best.score];
            }""",
            [encoded(image), beams, penalty],
        )
        expected = captioner.caption(image, options)
        assert text == expected.text
        assert score == pytest.approx(expected.logprob / len(expected.tokens) ** penalty, abs=1e-4)


def test_a_token_is_drawn_in_proportion_to_its_probability(engine: Any) -> None:
    logits = [0.0, 2.0, 1.0]  # in order: 1, 2, 0 with 0.665, 0.245, 0.090
    draws = "([logits, options, numbers]) => numbers.map((u) => sample(logits, options, u))"
    plain = engine.evaluate(draws, [logits, {}, [0, 0.66, 0.67, 0.90, 0.92, 0.999]])
    assert plain == [1, 1, 2, 2, 0, 0]
    assert engine.evaluate(draws, [logits, {"topK": 2}, [0.72, 0.74, 0.999]]) == [1, 2, 2]
    assert engine.evaluate(draws, [logits, {"temperature": 0.1}, [0.999]]) == [1]


def test_a_given_texts_log_probability_is_the_models(
    captioner: Captioner, engine: Any, worlds: list[World]
) -> None:
    image, text = draw(worlds[0]), describe(worlds[0])
    [expected] = captioner.score(image, [text])
    logprobs = engine.evaluate(
        "([rgb, ids]) => score(seen(rgb), [2], ids)", [encoded(image), expected.tokens]
    )
    np.testing.assert_allclose(logprobs, expected.token_logprobs, atol=1e-4)


# The page


@pytest.mark.parametrize(
    ("viewport", "scheme"),
    [
        pytest.param(PHONE, "dark", id="phone-dark"),
        pytest.param(DESKTOP, "light", id="desktop-light", marks=pytest.mark.slow),
        pytest.param(PHONE, "light", id="phone-light", marks=pytest.mark.slow),
        pytest.param(DESKTOP, "dark", id="desktop-dark", marks=pytest.mark.slow),
    ],
)
def test_every_panel_fits_and_nothing_is_requested_or_complained_of(
    browser: Any, viewport: dict[str, int], scheme: str
) -> None:
    tab = open_page(browser, viewport, scheme)
    for panel in PANELS:
        tab.click(f"#tab-{panel}")
        settle(tab)
        assert tab.locator("#panel").inner_text().strip(), panel
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), panel
    for stage in range(8):
        tab.click("#tab-stages")
        tab.click(f".stage-list button >> nth={stage}")
        settle(tab)
        assert tab.locator(".stage-detail .lead").count() == 1
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), stage
    assert tab.troubles == []
    tab.context.close()


def test_the_caption_follows_a_shape_that_is_dragged_and_keeps_its_place(tab: Any) -> None:
    assert caption_of(tab) == CAPTION
    before = tab.locator("#ask").bounding_box()
    box = tab.locator("#canvas").bounding_box()
    unit = box["width"] / 64
    tab.mouse.move(box["x"] + 11 * unit, box["y"] + 11 * unit)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 40 * unit, box["y"] + 40 * unit, steps=4)
    tab.mouse.move(box["x"] + 53 * unit, box["y"] + 11 * unit, steps=4)
    assert caption_of(tab) == CAPTION.replace("left", "right")  # while the button is held
    tab.mouse.up()
    assert tab.locator("#ask").bounding_box() == before


def test_a_question_is_answered_and_cleared(tab: Any) -> None:
    tab.fill("#question", "what colour is the star?")
    assert caption_of(tab) == "purple"
    assert tab.inner_text("#caption-title") == "Answer"
    tab.click("#clear")
    assert caption_of(tab) == CAPTION


def test_the_first_example_is_the_one_that_these_tests_expect() -> None:
    text = (FOLDER / "world.js").read_text().split("const WORLD = ", 1)[1].rstrip(";\n")
    assert json.loads(text)["examples"][0]["caption"] == CAPTION
