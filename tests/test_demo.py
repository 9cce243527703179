"""The built-in model, on scenes that its training never showed."""

import dataclasses
import json
from pathlib import Path

import pytest
from scripts import load_script

from git_model.captioner import Captioner
from git_model.checkpoints.defaults import DEMO_PURPOSE
from git_model.checkpoints.native import folder_of
from git_model.config import named_config
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.shapes.source import ShapesTask
from git_model.shapes.texts import vocabulary
from git_model.shapes.world import Split
from git_model.training.recipe import read_recipe

ROOT = Path(__file__).parent.parent
TARGETS: dict[tuple[ShapesTask, Split], float] = {  # per cent exactly right
    ("captions", "held_out"): 95,
    ("questions", "held_out"): 95,
    ("classes", "held_out"): 98,
    ("clips", "held_out"): 90,
    ("clip_questions", "held_out"): 90,
}


@pytest.fixture(scope="module")
def demo() -> Captioner:
    return Captioner.from_pretrained("demo")


def test_it_is_under_ten_megabytes() -> None:
    assert sum(path.stat().st_size for path in folder_of("demo").iterdir()) < 10e6


def test_it_has_the_configuration_and_the_vocabulary_of_its_recipe(demo: Captioner) -> None:
    recipe = read_recipe(ROOT / "configs" / "train" / "demo.toml")
    config = named_config("demo")
    assert demo.model.config == dataclasses.replace(
        config, purpose=recipe.purpose, purpose_side=recipe.purpose_side
    )
    assert demo.purpose == recipe.purpose == DEMO_PURPOSE
    assert demo.tokenizer.to_json() == Tokenizer.from_vocab(vocabulary()).to_json()


@pytest.mark.parametrize("case", TARGETS)
def test_it_is_right_about_most_scenes_of_every_task(
    demo: Captioner, case: tuple[ShapesTask, Split]
) -> None:
    accuracy = load_script("benchmarks/demo_accuracy.py").accuracy
    assert accuracy(demo, *case, 100) >= TARGETS[case] - 10  # a hundred scenes are few


@pytest.mark.slow
@pytest.mark.parametrize("case", TARGETS)
def test_it_reaches_its_targets_on_two_thousand_scenes_of_every_task(
    demo: Captioner, case: tuple[ShapesTask, Split]
) -> None:
    accuracy = load_script("benchmarks/demo_accuracy.py").accuracy
    assert accuracy(demo, *case, 2000) >= TARGETS[case]


def test_the_demonstration_prints_right_answers(
    demo: Captioner, capsys: pytest.CaptureFixture
) -> None:
    load_script("examples/five_tasks.py").main()
    truth = json.loads((ROOT / "examples/images/truth.json").read_text())
    output = capsys.readouterr().out
    *_, last_line = output.splitlines()
    n_right, _, n_total, *_ = last_line.split()
    assert int(n_total) == len(truth)
    assert int(n_right) >= 0.9 * len(truth)
    readme = (ROOT / "README.md").read_text()
    assert f"It ends with `{last_line}`" in readme
    quoted_lines = readme.partition("about the first file:\n\n```\n")[2].partition("```")[0]
    assert quoted_lines
    assert quoted_lines in output
