"""Figures in README and docs are those that a command wrote, and the benchmarks can be started."""

import re
from pathlib import Path

import pytest
from scripts import load_script

ROOT = Path(__file__).parents[2]
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))


results = load_script("benchmarks/results.py")


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_imports_only_what_is_there(path: Path) -> None:
    assert load_script(path).__doc__.count(f"python benchmarks/{path.name}")


@pytest.mark.parametrize("page", results.pages(), ids=lambda path: path.name)
def test_a_quoted_table_is_the_one_that_was_measured(page: Path) -> None:
    text = page.read_text()
    assert text.count("<!-- results:") == len(results.QUOTED.findall(text))
    assert results.quoted(page) == text, "run: python benchmarks/results.py"


@pytest.mark.parametrize("path", sorted(results.FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_a_result_names_its_command_and_is_quoted(path: Path) -> None:
    content = results.read(path.stem)
    assert re.match(r"python (benchmarks|docs)/\w+\.py", content["command"])
    assert {len(cells) for cells in content["rows"]} == {len(content["columns"])}
    assert any(f"results: {path.stem} " in page.read_text() for page in results.pages())


@pytest.mark.parametrize(("page", "sentence", "source"), results.SENTENCES)
def test_a_figure_in_a_sentence_is_the_one_that_was_measured(
    page: str, sentence: str, source: tuple[str, str, str]
) -> None:
    [(_, figure, _)] = results.sentence_pattern(sentence).findall((ROOT / page).read_text())
    assert figure == results.figure(source), "run: python benchmarks/results.py"


def test_every_measured_figure_of_the_readme_has_its_file() -> None:
    text = (ROOT / "README.md").read_text()
    tables = [match.span() for match in results.QUOTED.finditer(text)]
    sourced = {
        match.span(2)
        for page, sentence, _ in results.SENTENCES
        if page == "README.md"
        for match in results.sentence_pattern(sentence).finditer(text)
    }
    for match in re.finditer(r"\b\d+(\.\d+)?(e-\d+|(?=\s+(%|(times|x|M|GB|MB|s)\b)))", text):
        is_quoted = any(start <= match.start() < end for start, end in tables)
        assert is_quoted or match.span() in sourced, match[0]


def test_a_figure_in_a_sentence_follows_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("It is 1.0\ntimes as fast as the other, and so on: 1.0 times.\n")
    sentence = ("page.md", "It is {} times as fast as the other", ("name", "row", "column"))
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(results, "SENTENCES", [sentence])
    for cell, figure in (("0.73 s (3.1 x)", "3.1"), ("4.9 x", "4.9"), ("4e-15", "4e-15")):
        monkeypatch.setattr(results, "cell", lambda *_, cell=cell: cell)
        expected = f"It is {figure}\ntimes as fast as the other, and so on: 1.0 times.\n"
        assert results.quoted(page) == expected
