"""The documentation as a site."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = [
    path.relative_to(ROOT).with_suffix("")
    for package in ("git_model", "weights_convert")
    for path in sorted((ROOT / package).rglob("*.py"))
    if not path.name.startswith("_")
]


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
    assert "Unreleased" in (site / "changelog" / "index.html").read_text()


def test_every_module_has_its_reference(site: Path) -> None:
    assert Path("git_model/model/attention") in MODULES
    for module in MODULES:
        assert (site / "reference" / module / "index.html").is_file(), module


def test_the_fields_of_a_class_are_a_list(site: Path) -> None:
    page = site / "reference" / "git_model" / "explain" / "beam_tree" / "index.html"
    fields = re.findall(r"<li><code>(\w+)</code>: ", page.read_text())
    assert fields == [
        "text", "tokens", "probability", "score", "parent", "outcome", "on_best_path",
    ]  # fmt: skip


def test_the_site_loads_nothing_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        urls = re.findall(r'<(?:script|img|iframe|source)[^>]* src="([^"]+)"', page.read_text())
        urls += re.findall(r'<link[^>]* rel="stylesheet"[^>]* href="([^"]+)"', page.read_text())
        assert [url for url in urls if url.startswith(("http", "//"))] == [], page
