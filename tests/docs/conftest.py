"""What the tests of docs/ share."""

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from browser import chromium
from explorer import DESKTOP, PATIENCE, PHONE, open_page, settle, start_anew

from git_model.captioner import Captioner
from git_model.shapes.world import World, make_world


@pytest.fixture(autouse=True)
def forget_encoders_of_snippets(forget_encoders: None) -> None:
    """A page's snippet may register an encoder."""


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner.from_pretrained("demo")


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    """300 held-out scenes."""
    return [make_world(Random(1000 + i), "held_out") for i in range(300)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def opened(browser: Any) -> Iterator[Any]:
    """One page for all tests, as opening it takes seconds."""
    tab = open_page(browser, DESKTOP)
    settle(tab)
    tab.evaluate("window.first = structuredClone(state)")
    yield tab
    tab.context.close()


@pytest.fixture(scope="module")
def engine(opened: Any) -> Any:
    """The page for the tests that call git.js only; pictures come as base64."""
    opened.set_default_timeout(5 * PATIENCE)
    opened.evaluate("window.bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0))")
    opened.evaluate("window.seen = (text, mask) => model.see(model.preprocess(bytes(text)), mask)")
    return opened


@pytest.fixture
def tab(opened: Any) -> Iterator[Any]:
    start_anew(opened)
    yield opened
    opened.emulate_media(color_scheme="light")
    troubles = [*opened.troubles]
    opened.troubles.clear()
    assert troubles == []


@pytest.fixture
def phone(tab: Any) -> Iterator[Any]:
    tab.set_viewport_size(PHONE)
    yield tab
    tab.set_viewport_size(DESKTOP)
