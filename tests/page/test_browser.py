"""The page in a real browser, as a visitor uses it; `make lint` runs most of it."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import TIMEOUT, chromium
from PIL import Image

from git_model.captioner import Captioner

pytest.importorskip("playwright.sync_api")

IMAGES = Path(__file__).parents[2] / "examples" / "images"
DROP = "#file input[type=file]"


@pytest.fixture(scope="module")
def page_layout() -> Any:
    """Not imported above: gradio takes seconds, even where these tests are not run."""
    return pytest.importorskip("git_model.page.layout")


@pytest.fixture(scope="module")
def page(page_layout: Any) -> Any:
    return page_layout.Page(Captioner.from_pretrained("demo"), "demo", shapes=True)


@pytest.fixture(scope="module")
def address(page: Any, page_layout: Any) -> Iterator[str]:
    """The page of the built-in model, served by a thread."""
    with page_layout.open_port("127.0.0.1", 0) as listening:
        server = page_layout.server_of(page_layout.web_app(page, "127.0.0.1"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join(timeout=30)


@pytest.fixture(scope="module")
def context() -> Iterator[Any]:
    """One for all tests, so that the files of the page are fetched once."""
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 390, "height": 844})
        context.set_default_timeout(TIMEOUT)
        yield context


@pytest.fixture(scope="module")
def window(context: Any, address: str) -> Any:
    """A tab for all tests; its requests to other machines are in `window.foreign`."""
    window, window.foreign = context.new_page(), []
    own = (address, "data:", "blob:", "about:")
    window.on("request", lambda request: None if request.url.startswith(own)
              else window.foreign.append(request.url))  # fmt: skip
    return window


@pytest.fixture
def tab(window: Any, address: str) -> Iterator[Any]:
    """The page on a phone, loaded anew."""
    window.set_viewport_size({"width": 390, "height": 844})
    window.foreign.clear()
    window.goto(address)
    window.wait_for_selector("#caption")
    yield window
    window.unroute_all()


def ask(tab: Any, question: str) -> None:
    tab.fill("#question :is(input, textarea)", question)
    tab.press("#question :is(input, textarea)", "Enter")


def test_an_image_is_captioned_asked_about_classified_and_its_attention_shown(tab: Any) -> None:
    tab.set_input_files(DROP, IMAGES / "five_shapes.png")
    tab.wait_for_selector("#caption button")
    caption = tab.inner_text("#caption .words")
    assert caption == "two green stars and three purple triangles"
    assert "click a word" in tab.inner_text("#details")

    ask(tab, "what is at the top left?")
    tab.wait_for_selector("#answers button")
    assert tab.inner_text("#answers .words") == "a green star"

    tab.fill("#labels textarea", "a red star, a green circle\na green star")
    tab.click("#classify")
    tab.wait_for_selector("#bars table")
    assert tab.locator("#bars tr").count() == 3

    plain = tab.get_attribute("#image img", "src")
    tab.click("#caption button >> nth=2")
    tab.wait_for_selector("#details:has-text('“stars”: the model used')")
    assert tab.get_attribute("#image img", "src") != plain
    tab.click("#caption button >> nth=2")
    tab.wait_for_selector("#details:has-text('click a word')")
    assert tab.get_attribute("#image img", "src") == plain

    assert tab.foreign == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def is_visible_in_window(tab: Any, selector: str) -> bool:
    """Whether a part of it lies within the window, once the page has stopped to scroll."""
    code = """element => new Promise((done) => {
      let last = NaN;
      const timer = setInterval(() => {
        const { top, bottom } = element.getBoundingClientRect();
        if (top === last) { clearInterval(timer); done(bottom > 0 && top < innerHeight); }
        last = top;
      }, 150);
    })"""
    return bool(tab.eval_on_selector(selector, code))


@pytest.mark.slow
def test_on_a_phone_the_image_and_errors_scroll_into_the_window(tab: Any) -> None:
    tab.click("#random")
    tab.wait_for_selector("#caption button")
    for number, side in enumerate(("left", "right", "top", "bottom"), start=1):
        ask(tab, f"what is at the {side}?")
        tab.wait_for_function(f"document.querySelectorAll('#answers .words').length == {number}")
    tab.fill("#labels textarea", "")
    tab.locator("#classify").scroll_into_view_if_needed()
    assert not is_visible_in_window(tab, "#image img")
    tab.click("#classify")
    tab.wait_for_selector("#labels-notice .notice")
    assert is_visible_in_window(tab, "#labels-notice .notice")
    tab.click("#answers .reply:last-child button >> nth=0")
    tab.wait_for_selector("#details:has-text('the brighter parts')")
    assert is_visible_in_window(tab, "#image img")


@pytest.mark.slow
def test_the_selected_word_stays_selected_after_another_answer(tab: Any) -> None:
    tab.set_input_files(DROP, IMAGES / "five_shapes.png")
    tab.wait_for_selector("#caption button")
    ask(tab, "what is at the top left?")
    tab.click("#answers button:has-text('star')")
    tab.wait_for_selector("#details:has-text('“star”: the model used')")
    ask(tab, "how many black things are there?")
    tab.wait_for_selector("#answers .words >> nth=1")
    assert tab.inner_text("#answers button[aria-pressed=true]") == "star"
    tab.click("#answers button:has-text('star')")
    tab.wait_for_selector("#details:has-text('click a word')")
    ask(tab, "is there a green star?")
    tab.wait_for_selector("#answers .words >> nth=2")
    assert tab.locator("button[aria-pressed=true]").count() == 0


@pytest.mark.slow
def test_a_question_that_fails_comes_back_and_an_answered_one_is_gone(tab: Any) -> None:
    box = "#question :is(input, textarea)"
    ask(tab, "what is it?")
    tab.wait_for_selector("#question-notice .notice")
    tab.wait_for_function(f"document.querySelector('{box}').value == 'what is it?'")
    tab.click("#random")
    tab.wait_for_selector("#caption button")
    ask(tab, "what is it?")
    tab.wait_for_function(f"document.querySelector('{box}').value == ''")
    tab.wait_for_selector(".notice:visible", state="hidden")


@pytest.mark.slow
def test_an_error_stands_beside_its_cause_until_the_next_good_action(
    tab: Any, page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def require_error(data: bytes | Path, text: str, part: str = "#picture-notice") -> None:
        sent = data if isinstance(data, Path) else {
            "name": "x.png", "mimeType": "image/png", "buffer": data
        }  # fmt: skip
        tab.set_input_files(DROP, sent)
        tab.wait_for_selector(f"{part} .notice:has-text('{text}')")
        assert tab.locator(".notice:visible").count() == 1

    require_error(b"hello", "X.png: neither an image nor")
    assert "Traceback" not in tab.content()

    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    require_error(b"\0\0\0\x18ftypheic" + bytes(40), "git-model[heif]")
    tab.set_input_files(DROP, IMAGES / "five_shapes.png")
    tab.wait_for_selector("#caption button")
    tab.wait_for_selector(".notice:visible", state="hidden")

    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(20 * 2**20 + 1)
    require_error(large, "The file is larger than 20 MB.", "#file")
    ask(tab, "is there a star?")  # with the Enter key: no click
    tab.wait_for_selector("#answers .words")
    tab.wait_for_selector(".notice:visible", state="hidden")

    require_error(b"hello", "The earlier picture stays.")
    assert tab.inner_text("#caption .words") == "two green stars and three purple triangles"
    tab.route("**/upload", lambda route: route.abort())
    tab.set_input_files(DROP, IMAGES / "five_shapes.png")
    tab.wait_for_selector("#file .notice:has-text('The file could not be sent')")
    assert len(page.uploads) == 0
    tab.click("#samples button >> nth=0")
    tab.wait_for_selector("#caption button:has-text('cross')")
    tab.wait_for_selector(".notice:visible", state="hidden")


PARTS = ["#image", "#file", "#samples", "#caption", "#question", "#labels", "#classify"]


def places(tab: Any) -> dict[str, list[float]]:
    """The place of each part on the page, and its size where it must not grow either."""
    code = """parts => Object.fromEntries(parts.map((part) => {
      const box = document.querySelector(part).getBoundingClientRect();
      const size = part === '#caption' ? [] : [box.width, box.height];
      return [part, [box.x, box.y + scrollY, ...size]];
    }))"""
    return dict(tab.evaluate(code, PARTS))


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_moves_when_a_picture_arrives_and_its_caption_is_in_sight(
    tab: Any, tmp_path: Path, width: int
) -> None:
    tab.set_viewport_size({"width": width, "height": 844})
    tab.wait_for_selector("#samples img")
    tab.wait_for_function("document.querySelector('#image').offsetHeight > 200")
    before = places(tab)
    assert min(size for _, _, *sizes in before.values() for size in sizes) > 0
    tall, wide = tmp_path / "tall.png", tmp_path / "wide.jpg"
    Image.new("RGB", (90, 900)).save(tall)
    Image.new("RGB", (2000, 150)).save(wide)
    for number in (2, 5):  # the longest caption, and a clip
        tab.click(f"#samples button >> nth={number}")
        tab.wait_for_selector(f"#caption button:has-text('{['yellow', 'turquoise'][number > 2]}')")
        assert places(tab) == before
        assert tab.evaluate("scrollY") == 0
        bottom = tab.eval_on_selector("#caption", "part => part.getBoundingClientRect().bottom")
        assert bottom <= 844
    tab.click("#caption button >> nth=1")
    tab.wait_for_selector("#details:has-text('the brighter parts')")
    assert places(tab) == before
    for path in (tall, wide):
        tab.set_input_files(DROP, path)
        tab.wait_for_selector(f"#caption:has-text('{Image.open(path).height} pixels')")
        assert places(tab) == before
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_the_examples_their_questions_and_classes_can_be_used_with_the_keyboard(tab: Any) -> None:
    tab.wait_for_selector("#samples button")
    tab.focus(DROP)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.ariaLabel") == "Example: drawing 1"
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#caption button")
    assert tab.inner_text("#caption .words") == "a red cross"
    tab.focus("#suggestions button >> nth=0")
    tab.keyboard.press("Space")
    tab.wait_for_selector("#answers .words")
    assert tab.inner_text("#answers .question") == "is there a black star?"
    assert tab.inner_text("#answers .words") == "no"
    tab.focus("#classify")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#bars table")
    assert tab.inner_text("#bars th >> nth=0") == "a red cross"
    assert "None of these" not in tab.inner_text("#bars")
    tab.fill("#labels textarea", "a blue star, a green circle")
    tab.click("#classify")
    tab.wait_for_selector("#bars .verdict:has-text('None of these')")


@pytest.mark.slow
def test_text_has_enough_contrast_in_light_and_dark(tab: Any) -> None:
    """At least 4.5 to 1, as WCAG 2.2 (1.4.3) asks, for every text but placeholders."""
    code = """() => {
      const channels = (colour) => {
        const canvas = new OffscreenCanvas(1, 1).getContext('2d');
        canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
      };
      const light = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
        const c = rgb[i] / 255;
        return sum + weight * (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
      }, 0);
      const low = [];
      const main = document.querySelector('main');
      const walker = document.createTreeWalker(main, NodeFilter.SHOW_TEXT);
      while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
        let ground = node;
        const filled = (part) => channels(getComputedStyle(part).backgroundColor)[3] === 255;
        while (ground.parentElement && !filled(ground)) ground = ground.parentElement;
        const back = channels(getComputedStyle(ground).backgroundColor);
        const text = channels(getComputedStyle(node).color);
        const share = text[3] / 255;
        const mixed = [0, 1, 2].map((i) => text[i] * share + back[i] * (1 - share));
        const [a, b] = [light(mixed), light(back)].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) low.push([walker.currentNode.data.trim().slice(0, 40), ratio]);
      }
      return low;
    }"""
    tab.wait_for_selector("#samples button")
    tab.set_input_files(DROP, IMAGES / "five_shapes.png")
    tab.wait_for_selector("#caption button")
    tab.click("#caption button >> nth=1")
    tab.wait_for_selector("#details:has-text('the brighter parts')")
    tab.click("#classify")
    tab.wait_for_selector("#bars table")
    tab.fill("#labels textarea", "")
    tab.click("#classify")
    tab.wait_for_selector("#labels-notice .notice")
    for scheme in ("light", "dark"):
        tab.evaluate(f"document.body.classList.toggle('dark', {str(scheme == 'dark').lower()})")
        tab.evaluate("document.getAnimations().forEach((animation) => animation.finish())")
        assert (scheme, tab.evaluate(code)) == (scheme, [])


@pytest.mark.slow
@pytest.mark.parametrize("way", ["drop", "paste"])
def test_an_image_can_be_dropped_and_pasted(tab: Any, way: str) -> None:
    data = list((IMAGES / "five_shapes.png").read_bytes())
    code = """([way, data]) => {
      const files = new DataTransfer();
      files.items.add(new File([new Uint8Array(data)], 'x.png', { type: 'image/png' }));
      const event = way === 'drop'
        ? new DragEvent('drop', { dataTransfer: files, bubbles: true, cancelable: true })
        : new ClipboardEvent('paste', { clipboardData: files, bubbles: true, cancelable: true });
      document.querySelector(way === 'drop' ? '#image figure' : 'body').dispatchEvent(event);
    }"""
    tab.wait_for_selector("#file label")
    tab.evaluate(code, [way, data])
    tab.wait_for_selector("#caption button")
    assert tab.inner_text("#caption .words") == "two green stars and three purple triangles"


@pytest.mark.slow
def test_a_tab_does_not_see_the_image_of_another(tab: Any, address: str) -> None:
    tab.click("#samples button >> nth=5")
    tab.wait_for_selector("#caption button")
    other = tab.context.new_page()
    other.goto(address)
    other.wait_for_selector("#caption")
    ask(other, "what is at the top left?")
    other.wait_for_selector("#question-notice .notice:has-text('no picture yet')")
    other.close()


@pytest.mark.slow
def test_the_session_of_a_closed_page_is_dropped(tab: Any, page: Any) -> None:
    before = len(page.sessions)
    other = tab.context.new_page()
    other.goto(tab.url)
    other.click("#random")
    other.wait_for_selector("#caption button")
    assert len(page.sessions) == before + 1
    other.close()
    for _ in range(100):
        if len(page.sessions) <= before:
            break
        tab.wait_for_timeout(100)
    assert len(page.sessions) <= before
