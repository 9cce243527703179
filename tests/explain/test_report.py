"""The report: one HTML file that needs nothing else."""

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
from browser import chromium
from test_captioner import exact_captioner, picture

from git_model import Captioner, DecodingOptions
from git_model.explain.explanation import Explanation, explain
from git_model.explain.report import HERE, report

IMAGES = Path(__file__).parents[2] / "examples" / "images"


@pytest.fixture(scope="module")
def found() -> Explanation:
    options = DecodingOptions(num_beams=3, max_new_tokens=6, min_new_tokens=4)
    return explain(exact_captioner(), picture(1), "word5 word6", options)


@pytest.fixture(scope="module")
def clip() -> Explanation:
    return explain(Captioner.from_pretrained("demo"), IMAGES / "one_acts_twice.gif")


class Page(HTMLParser):
    """What a page is made of: tags with attributes, text, and tags that are still open."""

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


def page_of(found: Explanation, name: str = "photo.jpg", model: str = "demo") -> Page:
    page = Page(report(found, name, model))
    assert page.open == []  # every tag is closed, in order
    return page


def numbers_of(page: Page, name: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(json.loads(page.data)[name]), dtype="<u2")


def test_the_report_names_no_other_file_and_no_address(found: Explanation) -> None:
    page, html = page_of(found), report(found, "photo.jpg", "demo")
    for _, attributes in page.tags:
        assert not {"href", "srcset", "data-src", "action"} & attributes.keys()
        assert (attributes.get("src") or "data:").startswith("data:image/png;base64,") or (
            "src" not in attributes
        )
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html
    assert "default-src 'none'" in html  # a browser would refuse them, too


def test_every_part_is_there(found: Explanation) -> None:
    page = page_of(found)
    assert [text for text in page.texts if text == found.question]
    assert len(page.of("button")) == len(found.words)
    kinds = [attributes.get("class") for attributes in page.of("svg")]
    assert kinds == [None, "mask", "tree"]  # over the picture, the mask, the beams
    text = " ".join(page.texts)
    for word in found.words:
        assert word.text in text
        assert f"{100 * word.probability:.1f}" in text


def test_without_beams_there_is_no_tree_and_a_clip_has_a_table_of_frames(
    clip: Explanation,
) -> None:
    page = page_of(clip)
    assert "tree" not in [attributes.get("class") for attributes in page.of("svg")]
    assert "Frames" in page.texts
    assert len(page.of("img")) == 6 + len(clip.words)
    share = f"{100 * clip.frame_shares()[2, 0].item():.1f}\u00a0%"
    assert share in page.texts


def test_the_numbers_are_those_of_the_explanation(found: Explanation) -> None:
    page = page_of(found)
    for name, expected in (
        ("maps", found.image_attention[..., 1:]),
        ("rollout", found.rollout),
        ("text", found.text_attention),
        ("classes", found.image_attention[..., 0].sum(-1)),
    ):
        values = numbers_of(page, name) / 65535
        assert values == pytest.approx(expected.flatten().numpy(), abs=1e-5)
    words = json.loads(page.data)["words"]
    assert [word["text"] for word in words] == [word.text for word in found.words]
    assert words[0]["others"] == [[one.text, one.probability] for one in found.words[0].runners_up]


def test_what_names_hold_is_text_not_markup(found: Explanation) -> None:
    evil = "</script><script>alert(1)</script><b>&amp;"
    words = [dataclasses.replace(word, text=evil) for word in found.words]
    caption = dataclasses.replace(found.caption, text=evil)
    changed = dataclasses.replace(
        found, words=words, caption=caption, question=evil, tokens=[evil] * len(found.tokens)
    )
    page = page_of(changed, name=evil, model=evil)
    assert len(page.of("script")) == 2
    assert len([text for text in page.texts if text == evil]) > 3
    assert json.loads(page.data)["words"][0]["text"] == evil


def test_an_empty_caption_still_has_a_heading(found: Explanation) -> None:
    caption = dataclasses.replace(found.caption, text="")
    assert "(no words)" in page_of(dataclasses.replace(found, caption=caption)).texts


