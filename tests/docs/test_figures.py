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
DRAWN = [path.stem for path in sorted(FOLDER.glob("*.png"))]
TOLERANCE = 0.01  # of the numbers, which have three digits
# Of the mean difference of pixels, 0 to 255: another version of matplotlib may set letters anew.
PIXELS = 6.0


@pytest.fixture(scope="module")
def figures() -> Iterator[ModuleType]:
    """docs/figures.py, which imports what lies beside it."""
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


def apart(one: Any, other: Any) -> list[str]:
    """Where two structures of numbers, words, lists and tables differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [f"{key}: {x}" for key in one for x in apart(one[key], other[key])]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [x for pair in zip(one, other, strict=True) for x in apart(*pair)]
    if isinstance(one, int | float) and isinstance(other, int | float):
        return [] if abs(one - other) <= TOLERANCE * max(1, abs(other)) else [f"{one}, was {other}"]
    return [] if one == other else [f"{one}, was {other}"]


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_drawn_anew_is_the_one_that_is_here(
    name: str, figures: ModuleType, tmp_path: Path
) -> None:
    new, old = figures.save(name, tmp_path), FOLDER / f"{name}.png"
    assert apart(data_of(new), data_of(old)) == []
    assert pixels_of(new).shape == pytest.approx(pixels_of(old).shape, rel=0.02)
    if pixels_of(new).shape == pixels_of(old).shape:
        assert np.abs(pixels_of(new) - pixels_of(old)).mean() < PIXELS


def test_there_is_a_file_for_every_figure_and_a_page_that_shows_it(figures: ModuleType) -> None:
    assert sorted(figures.FIGURES) == DRAWN
    pages = "".join(path.read_text() for path in (ROOT / "docs").rglob("*.md"))
    assert sorted(set(re.findall(r"figures/(\w+)\.png", pages))) == DRAWN


def test_figures_are_small_files() -> None:
    assert max(path.stat().st_size for path in FOLDER.glob("*.png")) < 200_000


def test_another_number_is_seen() -> None:
    assert apart({"a": [1, 2.0]}, {"a": [1, 2.001]}) == []
    assert apart({"a": [1, 2.0]}, {"a": [1, 2.5]}) == ["a: 2.0, was 2.5"]
    assert apart({"a": [1]}, {"a": [1, 2]}) != []
