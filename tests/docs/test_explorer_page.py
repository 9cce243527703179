"""The page docs/explorer does what it says. Slow: `make lint` runs this file."""

import io
from random import Random
from typing import Any

import numpy as np
import pytest
from explorer import CAPTION, DESKTOP, FOLDER, PANELS, PHONE, caption_of, settle
from scripts import load_script

from git_model.captioner import Captioner
from git_model.shapes.questions import ask_about
from git_model.shapes.texts import describe
from git_model.shapes.world import World, draw, make_close_up, make_world

pytestmark = pytest.mark.slow


def test_shapes_are_moved_resized_recoloured_and_deleted_by_keyboard(tab: Any) -> None:
    tab.locator("#canvas .thing").first.focus()
    for _ in range(7):
        tab.keyboard.press("Shift+ArrowDown")
    for _ in range(7):
        tab.keyboard.press("-")
    assert caption_of(tab) == ("a large purple star above and to the right of a small red circle")
    tab.focus("#colours [aria-label=blue]")
    tab.keyboard.press("Enter")
    assert caption_of(tab).endswith("a small blue circle")
    tab.locator("#canvas .thing").first.focus()
    tab.keyboard.press("Delete")
    assert caption_of(tab) == "a large purple star in the middle"


def test_shapes_are_added_until_the_picture_is_full(tab: Any) -> None:
    tab.click("#colours [aria-label=pink]")
    tab.click("#add [aria-label='Add a cross']")
    settle(tab)
    assert tab.locator("#canvas .thing").count() == 3
    assert "pink cross" in caption_of(tab)
    for _ in range(6):
        tab.click("#add [aria-label='Add a square']")
    settle(tab)
    assert tab.locator("#add [aria-label='Add a square']").is_disabled()
    assert "at most five shapes" in tab.evaluate("select(null) ?? $('picture-status').innerText")


def test_an_empty_picture_says_that_it_is_empty(tab: Any) -> None:
    for _ in range(2):
        tab.locator("#canvas .thing").first.focus()
        tab.keyboard.press("Delete")
    settle(tab)
    assert "add a shape" in tab.inner_text("#stage-note")


def test_every_suggested_question_of_every_example_is_answered_rightly(engine: Any) -> None:
    build = load_script("docs/explorer/build.py")
    worlds = [make_world(Random(seed), "held_out") for seed in build.EXAMPLES]
    worlds.append(make_close_up(Random(build.CLOSE_UP), "held_out"))
    shown = engine.evaluate(
        """() => WORLD.examples.map((scene) => {
            const prefix = model.see(model.preprocess(drawScene(scene)));
            const ids = (text) => generate(model, prefix, promptOf(model, text)).tokens;
            const text = (question) => model.tokenizer.decode(ids(question).map(({ id }) => id));
            const questions = [null, ...scene.things.keys()].flatMap((selected) =>
                questionsAbout(scene, selected));
            const asked = questions.map((item) => [item.text, text(item.text), item.answer]);
            return [text(""), asked];
        })"""
    )
    for world, (caption, questions) in zip(worlds, shown, strict=True):
        truth = {q.text: q.answer for seed in range(400) for q in ask_about(world, Random(seed), 7)}
        assert caption == describe(world)
        assert len(questions) >= 3 * (1 + len(world.things))
        for text, answer, expected in questions:
            assert answer == expected == truth[text], text


def test_a_word_is_marked_if_a_second_one_is_more_than_half_as_probable(tab: Any) -> None:
    assert tab.locator("#caption .unsure").count() == 0
    tab.locator("#examples button").nth(2).click()  # five things, of which it is unsure
    settle(tab)
    pairs = tab.evaluate(
        "result.tokens.map(({ logits }) => [...logits].sort((a, b) => b - a).slice(0, 2))"
    )
    expected = [first - second < np.log(2) for first, second in pairs]
    marked = tab.locator("#caption .word").evaluate_all(
        "(words) => words.map((word) => word.matches('.unsure'))"
    )
    assert marked == expected
    assert any(marked)
    assert tab.get_attribute("#caption .unsure", "title").startswith("Unsure: ")


