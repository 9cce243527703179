"""The documentation as a site: it works from the file system and asks no other host for a file.

Slow: to build it takes half a minute. `make lint` runs this file.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from browser import TIMEOUT, chromium

ROOT = Path(__file__).parents[2]
MODULES = [
    path.relative_to(ROOT).with_suffix("")
    for package in ("git_model", "weights_convert")
    for path in sorted((ROOT / package).rglob("*.py"))
    if not path.name.startswith("_")
]


pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


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
        assert (site / name.with_suffix(".html")).is_file(), path
    assert "How the tests are laid out" in (site / "contributing.html").read_text()
    assert "0.2.0" in (site / "changelog.html").read_text()
    assert "GIT in 150 lines" in (site / "notebook.html").read_text()


def test_every_module_has_its_reference(site: Path) -> None:
    assert Path("git_model/model/attention") in MODULES
    for module in MODULES:
        assert (site / "reference" / module).with_suffix(".html").is_file(), module


def test_the_fields_of_a_class_are_a_list(site: Path) -> None:
    page = site / "reference" / "git_model" / "explain" / "beam_tree.html"
    fields = re.findall(r"<li><code>(\w+)</code>: ", page.read_text())
    assert fields == [
        "text", "tokens", "probability", "score", "parent", "outcome", "on_best_path",
    ]  # fmt: skip


def test_the_site_loads_nothing_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        urls = re.findall(r'<(?:script|img|iframe|source)[^>]* src="([^"]+)"', page.read_text())
        urls += re.findall(r'<link[^>]* rel="stylesheet"[^>]* href="([^"]+)"', page.read_text())
        assert [url for url in urls if url.startswith(("http", "//"))] == [], page


def test_the_menu_has_the_explorer(site: Path) -> None:
    page = (site / "walkthrough" / "2-encoder.html").read_text()
    assert 'href="../explorer/index.html"' in page
    assert (site / "explorer" / "index.html").is_file()


def test_equations_are_mathml(site: Path) -> None:
    page = (site / "walkthrough" / "2-encoder.html").read_text()
    assert page.count('<div class="math"><math') == 5
    assert "<msqrt>" in page
    assert "$`" not in page
    assert "language-math" not in page


def test_the_code_of_the_project_that_is_no_page_is_no_link(site: Path) -> None:
    for page in site.glob("walkthrough/*.html"):
        targets = re.findall(r'href="([^"#:]+)(?:#[^"]*)?"', page.read_text())
        for target in targets:
            assert (page.parent / target).exists(), (page.name, target)


def test_the_search_finds_every_term_of_the_glossary(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())
    titles = {entry["title"] for entry in index["docs"] if entry["location"].startswith("glossary")}
    terms = re.findall(r"^## (.+)$", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    assert len(terms) > 50
    assert set(terms) <= titles


def test_the_site_works_from_the_file_system(site: Path) -> None:
    requests: list[str] = []
    with chromium() as browser:
        tab = browser.new_page(viewport={"width": 390, "height": 800})
        tab.set_default_timeout(TIMEOUT)
        tab.on("request", lambda request: requests.append(request.url))
        for page in ("walkthrough/2-encoder.html", "walkthrough/13-map.html", "glossary.html"):
            tab.goto((site / page).as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth") == 390, page
        tab.set_viewport_size({"width": 1280, "height": 800})
        tab.goto((site / "index.html").as_uri())
        tab.click(".md-search__input")
        tab.keyboard.type("perplexity")
        link = tab.wait_for_selector(".md-search-result__link[href*='glossary.html#perplexity']")
        link.click()
        tab.wait_for_url("**/glossary.html*#perplexity")
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
