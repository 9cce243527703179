"""The figures of the documentation are what the code draws today, in numbers and in pixels."""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "figures"
NAMES = [path.stem for path in sorted(FOLDER.glob("*.png"))]
QUICK = ("cache", "layers", "mask", "metrics", "patches", "tokens")  # `make lint` draws the others
TOLERANCE = 0.01  # of the numbers, which have three digits
# Of the mean difference of pixels, 0 to 255: another version of matplotlib may place letters anew.
PIXELS = 6.0


@pytest.fixture(scope="module")
def figures() -> Iterator[ModuleType]:
    """docs/figures.py, which imports modules from its own folder."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        yield importlib.import_module("figures")
    finally:
        sys.path.remove(str(ROOT / "docs"))


def data_of(path: Path) -> Any:
    with Image.open(path) as image:
        return json.loads(image.text["data"])


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L").reduce(4), dtype=float)


def differences(new: Any, old: Any) -> list[str]:
    """Where two structures of numbers, words, lists and tables differ."""
    if isinstance(new, dict) and isinstance(old, dict) and new.keys() == old.keys():
        return [f"{key}: {text}" for key in new for text in differences(new[key], old[key])]
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [text for pair in zip(new, old, strict=True) for text in differences(*pair)]
    if isinstance(new, int | float) and isinstance(old, int | float):
        return [] if abs(new - old) <= TOLERANCE * max(1, abs(old)) else [f"{new}, was {old}"]
    return [] if new == old else [f"{new}, was {old}"]


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES],
)
def test_a_figure_drawn_anew_is_the_one_in_the_repository(
    name: str, figures: ModuleType, tmp_path: Path
) -> None:
    new, old = figures.save(name, tmp_path), FOLDER / f"{name}.png"
    assert differences(data_of(new), data_of(old)) == []
    assert pixels_of(new).shape == pytest.approx(pixels_of(old).shape, rel=0.02)
    if pixels_of(new).shape == pixels_of(old).shape:
        assert np.abs(pixels_of(new) - pixels_of(old)).mean() < PIXELS


def test_there_is_a_file_for_every_figure_and_a_page_that_shows_it(figures: ModuleType) -> None:
    assert sorted(figures.FIGURES) == NAMES
    pages = "".join(path.read_text() for path in (ROOT / "docs").rglob("*.md"))
    assert sorted(set(re.findall(r"figures/(\w+)\.png", pages))) == NAMES


def test_figures_are_small_files() -> None:
    assert max(path.stat().st_size for path in FOLDER.glob("*.png")) < 300_000


def test_another_number_is_noticed() -> None:
    assert differences({"a": [1, 2.0]}, {"a": [1, 2.001]}) == []
    assert differences({"a": [1, 2.0]}, {"a": [1, 2.5]}) == ["a: 2.0, was 2.5"]
    assert differences({"a": [1]}, {"a": [1, 2]}) != []
