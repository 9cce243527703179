"""The documentation as a site."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_structure import ROOMS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return folder


def test_every_page_of_the_documentation_is_there(site: Path) -> None:
    for path in (ROOT / "docs").rglob("*.md"):
        name = path.relative_to(ROOT / "docs").with_suffix("")
        page = site / name.parent / ("" if name.stem == "index" else name.stem) / "index.html"
        assert page.is_file(), path
    assert "How the tests are laid out" in (site / "contributing" / "index.html").read_text()


def test_every_room_has_its_reference(site: Path) -> None:
    for room in ROOMS:
        if room != "__main__":
            page = site / "reference" / "git_model" / room.replace(".", "/") / "index.html"
            assert page.is_file(), room


def test_the_fields_of_a_class_are_a_list(site: Path) -> None:
    page = site / "reference" / "git_model" / "explain" / "beam_tree" / "index.html"
    fields = re.findall(r"<li><code>(\w+)</code>: ", page.read_text())
    assert fields == ["text", "tokens", "probability", "score", "parent", "fate", "chosen"]


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]* src="([^"]+)"', page.read_text())
        loaded += re.findall(r'<link[^>]* rel="stylesheet"[^>]* href="([^"]+)"', page.read_text())
        assert [one for one in loaded if one.startswith(("http", "//"))] == [], page
