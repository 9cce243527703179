"""The page docs/explorer in a browser, for its tests."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from git_model.captioner import Captioner
from git_model.preprocessing.image import preprocess_batch

FOLDER = Path(__file__).parent.parent / "docs" / "explorer"
PAGE = (FOLDER / "index.html").as_uri()
PATIENCE = 60_000  # milliseconds, on a busy machine
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 860}
CAPTION = "a large red circle above and to the left of a large purple star"  # of the first picture
PANELS = ("stages", "attention", "lens", "beams", "masks", "blank")


def open_page(browser: Any, viewport: dict[str, int], scheme: str = "light") -> Any:
    """The page; whatever goes wrong or is requested from elsewhere is in `tab.troubles`."""
    context = browser.new_context(
        viewport=viewport, color_scheme=scheme, reduced_motion="reduce", has_touch=False
    )
    context.set_default_timeout(PATIENCE)
    tab, troubles = context.new_page(), []
    tab.troubles = troubles
    tab.on("console", lambda message: troubles.append(message.text))
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    own = (FOLDER.as_uri(), "data:")
    tab.on("request", lambda request: request.url.startswith(own) or troubles.append(request.url))
    tab.goto(PAGE)
    tab.wait_for_function("document.querySelectorAll('#caption .word').length > 0")
    return tab


def start_anew(tab: Any) -> None:
    """Bring the page back to how it was opened."""
    tab.evaluate(
        """() => {
            if (tourStep >= 0) endTour();
            delete document.documentElement.dataset.theme;
            showTheme();
            document.querySelectorAll("#question, #file").forEach((field) => (field.value = ""));
            document.activeElement.blur();
            change(structuredClone(first));
            scrollTo(0, 0);
        }"""
    )
    settle(tab)
    tab.mouse.move(0, 0)


def caption_of(tab: Any) -> str:
    """What the model wrote, without the end."""
    settle(tab)
    return " ".join(tab.locator("#caption .word:not(.end)").all_inner_texts())


def settle(tab: Any) -> None:
    """Wait until the page shows the state, however busy the machine is."""
    tab.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    tab.wait_for_function("!frame && !settling")


def encoded(image: Image.Image) -> str:
    return base64.b64encode(np.asarray(image).tobytes()).decode()


def pixels_of(captioner: Captioner, *images: Image.Image) -> torch.Tensor:
    return preprocess_batch(images, captioner.model.config.preprocess)
