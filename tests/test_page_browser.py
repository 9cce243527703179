"""The page in a real browser: what somebody does who opens it."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium

from git_model.captioner import Captioner

sync_api = pytest.importorskip("playwright.sync_api")
page_layout = pytest.importorskip("git_model.page.layout")

IMAGES = Path(__file__).parent.parent / "examples" / "images"
DROP = "#file input[type=file]"
PATIENCE = 60_000  # milliseconds, on a busy machine


@pytest.fixture(scope="module")
def page() -> Any:
    return page_layout.Page(Captioner.from_pretrained("demo"), "demo", shapes=True)


@pytest.fixture(scope="module")
def address(page: Any) -> Iterator[str]:
    """The page of the built-in model, served by a thread."""
    with page_layout.open_port("127.0.0.1", 0) as listening:
        server = page_layout.server_of(page_layout.web_app(page, "127.0.0.1"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join(timeout=30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def tab(browser: Any, address: str) -> Iterator[Any]:
    """An open page on a phone; whatever it asks of another machine is in `tab.foreign`."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    context.set_default_timeout(PATIENCE)
    tab, tab.foreign = context.new_page(), []
    tab.on("request", lambda one: None if one.url.startswith((address, "data:", "blob:"))
           else tab.foreign.append(one.url))  # fmt: skip
    tab.goto(address)
    tab.wait_for_selector("#caption")
    yield tab
    context.close()


def ask(tab: Any, question: str) -> None:
    tab.fill("#question :is(input, textarea)", question)
    tab.press("#question :is(input, textarea)", "Enter")


def test_a_picture_is_captioned_asked_about_classified_and_looked_at(tab: Any) -> None:
    tab.set_input_files(DROP, IMAGES / "five_shapes.png")
    tab.wait_for_selector("#caption button")
    caption = tab.inner_text("#caption .words")
    assert caption == "two green stars and three purple triangles"
    assert "Read the picture once" in tab.inner_text("#picture")

    ask(tab, "what is at the top left?")
    tab.wait_for_selector("#answers button")
    assert tab.inner_text("#answers .words") == "a green star"

    tab.fill("#labels textarea", "a red star, a green circle\na green star")
    tab.click("#classify")
    tab.wait_for_selector("#bars table")
    assert tab.locator("#bars tr").count() == 3

    plain = tab.get_attribute("#picture img", "src")
    tab.click("#caption button >> nth=2")
    tab.wait_for_selector("#picture figcaption:has-text('looked for “stars”')")
    assert tab.get_attribute("#picture img", "src") != plain
    tab.click("#caption button >> nth=2")
    tab.wait_for_selector("#picture figcaption:has-text('Read the picture once')")
    assert tab.get_attribute("#picture img", "src") == plain

    assert tab.foreign == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def in_sight(tab: Any, selector: str) -> bool:
    """Whether some of it lies within the window, once the page has stopped to scroll."""
    code = """one => new Promise((done) => {
      let last = NaN;
      const look = setInterval(() => {
        const { top, bottom } = one.getBoundingClientRect();
        if (top === last) { clearInterval(look); done(bottom > 0 && top < innerHeight); }
        last = top;
      }, 150);
    })"""
    return bool(tab.eval_on_selector(selector, code))


def test_on_a_phone_the_picture_and_errors_come_into_sight(tab: Any) -> None:
    tab.click("text=Draw a picture")
    tab.wait_for_selector("#caption button")
    for number, place in enumerate(("left", "right", "top", "bottom"), start=1):
        ask(tab, f"what is at the {place}?")
        tab.wait_for_function(f"document.querySelectorAll('#answers .said').length == {number}")
    tab.fill("#labels textarea", "")
    tab.locator("#classify").scroll_into_view_if_needed()
    assert not in_sight(tab, "#picture img")
    tab.click("#classify")
    tab.wait_for_selector(".notice")
    assert in_sight(tab, ".notice")
    tab.click("#answers .said:last-child button >> nth=0")
    tab.wait_for_selector("#picture figcaption:has-text('Where it looked')")
    assert in_sight(tab, "#picture img")