def test_what_is_altered_stays_in_sight_and_is_undone_by_one_click(tab: Any) -> None:
    tab.evaluate(
        "change({ mask: 'causal_image', blank: new Set([8]), forced: new Map([[2, 53]]) })"
    )
    settle(tab)
    tab.locator("#panel").evaluate("(panel) => scrollTo(0, document.body.scrollHeight)")
    assert tab.locator("#badges .badge").count() == 3
    badges = tab.locator("#bar-badges .badge")
    assert [" ".join(text.split()) for text in badges.all_inner_texts()] == [
        "mask: causal image · reset", "1 patch blanked · reset", "1 word forced · release",
    ]  # fmt: skip
    for left in (2, 1, 0):
        box = badges.first.bounding_box()
        assert 0 <= box["y"] < DESKTOP["height"]
        badges.first.click()
        settle(tab)
        assert badges.count() == left
    assert caption_of(tab) == CAPTION
    assert tab.inner_text("#bar-caption") == CAPTION


def test_percentages_follow_temperature_and_top_k_and_add_up(tab: Any) -> None:
    def shares() -> list[float]:
        texts = tab.locator("#candidate-list b, #others b").all_inner_texts()
        return [float(text.removesuffix(" %")) for text in texts]

    plain = shares()
    assert sum(plain) == pytest.approx(100, abs=0.6)
    tab.locator("#method button", has_text="Sample").click()
    tab.evaluate("change({ temperature: 2, step: 2 })")
    settle(tab)
    logits = np.array(tab.evaluate("[...result.tokens[2].logits]")) / 2
    expected = np.exp(logits) / np.exp(logits).sum() * 100
    warm = shares()
    assert max(warm[:5]) == pytest.approx(expected.max(), abs=0.6)
    assert sum(warm) == pytest.approx(100, abs=0.6)
    tab.evaluate("change({ topK: 1 })")
    settle(tab)
    assert sorted(shares()) == [0, 0, 0, 0, 0, 100]


def test_a_word_that_is_split_into_letters_is_shown_whole_and_flagged(tab: Any) -> None:
    tab.fill("#question", "is there a dog?")
    settle(tab)
    given = tab.locator("#caption .given").all_inner_texts()
    assert given == ["is", "there", "a", "dog?"]
    assert tab.inner_text("#caption .foreign") == "dog?"
    assert "not in its vocabulary" in tab.inner_text("#foreign")
    assert "##" not in tab.inner_text("#candidates-title")
    tab.fill("#question", "is there a star?")
    settle(tab)
    assert tab.inner_text("#foreign") == ""


def test_the_candidates_of_the_first_word_stand_at_the_start(tab: Any) -> None:
    tab.locator("#caption .word").first.click()
    settle(tab)
    assert tab.inner_text("#candidates-title") == "At the start the model expects"
    assert "■" not in "".join(file.read_text() for file in FOLDER.glob("*.js"))


def test_a_term_explains_itself_when_it_is_pointed_at_or_focused(tab: Any) -> None:
    tab.click(".stage-list button >> nth=7")
    settle(tab)
    names = tab.locator("#panel .term").evaluate_all("(all) => all.map((t) => t.dataset.term)")
    assert names[:5] == ["hidden state", "logit", "softmax", "temperature", "top-k"]
    tab.locator("#panel .term").nth(1).focus()
    assert tab.inner_text("#term-note") == "logit A token's number before the softmax."
    tab.keyboard.press("Escape")
    assert tab.locator("#term-note").is_hidden()
    tab.hover("#panel .term >> nth=2")
    assert tab.inner_text("#term-note").startswith("softmax Turns numbers")


def test_before_a_patch_is_blanked_its_column_is_empty(tab: Any) -> None:
    tab.click("#tab-blank")
    settle(tab)
    assert tab.locator(".falls td.none").count() == len(CAPTION.split()) + 1
    assert "none yet" in tab.inner_text(".falls")
    assert "relative" in tab.inner_text(".blanking .hint")


