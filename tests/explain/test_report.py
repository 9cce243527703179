"""The report: one HTML file that needs no other."""

import base64
import dataclasses
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import chromium
from test_captioner import WORDS, exact_captioner, picture
from tiny import tiny_config

from git_model import GIT, Captioner, DecodingOptions
from git_model.config import DecoderConfig, EncoderConfig, PreprocessConfig
from git_model.explain.explanation import Explanation, explain
from git_model.explain.report import HERE, report
from git_model.preprocessing.tokenizer import Tokenizer

IMAGES = Path(__file__).parents[2] / "examples" / "images"


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    options = DecodingOptions(num_beams=3, max_new_tokens=6, min_new_tokens=4)
    return explain(exact_captioner(), picture(1), "word5 word6", options)


@pytest.fixture(scope="module")
def clip() -> Explanation:
    return explain(Captioner.from_pretrained("demo"), IMAGES / "one_acts_twice.gif")


class Page(HTMLParser):
    """A parsed page: tags with attributes, texts, and tags that are still open."""

    EMPTY = ("meta", "img", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.data = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script" and data.lstrip().startswith("{"):
            self.data = data
        self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(explanation: Explanation, name: str = "photo.jpg", model: str = "demo") -> Page:
    page = Page(report(explanation, name, model))
    assert page.open == []  # every tag is closed, in order
    return page


def unpacked(page: Page, name: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(json.loads(page.data)[name]), dtype="<u2")


def test_the_report_names_no_other_file_and_no_url(explanation: Explanation) -> None:
    page, html = page_of(explanation), report(explanation, "photo.jpg", "demo")
    for _, attributes in page.tags:
        assert not {"href", "srcset", "data-src", "action"} & attributes.keys()
        assert (attributes.get("src") or "data:").startswith("data:image/png;base64,") or (
            "src" not in attributes
        )
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html
    assert "default-src 'none'" in html  # and a browser would refuse them


def test_the_report_has_every_part(explanation: Explanation) -> None:
    page = page_of(explanation)
    assert [text for text in page.texts if text == explanation.question]
    assert len(page.of("button")) == len(explanation.generated)
    kinds = [attributes.get("class") for attributes in page.of("svg")]
    assert kinds == [None, "mask", "tree"]  # over the image, the mask, the beams
    text = " ".join(page.texts)
    for token in explanation.generated:
        assert token.text in text
        assert f"{100 * token.probability:.1f}" in text


def test_without_beams_there_is_no_tree_and_a_clip_has_a_table_of_frames(
    clip: Explanation,
) -> None:
    page = page_of(clip)
    assert "tree" not in [attributes.get("class") for attributes in page.of("svg")]
    assert "Frames" in page.texts
    pictures = [attributes for attributes in page.of("img") if "class" not in attributes]
    assert len(pictures) == 6 + len(clip.generated)
    share = f"{100 * clip.frame_shares()[2, 0].item():.1f}\u00a0%"
    assert share in page.texts


def test_the_data_are_those_of_the_explanation(explanation: Explanation) -> None:
    page = page_of(explanation)
    for name, expected in (
        ("patch_attention", explanation.image_attention[..., 1:]),
        ("rollout", explanation.rollout),
        ("text_attention", explanation.text_attention),
        ("class_attention", explanation.image_attention[..., 0].sum(-1)),
    ):
        values = unpacked(page, name) / 65535
        assert values == pytest.approx(expected.flatten().numpy(), abs=1e-5)
    tokens = json.loads(page.data)["generated"]
    assert [token["text"] for token in tokens] == [token.text for token in explanation.generated]
    alternatives = explanation.generated[0].alternatives
    assert tokens[0]["alternatives"] == [[other.text, other.probability] for other in alternatives]


def test_names_and_tokens_are_text_not_markup(explanation: Explanation) -> None:
    evil = "</script><script>alert(1)</script><b>&amp;"
    generated = [dataclasses.replace(token, text=evil) for token in explanation.generated]
    caption = dataclasses.replace(explanation.caption, text=evil)
    changed = dataclasses.replace(
        explanation,
        generated=generated,
        caption=caption,
        question=evil,
        input_tokens=[evil] * len(explanation.input_tokens),
    )
    page = page_of(changed, name=evil, model=evil)
    assert len(page.of("script")) == 2
    assert len([text for text in page.texts if text == evil]) > 3
    assert json.loads(page.data)["generated"][0]["text"] == evil


def test_an_empty_caption_still_has_a_heading(explanation: Explanation) -> None:
    caption = dataclasses.replace(explanation.caption, text="")
    assert "(empty)" in page_of(dataclasses.replace(explanation, caption=caption)).texts


def colours_of(css: str) -> list[dict[str, str]]:
    """The light and the dark palette."""
    blocks = re.findall(r":root \{([^}]*)\}", css)
    return [dict(re.findall(r"--(\w+): (#\w{6});", block)) for block in blocks]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_letters_have_a_contrast_of_four_and_a_half(scheme: int) -> None:
    palette = colours_of((HERE / "report.css").read_text())[scheme]
    for name in ("ink", "muted", "best", "finished"):
        lights = sorted(map(_light, (palette[name], palette["page"])))
        assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5, name
    lights = sorted(map(_light, (palette["image"], palette["page"])))
    assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 3  # of what is selected or in focus


def _light(colour: str) -> float:
    shades = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in shades]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


def open_report(browser: Any, folder: Path, explanation: Explanation, width: int) -> Any:
    """The report in a browser; its errors are in `tab.errors`."""
    path = folder / "report.html"
    path.write_text(report(explanation, "photo.jpg", "demo"), encoding="utf-8")
    tab = browser.new_page(viewport={"width": width, "height": 800})
    tab.errors = []
    tab.on("console", lambda message: tab.errors.append(message.text))
    tab.on("pageerror", lambda error: tab.errors.append(str(error)))
    tab.goto(path.as_uri())
    tab.wait_for_selector("#tokens button[aria-pressed=true]")
    return tab


READ_BRIGHTNESS = """() => {
    const canvas = document.getElementById("attention-map"), [rows, columns] = data.grid;
    const context = canvas.getContext("2d"), values = [];
    for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++)
        values.push(context.getImageData(
            (column + 0.5) * canvas.width / columns, (row + 0.5) * canvas.height / rows, 1, 1
        ).data[0]);
    return values;
}"""


def test_a_browser_shows_the_map_of_the_selected_token_and_head(
    browser: Any, tmp_path: Path, explanation: Explanation
) -> None:
    white = explanation.frames[0].point(lambda _: 255)
    explanation = dataclasses.replace(explanation, frames=[white])
    tab = open_report(browser, tmp_path, explanation, 1280)
    n = len(explanation.generated) - 1
    tab.click(f"#tokens button[data-token='{n}']")
    assert f"{100 * explanation.generated[n].probability:.1f}" in tab.inner_text("#heading")
    tab.click("#heads button[aria-label='layer 2, head 3']")
    for layer, head, label in ((1, 2, "layer 2, head 3"), (None, None, "all layers, all heads")):
        tab.click(f"#heads button[aria-label='{label}']")
        weights = explanation.patch_attention(layer, head)[n].flatten()
        expected = 255 * (0.12 + 0.88 * weights / weights.max())
        assert tab.evaluate(READ_BRIGHTNESS) == pytest.approx(expected.tolist(), abs=2)
        assert tab.inner_text("#attention-note").lower().startswith(f"attention: {label}")
    assert tab.errors == []
    tab.close()


def test_a_browser_moves_from_token_to_token_by_keyboard(
    browser: Any, tmp_path: Path, explanation: Explanation
) -> None:
    tab = open_report(browser, tmp_path, explanation, 1280)
    tab.focus("#tokens button")
    for _ in range(2):
        tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowLeft")
    pressed = tab.get_attribute("#tokens button[aria-pressed=true]", "data-token")
    assert pressed == "1"
    assert tab.evaluate("document.activeElement.dataset.token") == "1"
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.dataset.token") == "2"
    assert tab.errors == []
    tab.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_never_scrolls_the_page_sideways(
    browser: Any, tmp_path: Path, clip: Explanation, width: int
) -> None:
    tab = open_report(browser, tmp_path, clip, width)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.errors == []
    tab.close()


def test_a_browser_shows_the_attention_to_earlier_text_and_no_later_token(
    browser: Any, tmp_path: Path, explanation: Explanation
) -> None:
    tab = open_report(browser, tmp_path, explanation, 1280)
    for n in (0, len(explanation.generated) - 1):
        tab.click(f"#tokens button[data-token='{n}']")
        shown = tab.eval_on_selector_all(
            "#text-attention span", "spans => spans.map((span) => span.innerText)"
        )
        tokens = explanation.input_tokens[
            : len(explanation.input_tokens) - len(explanation.generated) + n + 1
        ]
        assert [text.split("\n")[0] for text in shown] == tokens
        mean = explanation.text_attention[:, :, n].mean((0, 1))
        for text, share in zip(shown, mean.tolist(), strict=False):
            number = float(re.search(r"[\d.]+(?=\s%)", text).group())
            assert number == pytest.approx(100 * share, abs=0.051)
    tab.close()


def test_a_browser_shows_what_a_blank_patch_costs(browser: Any, tmp_path: Path) -> None:
    captioner = Captioner.from_pretrained("demo")
    explanation = explain(captioner, IMAGES / "two_shapes.png", occlude=True)
    assert explanation.occlusion is not None
    tab = open_report(browser, tmp_path, explanation, 1280)
    n = [token.text for token in explanation.generated].index("blue")
    tab.click(f"#tokens button[data-token='{n}']")
    assert f"costs {explanation.occlusion[n].max():.1f} nats" in tab.inner_text("#occlusion-note")
    assert tab.errors == []
    tab.close()


def test_without_a_measurement_there_is_no_map_of_occlusion(
    browser: Any, tmp_path: Path, explanation: Explanation
) -> None:
    tab = open_report(browser, tmp_path, explanation, 1280)
    assert not tab.is_visible("#occlusion")
    tab.close()


def test_a_token_from_right_to_left_stays_apart_from_its_neighbours(
    explanation: Explanation,
) -> None:
    word = "\u05e9\u05dc\u05d5\u05dd"
    generated = [dataclasses.replace(token, text=word) for token in explanation.generated]
    html = report(dataclasses.replace(explanation, generated=generated), "photo.jpg", "demo")
    tokens = html.split('id="tokens"')[1].split("<noscript>")[0]
    assert tokens.count(f"<bdi>{word}</bdi>") == len(generated)
    assert f">{word}<" not in tokens.replace(f"<bdi>{word}</bdi>", "")


@pytest.fixture(scope="module")
def base_shaped() -> Explanation:
    """Of a model with the layers, heads, patches and image size of GIT-base, but narrow."""
    torch.manual_seed(0)
    config = tiny_config(
        encoder=EncoderConfig(width=48, mlp_width=48),
        decoder=DecoderConfig(vocab_size=len(WORDS), positions=40, width=48, mlp_width=48),
        preprocess=PreprocessConfig(),
    )
    captioner = Captioner(GIT(config).eval(), Tokenizer.from_vocab(WORDS))
    options = DecodingOptions(num_beams=4, min_new_tokens=11, max_new_tokens=12)
    return explain(captioner, picture(1), options=options)


def test_a_model_of_the_released_shape_has_a_report_of_a_few_megabytes(
    base_shaped: Explanation,
) -> None:
    assert base_shaped.image_attention.shape[:2] == (6, 12)
    assert base_shaped.grid == (14, 14)
    assert base_shaped.encoder_attention.shape == (12, 12, 100, 100)  # of 197 tokens
    page = page_of(base_shaped)
    assert len([1 for attributes in page.of("img") if "class" in attributes]) == 12 * 12 + 6 * 12
    assert len(report(base_shaped, "photo.jpg", "base")) < 8e6


def test_a_browser_marks_what_is_cut_at_the_right_edge(
    browser: Any, tmp_path: Path, base_shaped: Explanation
) -> None:
    tab = open_report(browser, tmp_path, base_shaped, 1000)
    assert tab.evaluate("document.documentElement.scrollWidth") == 1000
    wide = ".wide[aria-label='Every layer and head']"
    assert tab.get_attribute(wide, "data-cut") == "right"
    assert "more to the right" in tab.inner_text(f"p.cut-note:has(+ {wide})")
    tab.eval_on_selector(wide, "element => element.scrollTo(1e6, 0)")
    tab.wait_for_selector(f"{wide}[data-cut=left]", state="attached")
    assert tab.errors == []
    tab.close()