def test_the_word_whose_look_is_shown_stays_marked_behind_another_answer(tab: Any) -> None:
    tab.set_input_files(DROP, IMAGES / "five_shapes.png")
    tab.wait_for_selector("#caption button")
    ask(tab, "what is at the top left?")
    tab.click("#answers button:has-text('star')")
    tab.wait_for_selector("#picture figcaption:has-text('looked for “star”')")
    ask(tab, "how many black things are there?")
    tab.wait_for_selector("#answers .said >> nth=1")
    assert tab.inner_text("#answers button[aria-pressed=true]") == "star"
    tab.click("#answers button:has-text('star')")
    tab.wait_for_selector("#picture figcaption:has-text('Read the picture once')")
    ask(tab, "is there a green star?")
    tab.wait_for_selector("#answers .said >> nth=2")
    assert tab.locator("button[aria-pressed=true]").count() == 0


def test_a_question_that_fails_comes_back_and_one_that_is_asked_is_gone(tab: Any) -> None:
    box = "#question :is(input, textarea)"
    ask(tab, "what is it?")
    tab.wait_for_selector(".notice")
    tab.wait_for_function(f"document.querySelector('{box}').value == 'what is it?'")
    tab.click("text=Draw a picture")
    tab.wait_for_selector("#caption button")
    ask(tab, "what is it?")
    tab.wait_for_function(f"document.querySelector('{box}').value == ''")


def test_what_is_no_picture_gives_one_line(tab: Any) -> None:
    tab.set_input_files(DROP, {"name": "x.png", "mimeType": "image/png", "buffer": b"hello"})
    tab.wait_for_selector(".notice")
    assert tab.inner_text(".notice").startswith("The file")
    assert "Traceback" not in tab.content()


def test_a_file_that_cannot_be_sent_gives_one_line_beside_it_until_the_next_click(
    tab: Any, page: Any
) -> None:
    large = {"name": "x.png", "mimeType": "image/png", "buffer": bytes(20 * 2**20 + 1)}
    tab.set_input_files(DROP, large)
    tab.wait_for_selector("#file .notice")
    assert tab.inner_text("#file .notice") == "The file is larger than 20 MB."
    tab.click("text=Draw a picture")
    tab.wait_for_selector("#caption button")
    assert not tab.is_visible("#file .notice")
    tab.route("**/upload", lambda route: route.abort())
    tab.set_input_files(DROP, IMAGES / "five_shapes.png")
    tab.wait_for_selector("#file .notice")
    assert tab.inner_text("#file .notice").startswith("The file could not be sent")
    assert len(page.uploads) == 0


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_can_be_dropped_and_pasted(tab: Any, way: str) -> None:
    data = list((IMAGES / "five_shapes.png").read_bytes())
    code = """([way, data]) => {
      const files = new DataTransfer();
      files.items.add(new File([new Uint8Array(data)], 'x.png', { type: 'image/png' }));
      const event = way === 'drop'
        ? new DragEvent('drop', { dataTransfer: files, bubbles: true, cancelable: true })
        : new ClipboardEvent('paste', { clipboardData: files, bubbles: true, cancelable: true });
      document.querySelector(way === 'drop' ? '#file label span' : 'body').dispatchEvent(event);
    }"""
    tab.wait_for_selector("#file label")
    tab.evaluate(code, [way, data])
    tab.wait_for_selector("#caption button")
    assert tab.inner_text("#caption .words") == "two green stars and three purple triangles"


def test_one_tab_does_not_see_the_picture_of_another(tab: Any, address: str) -> None:
    tab.click("text=Draw a clip")
    tab.wait_for_selector("#caption button")
    other = tab.context.new_page()
    other.goto(address)
    other.wait_for_selector("#caption")
    ask(other, "what is at the top left?")
    other.wait_for_selector(".notice")
    assert "no picture yet" in other.inner_text(".notice")


def test_a_page_that_is_closed_is_forgotten(tab: Any, page: Any) -> None:
    before = len(page.visits)
    other = tab.context.new_page()
    other.goto(tab.url)
    other.click("text=Draw a picture")
    other.wait_for_selector("#caption button")
    assert len(page.visits) == before + 1
    other.close()
    for _ in range(100):
        if len(page.visits) <= before:
            break
        tab.wait_for_timeout(100)
    assert len(page.visits) <= before