def test_a_forced_word_changes_what_follows_and_is_released(tab: Any) -> None:
    tab.locator("#caption .word").nth(3).click()
    settle(tab)
    other = tab.locator("#candidate-list button").nth(1)
    word = other.locator("span").inner_text()
    other.click()
    assert caption_of(tab).startswith(f"a large red {word} ")
    tab.select_option("#any-word", "triangle")
    assert caption_of(tab).startswith("a large red triangle ")
    assert tab.locator("#caption [data-forced]").inner_text() == "triangle"
    assert tab.inner_text("#candidate-list [aria-pressed=true] span") == "triangle"
    tab.click("#candidates-note .link")
    assert caption_of(tab) == CAPTION


def test_sampling_draws_another_text_and_top_k_of_one_is_greedy(tab: Any) -> None:
    tab.locator("#method button", has_text="Sample").click()
    tab.evaluate("change({ temperature: 2.5 })")
    first = caption_of(tab)
    tab.click("#redraw")
    assert caption_of(tab) != first
    tab.focus("#top-k")
    tab.keyboard.press("ArrowRight")
    assert caption_of(tab) == CAPTION


def test_another_mask_is_used_by_the_whole_page(tab: Any) -> None:
    tab.click("#tab-masks")
    tab.locator(".mask-card", has_text="sees only itself").click()
    caption = caption_of(tab)
    assert caption != CAPTION
    shown = tab.inner_text(".mask-card[aria-pressed=true] .mask-caption")
    assert " ".join(shown.split()) == caption


def test_every_head_shows_a_map_and_a_matrix_of_weights_that_sum_to_one(tab: Any) -> None:
    tab.click("#tab-attention")
    for tower, heads, size in (("Encoder", 16, 10), ("Decoder", 12, 10 + 15)):
        tab.locator("#panel .segmented button", has_text=tower).click()
        settle(tab)
        assert tab.locator("#panel .head").count() == heads
        assert tab.locator("#panel .matrix rect:not(.query)").count() == size**2
    sums = tab.evaluate(
        "result.sequence.weights.flatMap((layer, l) => [0, 1, 2, 3].flatMap((head) =>"
        " attentionOf('decoder', l, head).map((row) => row.reduce((a, b) => a + b))))"
    )
    np.testing.assert_allclose(sums, 1, atol=1e-5)


def test_the_tabs_are_moved_through_with_arrow_keys(tab: Any) -> None:
    tab.focus("#tab-stages")
    for name in (*PANELS[1:], PANELS[0]):
        tab.keyboard.press("ArrowRight")
        settle(tab)
        assert tab.evaluate("document.activeElement.id") == f"tab-{name}"
        assert tab.get_attribute("#panel", "data-panel") == name


def test_the_logit_lens_ends_with_the_words_that_are_written(tab: Any) -> None:
    tab.click("#tab-lens")
    settle(tab)
    last = [text.split("\n")[0] for text in tab.locator(".lens td:last-child").all_inner_texts()]
    assert last == [*CAPTION.split(), "[SEP]"]


def test_a_blanked_patch_takes_its_word_away(tab: Any) -> None:
    tab.click("#tab-blank")
    settle(tab)
    losses = tab.locator(".occlusion .patches span").all_inner_texts()
    assert losses[0] == "\N{MINUS SIGN}100 %"  # the circle's patch, for “red”
    assert losses[8] == "0"
    tab.locator(".occlusion .patches button").first.click()
    assert "circle" not in caption_of(tab)
    tab.click("#picture-status .link")
    assert caption_of(tab) == CAPTION


def test_the_best_beam_is_the_caption_and_one_beam_is_greedy(tab: Any) -> None:
    tab.locator("#method button", has_text="Beam").click()
    caption = caption_of(tab)
    assert tab.locator(".ended .chosen span").first.inner_text() == caption
    assert tab.locator(".tree .node.way").count() == len(caption.split())
    tab.locator("#panel .segmented button", has_text="1").click()
    assert caption_of(tab) == CAPTION