def colours_of(css: str) -> list[dict[str, str]]:
    """The light and the dark palette."""
    blocks = re.findall(r":root \{([^}]*)\}", css)
    return [dict(re.findall(r"--(\w+): (#\w{6});", block)) for block in blocks]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_letters_have_a_contrast_of_four_and_a_half(scheme: int) -> None:
    palette = colours_of((HERE / "report.css").read_text())[scheme]
    for name in ("ink", "quiet", "chosen", "ended"):
        lights = sorted(map(_light, (palette[name], palette["page"])))
        assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5, name
    lights = sorted(map(_light, (palette["image"], palette["page"])))
    assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 3  # of what is pressed or in focus


def _light(colour: str) -> float:
    shades = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in shades]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


def opened(browser: Any, folder: Path, found: Explanation, width: int) -> Any:
    """The report in a browser; what went wrong there is in `tab.faults`."""
    path = folder / "report.html"
    path.write_text(report(found, "photo.jpg", "demo"), encoding="utf-8")
    tab = browser.new_page(viewport={"width": width, "height": 800})
    tab.faults = []
    tab.on("console", lambda one: tab.faults.append(one.text))
    tab.on("pageerror", lambda one: tab.faults.append(str(one)))
    tab.goto(path.as_uri())
    tab.wait_for_selector("#words button[aria-pressed=true]")
    return tab


LIGHT_OF = """() => {
    const canvas = document.getElementById("raw"), [rows, columns] = data.grid;
    const context = canvas.getContext("2d"), found = [];
    for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++)
        found.push(context.getImageData(
            (column + 0.5) * canvas.width / columns, (row + 0.5) * canvas.height / rows, 1, 1
        ).data[0]);
    return found;
}"""


def test_a_browser_shows_the_map_of_the_word_and_head_that_were_chosen(
    browser: Any, tmp_path: Path, found: Explanation
) -> None:
    white = found.frames[0].point(lambda _: 255)
    found = dataclasses.replace(found, frames=[white])
    tab = opened(browser, tmp_path, found, 1280)
    n = len(found.words) - 1
    tab.click(f"#words button[data-word='{n}']")
    assert f"{100 * found.words[n].probability:.1f}" in tab.inner_text("#heading")
    tab.click("#heads button[aria-label='layer 2, head 3']")
    for layer, head, label in ((1, 2, "layer 2, head 3"), (None, None, "all layers, all heads")):
        tab.click(f"#heads button[aria-label='{label}']")
        weights = found.patches(layer, head)[n].flatten()
        expected = 255 * (0.12 + 0.88 * weights / weights.max())
        assert tab.evaluate(LIGHT_OF) == pytest.approx(expected.tolist(), abs=2)
        assert tab.inner_text("#raw-note").lower().startswith(f"attention: {label}")
    assert tab.faults == []
    tab.close()


def test_a_browser_goes_from_word_to_word_by_keyboard(
    browser: Any, tmp_path: Path, found: Explanation
) -> None:
    tab = opened(browser, tmp_path, found, 1280)
    tab.focus("#words button")
    for _ in range(2):
        tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowLeft")
    pressed = tab.get_attribute("#words button[aria-pressed=true]", "data-word")
    assert pressed == "1"
    assert tab.evaluate("document.activeElement.dataset.word") == "1"
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.dataset.word") == "2"
    assert tab.faults == []
    tab.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_never_scrolls_the_page_sideways(
    browser: Any, tmp_path: Path, clip: Explanation, width: int
) -> None:
    tab = opened(browser, tmp_path, clip, width)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.faults == []
    tab.close()


def test_a_browser_shows_what_the_text_before_got_and_nothing_of_what_comes_later(
    browser: Any, tmp_path: Path, found: Explanation
) -> None:
    tab = opened(browser, tmp_path, found, 1280)
    for n in (0, len(found.words) - 1):
        tab.click(f"#words button[data-word='{n}']")
        shown = tab.eval_on_selector_all("#said span", "all => all.map(one => one.innerText)")
        tokens = found.tokens[: len(found.tokens) - len(found.words) + n + 1]
        assert [text.split("\n")[0] for text in shown] == tokens
        mean = found.text_attention[:, :, n].mean((0, 1))
        for text, share in zip(shown, mean.tolist(), strict=False):
            number = float(re.search(r"[\d.]+(?=\s%)", text).group())
            assert number == pytest.approx(100 * share, abs=0.051)
    tab.close()
