"""The examples that change the model from outside, and the published tables of their results."""

import dataclasses
import importlib
import json
import statistics
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from scripts import load_script

from git_model.captioner import Captioner
from git_model.config import TowerConfig
from git_model.training.recipe import Recipe, difference, read_recipe
from git_model.utils.errors import GITError
from git_model.utils.serialize import from_dict

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples" / "experiments"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
DOCUMENT = ROOT / "docs" / "experiments.md"


@pytest.fixture(autouse=True)
def as_from_the_command_line(monkeypatch):
    """In the repository's root, with the scripts' folder on the import path."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(FOLDER))


def short(name: str) -> Recipe:
    """The recipe of an experiment with two steps and few images."""
    recipe = read_recipe(FOLDER / f"{name}.toml")
    return dataclasses.replace(
        recipe,
        steps=2,
        validation=dataclasses.replace(recipe.validation, size=4),
        loader=dataclasses.replace(recipe.loader, batch_size=4),
        learning=dataclasses.replace(recipe.learning, warmup_steps=0),
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "encoder_start" else name
        for name in NAMES
    ],
)
def test_every_experiment_measures_all_its_variants(tmp_path, name):
    lab, experiment = importlib.import_module("lab"), importlib.import_module(name)
    results = lab.measure_all(short(name), experiment.VARIANTS, 1, tmp_path / "results.json")
    assert list(results) == [variant.name for variant in experiment.VARIANTS]
    losses = [result["loss"] for [result] in results.values()]
    assert all(0 < loss < 20 for loss in losses)
    assert len(set(losses)) > 1
    rows = lab.table(results).splitlines()
    assert len(rows) == 2 + len(results)


@pytest.mark.parametrize("name", NAMES)
def test_every_table_is_of_three_seeds_of_its_recipe(name):
    lab, experiment = importlib.import_module("lab"), importlib.import_module(name)
    stored = json.loads((FOLDER / f"{name}.json").read_text())
    recipe = read_recipe(FOLDER / f"{name}.toml")
    assert difference(from_dict(Recipe, stored["recipe"]), recipe) is None
    assert list(stored["results"]) == [variant.name for variant in experiment.VARIANTS]
    assert {len(results) for results in stored["results"].values()} == {3}
    assert lab.table(stored["results"]) in DOCUMENT.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_script_prints_its_table_and_repeats_no_measurement(name):
    before = (FOLDER / f"{name}.json").read_bytes()
    result = CliRunner().invoke(importlib.import_module(name).main, [], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.output.strip() in DOCUMENT.read_text()
    assert (FOLDER / f"{name}.json").read_bytes() == before


def test_results_are_saved_after_every_run_and_those_of_another_recipe_refused(
    tmp_path, monkeypatch
):
    lab, path = importlib.import_module("lab"), tmp_path / "results.json"
    calls = []

    def train(recipe, initializer):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append((recipe.seed, initializer))

    monkeypatch.setattr(lab, "train", train)
    monkeypatch.setattr(lab, "measure", lambda *_: {"loss": len(calls), "exact": 0.0})
    variants = [lab.Variant("first", 1), lab.Variant("second", 2)]
    recipe = short("decoder_depth")
    with pytest.raises(KeyboardInterrupt):
        lab.measure_all(recipe, variants, 2, path)
    assert calls == [(0, 1), (0, 2), (1, 1)]
    calls.clear()
    results = lab.measure_all(recipe, variants, 2, path)
    assert calls == [(1, 2)]
    assert [result["loss"] for result in results["first"]] == [1, 3]
    other = dataclasses.replace(recipe, steps=3)
    with pytest.raises(GITError, match="results of another recipe: steps is 2 and 3"):
        lab.measure_all(other, variants, 2, path)


def test_a_cell_has_the_mean_and_the_standard_deviation():
    lab = importlib.import_module("lab")
    values = [0.25, 0.5, 1.5]
    rows = lab.table({"a": [{"loss": value, "exact": 50.0} for value in values]}).splitlines()
    assert rows[-1] == f"| a | 0.750 ± {statistics.stdev(values):.3f} | 50.0 ± 0.0 |"


def test_without_temporal_embeddings_the_order_of_frames_has_no_effect():
    temporal = importlib.import_module("temporal_embeddings")
    recipe = read_recipe(FOLDER / "clips.toml")
    clip = torch.randn(1, 4, 3, 64, 64)
    tokens = torch.tensor([[2, 9, 17]])
    for std, same in ((0.0, True), (temporal.RANDOM, False)):
        model, _ = temporal.temporal(std)(recipe)
        forward, backward = model.eval()(clip, tokens), model(clip.flip(1), tokens)
        assert torch.allclose(forward, backward, atol=1e-4) is same


def test_any_module_from_pixels_to_tokens_is_an_encoder():
    captioner = Captioner.from_pretrained("demo")
    encoder = torch.nn.Sequential(torch.nn.Conv2d(3, 128, 32, 32), torch.nn.Flatten(2))
    encoder.register_forward_hook(lambda _, __, grid: grid.mT)
    captioner.model.encoder = encoder
    scene = captioner.see("examples/images/one_shape.png")
    assert scene.n_tokens == 4
    assert captioner.caption(scene).tokens


@pytest.fixture
def example(forget_encoders):
    """examples/your_own_encoder.py, which registers an encoder."""
    pytest.importorskip("open_clip")
    return load_script("examples/your_own_encoder.py")


def test_the_example_of_another_encoder_gives_a_token_for_each_place_of_its_map(example):
    config = TowerConfig(kind="open_clip_resnet", name="RN50", image_size=64, width=2048)
    tokens = example.ResNetTokens(config)(torch.zeros(1, 3, 64, 96))
    assert tokens.shape == (1, 2 * 3, 2048)


@pytest.mark.slow  # tests/model/test_towers.py trains other encoders, which are small
def test_the_example_of_another_encoder_trains_and_loads_again(example, capsys, tmp_path):
    example.main(tmp_path, steps=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 1: loss ")
    assert lines[1].startswith("Captioner(")
    captioner = Captioner.from_pretrained(tmp_path / "model")
    assert captioner.see("examples/images/one_shape.png").n_tokens == 2 * 2