def test_the_tour_has_seven_steps_and_leaves_the_page_free(tab: Any) -> None:
    tab.click("#start-tour")
    for step in range(7):
        settle(tab)
        assert f"Step {step + 1} of 7" in tab.inner_text("#tour")
        assert tab.locator(".pointed").count() == 1
        if step < 6:
            tab.locator("#tour .primary").click()
    assert "circle" not in caption_of(tab)  # its patch is painted over
    tab.keyboard.press("Escape")
    settle(tab)
    assert tab.locator("#tour").is_hidden()
    assert caption_of(tab) == CAPTION


def test_the_tours_mask_step_marks_what_changed_whatever_was_dragged_before(tab: Any) -> None:
    tab.click("#start-tour")
    settle(tab)
    tab.locator("#canvas .thing").first.focus()
    tab.keyboard.press("Delete")
    tab.locator("#tour .dots button").nth(5).click()
    caption = caption_of(tab)
    right = tab.evaluate("WORLD.examples[3].caption")
    assert caption != right
    assert tab.evaluate("result.usual.map(word).join(' ')").removesuffix(" [SEP]") == right
    changed = tab.locator("#caption .changed:not(.end)").all_inner_texts()
    assert changed == [word for i, word in enumerate(caption.split()) if word != right.split()[i]]
    assert len(changed) >= 3
    tab.click("#tour [aria-label='End the tour']")
    assert caption_of(tab) == CAPTION


@pytest.mark.parametrize("step", range(7))
def test_on_a_phone_the_tours_card_does_not_hide_what_it_talks_about(phone: Any, step: int) -> None:
    phone.evaluate("(step) => enterStep(step)", step)
    settle(phone)
    aim, card = phone.locator(phone.evaluate("TOUR[tourStep].aim")).first, phone.locator("#tour")
    box, cover = aim.bounding_box(), card.bounding_box()
    assert box["y"] >= 0
    seen = cover["y"] - box["y"]
    assert seen >= min(box["height"], 0.45 * PHONE["height"])


def test_a_picture_file_is_read_and_anything_else_refused_in_a_line(
    tab: Any, captioner: Captioner, worlds: list[World]
) -> None:
    image, file = draw(worlds[1]), io.BytesIO()
    image.save(file, "PNG")
    tab.set_input_files(
        "#file", {"name": "a.png", "mimeType": "image/png", "buffer": file.getvalue()}
    )
    tab.wait_for_selector("#picture-status .link")
    assert caption_of(tab) == captioner.caption(image).text
    assert "drawn shapes only" in tab.inner_text("#picture-status")
    tab.click("#picture-status .link")
    assert caption_of(tab) == CAPTION
    tab.set_input_files(
        "#file", {"name": "b.png", "mimeType": "image/png", "buffer": b"no picture"}
    )
    tab.wait_for_function("$('picture-status').innerText.includes('b.png is no picture')")


def test_the_theme_follows_the_system_and_the_toggle(tab: Any) -> None:
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = tab.evaluate(ground)
    tab.click("#theme")
    dark = tab.evaluate(ground)
    assert dark != light
    tab.click("#theme")
    tab.emulate_media(color_scheme="dark")
    assert tab.evaluate(ground) == light  # chosen
    tab.evaluate("delete document.documentElement.dataset.theme")
    assert tab.evaluate(ground) == dark


def test_every_control_has_a_name_and_can_be_reached(tab: Any) -> None:
    for panel in PANELS:
        tab.click(f"#tab-{panel}")
        settle(tab)
        nameless = tab.evaluate(
            """() => [...document.querySelectorAll("button, input, [tabindex='0']")].filter(
                (part) => part.checkVisibility() && !(part.getAttribute("aria-label") ||
                    part.getAttribute("aria-labelledby") || part.innerText?.trim() ||
                    part.labels?.length || part.title)).map((part) => part.outerHTML)"""
        )
        assert nameless == [], panel
