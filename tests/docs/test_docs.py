"""Every snippet of the documentation runs, and prints the output that the page shows below it."""

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from latex2mathml.converter import convert

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted(
    (ROOT / "docs" / "walkthrough").glob("*.md"), key=lambda path: int(path.stem.split("-")[0])
)
TESTED = ("styles", "from_transformers", "towers", "adapters", "trainer")
PAGES = [*CHAPTERS, *(ROOT / "docs" / f"{name}.md" for name in TESTED)]
SLOW = ("styles", "9-search", "11-training")  # which `make lint` runs
ALL_PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets(text: str) -> Iterator[tuple[str, str]]:
    """Each Python block of a page, and the output that stands directly below it, if any."""
    blocks = list(FENCE.finditer(text))
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if block[1] == "python":
            has_output = (
                after is not None
                and after[1] == "text"
                and text[block.end() : after.start()].isspace()
            )
            yield block[2], after[2] if has_output else ""


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=pytest.mark.slow if path.stem in SLOW else (), id=path.stem)
        for path in PAGES
    ],
)
def test_a_page_runs_from_top_to_bottom_and_prints_what_it_shows(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {"__name__": path.stem}
    with torch.enable_grad():  # a page may turn gradients off
        for number, (code, expected) in enumerate(snippets(path.read_text()), start=1):
            where = f"{path.name}, snippet {number}"
            stdout = io.StringIO()
            with contextlib.redirect_stdout(stdout):
                exec(compile(code, where, "exec"), names)
            assert stdout.getvalue() == expected, where


def test_every_chapter_has_a_snippet_with_output_and_a_figure() -> None:
    assert len(CHAPTERS) == 13
    for path in CHAPTERS:
        text = path.read_text()
        assert any(output for _, output in snippets(text)), path.name
        assert re.search(r"!\[[^]]{10,}\]\(\.\./figures/\w+\.png\)", text), path.name


@pytest.mark.parametrize("path", ALL_PAGES, ids=lambda path: path.stem)
def test_a_link_leads_to_a_file_of_the_name_that_it_shows(path: Path) -> None:
    for label, target in re.findall(
        r"\[([^]]*)\]\((?!https?:|#)([^)#\s]+)[^)]*\)", path.read_text()
    ):
        assert (path.parent / target).exists(), target
        if label.endswith(".py"):
            assert f"/{target}".endswith(f"/{label}"), f"{label} is {target}"


def test_a_snippet_with_other_output_than_the_page_shows_is_noticed() -> None:
    page = "```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n"
    assert list(snippets(page)) == [("print(1 + 1)\n", "3\n")]
    apart = page.replace("\n\n", "\n\nand later\n\n")
    assert list(snippets(apart)) == [("print(1 + 1)\n", "")]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_says_what_it_is_for_sums_up_and_has_three_exercises_with_solutions(
    path: Path,
) -> None:
    text = path.read_text()
    for line in ("> **You will know** ", "> **Builds on** ", "> **In the paper** ", "## Summary"):
        assert f"\n{line}" in text, line
    _, exercises = text.split("## Exercises\n")
    solutions = re.findall(r"^\*\*\d\.\*\* .+?</details>$", exercises, re.MULTILINE | re.DOTALL)
    assert len(solutions) == 3
    for solution in solutions:
        assert '<details markdown="1"><summary>Solution</summary>' in solution
        assert [output for _, output in snippets(solution) if output], solution


def test_the_text_of_an_equation_is_latex_that_the_site_can_draw() -> None:
    equations = []
    for path in CHAPTERS:
        text = path.read_text()
        equations += re.findall(r"^```math\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        equations += re.findall(r"\$`([^`\n]+)`\$", text)
    assert len(equations) > 40
    for equation in equations:
        mathml = convert(equation)
        assert "<mtext>\\" not in mathml, equation
        assert "<mi>\\" not in mathml, equation
