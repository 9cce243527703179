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
    assert results.quoted(text) == text, "run: python benchmarks/results.py"


@pytest.mark.parametrize("path", sorted(results.FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_a_result_names_its_command_and_is_quoted(path: Path) -> None:
    content = results.read(path.stem)
    assert re.match(r"python (benchmarks|docs)/\w+\.py", content["command"])
    assert {len(cells) for cells in content["rows"]} == {len(content["columns"])}
    assert any(f"results: {path.stem} " in page.read_text() for page in results.pages())


# A sentence of a page, and the cell that its figure comes from: file, start of the row, column.
SENTENCES = [
    ("README.md", "logits differ by {} in float64, over 60 random models",
     ("parity_table", "Transformers | logits, 60 random models", "float64")),
    ("README.md", "Beam search with 4 beams is {} times as fast as in Transformers",
     ("versus_transformers", "beam 4, 1 image, float32", "ratio")),
    ("README.md", "8 questions on one image {} times",
     ("versus_transformers", "8 questions on 1 image, float32", "ratio")),
    ("README.md", "a step with 5 captions an image is {} times as fast",
     ("training", "2 images x 5 captions", "ratio")),
    ("docs/adapters.md", "A step of LoRA takes {} times as long as a full one",
     ("adapters", "LoRA, rank 8, every attention", "of the first row's")),
]  # fmt: skip


@pytest.mark.parametrize(("page", "sentence", "source"), SENTENCES)
def test_a_figure_in_a_sentence_is_the_one_that_was_measured(
    page: str, sentence: str, source: tuple[str, str, str]
) -> None:
    text = " ".join((ROOT / page).read_text().split())
    assert sentence.format(results.cell(*source).removesuffix(" x")) in text
