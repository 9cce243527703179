"""The examples that change the model from outside, and the tables that they made."""

import dataclasses
import importlib
import json
import statistics
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from test_demo import script
from tiny import tiny_model

from git_model.captioner import Captioner
from git_model.training.recipe import Recipe, difference, read_recipe
from git_model.utils.errors import GITError
from git_model.utils.serialize import from_dict

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples" / "experiments"
NAMES = sorted(path.stem for path in FOLDER.glob("*.toml") if path.stem != "small")
DOCUMENT = ROOT / "docs" / "experiments.md"


@pytest.fixture(autouse=True)
def as_from_the_command_line(monkeypatch):
    """In the repository's root, with the scripts' folder to import from."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(FOLDER))


def short(name: str) -> Recipe:
    """Its recipe with two steps, and few pictures."""
    recipe = read_recipe(FOLDER / f"{name}.toml")
    return dataclasses.replace(
        recipe,
        steps=2,
        validation=dataclasses.replace(recipe.validation, size=4),
        feed=dataclasses.replace(recipe.feed, batch_size=4),
        learning=dataclasses.replace(recipe.learning, warmup_steps=0),
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_measures_all_its_variants(tmp_path, name):
    lab, experiment = importlib.import_module("lab"), importlib.import_module(name)
    found = lab.measure_all(short(name), experiment.VARIANTS, 1, tmp_path / "results.json")
    assert list(found) == [variant.name for variant in experiment.VARIANTS]
    losses = [one["loss"] for [one] in found.values()]
    assert all(0 < loss < 20 for loss in losses)
    assert len(set(losses)) > 1
    rows = lab.table(found).splitlines()
    assert len(rows) == 2 + len(found)


@pytest.mark.parametrize("name", NAMES)
def test_every_table_is_of_three_seeds_of_the_recipe_that_is_there(name):
    lab, experiment = importlib.import_module("lab"), importlib.import_module(name)
    kept = json.loads((FOLDER / f"{name}.json").read_text())
    recipe = read_recipe(FOLDER / f"{name}.toml")
    assert difference(from_dict(Recipe, kept["recipe"]), recipe) is None
    assert list(kept["results"]) == [variant.name for variant in experiment.VARIANTS]
    assert {len(results) for results in kept["results"].values()} == {3}
    assert lab.table(kept["results"]) in DOCUMENT.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_script_prints_its_table_and_measures_nothing_twice(name):
    before = (FOLDER / f"{name}.json").read_bytes()
    done = CliRunner().invoke(importlib.import_module(name).main, [], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.output.strip() in DOCUMENT.read_text()
    assert (FOLDER / f"{name}.json").read_bytes() == before


def test_results_are_kept_one_by_one_and_those_of_another_recipe_refused(tmp_path, monkeypatch):
    lab, path = importlib.import_module("lab"), tmp_path / "results.json"
    seen = []

    def teach(recipe, start):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append((recipe.seed, start))

    monkeypatch.setattr(lab, "teach", teach)
    monkeypatch.setattr(lab, "measure", lambda *_: {"loss": len(seen), "exact": 0.0})
    variants = [lab.Variant("one", 1), lab.Variant("other", 2)]
    recipe = short("decoder_depth")
    with pytest.raises(KeyboardInterrupt):
        lab.measure_all(recipe, variants, 2, path)
    assert seen == [(0, 1), (0, 2), (1, 1)]
    seen.clear()
    found = lab.measure_all(recipe, variants, 2, path)
    assert seen == [(1, 2)]
    assert [one["loss"] for one in found["one"]] == [1, 3]
    other = dataclasses.replace(recipe, steps=3)
    with pytest.raises(GITError, match="results of another recipe: steps is 2 and 3"):
        lab.measure_all(other, variants, 2, path)


def test_a_cell_has_the_mean_and_the_standard_deviation():
    lab = importlib.import_module("lab")
    values = [0.25, 0.5, 1.5]
    rows = lab.table({"a": [{"loss": value, "exact": 50.0} for value in values]}).splitlines()
    assert rows[-1] == f"| a | 0.750 ± {statistics.stdev(values):.3f} | 50.0 ± 0.0 |"


def test_an_image_token_of_the_causal_reader_sees_none_after_it():
    experiment = importlib.import_module("causal_image")
    model = tiny_model()
    causal = experiment.CausalReader(model.config.decoder).double().eval()
    causal.load_state_dict(model.decoder.state_dict())
    visual = torch.randn(1, 5, model.config.decoder.width, dtype=torch.float64)
    changed = visual.clone()
    changed[:, 3] += 1
    for reader, same in ((causal, 3), (model.decoder, 0)):
        before, after = reader.read(visual)[-1].key, reader.read(changed)[-1].key
        moved = (before - after).abs().amax((0, 1, 3)) > 0
        assert moved.tolist() == [place >= same for place in range(5)]


def test_without_temporal_embeddings_the_order_of_frames_says_nothing():
    experiment = importlib.import_module("temporal_embeddings")
    recipe = read_recipe(FOLDER / "temporal_embeddings.toml")
    clip = torch.randn(1, 4, 3, 64, 64)
    tokens = torch.tensor([[2, 9, 17]])
    for variant, same in zip(experiment.VARIANTS, (True, False), strict=True):
        model, _ = variant.start(recipe)
        forward, backward = model.eval()(clip, tokens), model(clip.flip(1), tokens)
        assert torch.allclose(forward, backward, atol=1e-4) is same


def test_any_module_from_pixels_to_tokens_is_an_encoder():
    git = Captioner.from_pretrained("demo")
    git.model.encoder = torch.nn.Sequential(torch.nn.Conv2d(3, 128, 32, 32), torch.nn.Flatten(2))
    git.model.encoder.register_forward_hook(lambda _, __, grid: grid.mT)
    scene = git.see("examples/images/one_shape.png")
    assert scene.n_tokens == 4
    assert git.caption(scene).tokens


def test_another_encoder_finds_its_place_in_the_model(capsys):
    pytest.importorskip("open_clip")
    example = script("examples/your_own_encoder.py")
    assert example.Grid("RN50")(torch.zeros(1, 3, 64, 96)).shape == (1, 2 * 3, 2048)
    example.main(steps=1)
    assert capsys.readouterr().out.startswith("step 1: loss ")
