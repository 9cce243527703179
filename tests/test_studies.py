"""The studies of examples/experiments: their rules, their arms, a run of each."""

import dataclasses
import importlib
import json
import math
import statistics
from pathlib import Path

import pytest
import torch
from PIL import Image

from git_model.captioner import Captioner
from git_model.model.git import GIT
from git_model.shapes.world import COLOURS, OUTLINES
from git_model.training.initialization import named_tokenizer
from git_model.utils.errors import GITError

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "examples" / "experiments" / "results"
NAMES = [
    "mask_10", "mask_pretrained", "fusion", "composition", "label_smoothing", "clips", "worlds",
    "self_critical",
]  # fmt: skip


@pytest.fixture(autouse=True)
def as_from_the_command_line(monkeypatch):
    """In the repository's root, with the scripts' folder on the import path."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "experiments"))


def module(name: str):
    return importlib.import_module(name)


def small(name: str, steps: int = 8):
    """A study with few steps and few images."""
    study = module("studies").studies(steps)[name]
    recipe = study.recipe
    return dataclasses.replace(
        study,
        recipe=dataclasses.replace(
            recipe,
            validation=dataclasses.replace(recipe.validation, size=2),
            loader=dataclasses.replace(recipe.loader, batch_size=2),
        ),
    )


def with_three_rates(study):
    return dataclasses.replace(study, rates=(1e-3, 2e-3, 4e-3))


def fake(study, key, **scores):
    return module("study").Run(key, scores, [(0, 2.0), (8, 1.0)], 10, 0.1)


@pytest.fixture
def fake_runs(monkeypatch):
    """No run is trained: its loss depends on its arm, rate and seed alone."""
    study_module, calls = module("study"), []

    def train_arm(study, key):
        calls.append(key)
        number = [arm.name for arm in study.arms].index(key.arm)
        loss = abs(math.log2(key.rate / study.rates[number])) + 0.01 * (key.seed % 7) * (number + 1)
        return fake(study, key, loss=loss, exact=50.0 + number)

    monkeypatch.setattr(study_module, "train_arm", train_arm)
    return calls


def test_each_arm_gets_the_rate_of_its_pilots_and_no_run_is_repeated(tmp_path, fake_runs):
    study_module, study = module("study"), with_three_rates(small("fusion"))
    path = tmp_path / "fusion.jsonl"
    runs = study_module.run_study(study, path, n_seeds=3, report=lambda _: None)
    rates = study_module.chosen_rates(study, runs)
    assert list(rates.values()) == list(study.rates)  # as `fake_runs` has it
    assert len(runs) == 3 * 3 + 3 * 3
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-2]) + "\n")  # as after a kill
    fake_runs.clear()
    again = study_module.run_study(study, path, n_seeds=3, report=lambda _: None)
    assert again == runs
    assert len(fake_runs) == 2
    results = study_module.results_of(study, runs)
    assert set(results) == set(rates)
    assert {run.key.seed for arm_runs in results.values() for run in arm_runs} == {0, 1, 2}
    other = dataclasses.replace(study, recipe=dataclasses.replace(study.recipe, steps=9))
    with pytest.raises(GITError, match="runs of another recipe: steps is 8 and 9"):
        study_module.run_study(other, path)


def test_the_table_has_paired_intervals_and_the_plot_is_drawn(tmp_path, fake_runs):
    study_module, study = module("study"), with_three_rates(small("fusion"))
    runs = study_module.run_study(study, tmp_path / "f.jsonl", n_seeds=3, report=lambda _: None)
    rows = study_module.table(study, runs).splitlines()
    assert rows[2].startswith("| prefix | 0.001 | 10 | 0.0100 |  | 50.0 |  |")
    # losses 0, 0.01, 0.02 and 0, 0.02, 0.04: differences 0, 0.01, 0.02; t(2) = 4.303
    half = 4.303 * 0.01 / math.sqrt(3)
    expected = f"+0.0100 [{0.01 - half:+.4f}, {0.01 + half:+.4f}]"
    assert rows[3].startswith(f"| cross-attention | 0.002 | 10 | 0.0200 | {expected} | 51.0 |")
    pytest.importorskip("matplotlib")
    study_module.plot(study, runs, tmp_path / "f.png")
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")


def test_runs_use_the_examples_that_the_loader_would_use_and_draw_each_once(monkeypatch):
    study_module, lab = module("study"), module("lab")
    recipe = small("mask_10").recipe
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, size=16))
    source, _ = study_module.recipe_data(recipe)
    assert study_module.recipe_data(recipe)[0] is source
    model, tokenizer = lab.initial_model(recipe)
    collator = lab.Collator(tokenizer=tokenizer, config=model.config, max_tokens=64)
    drawn, samples = [], study_module.SampleCache()
    make = lab.Collator.sample
    monkeypatch.setattr(
        lab.Collator, "sample", lambda *args: drawn.append(args[1].key) or make(*args)
    )
    runs = {}
    for seed in (0, 1):
        changed = dataclasses.replace(recipe, seed=seed)
        runs[seed] = list(samples.steps(source, collator, changed))
    assert len(drawn) == len(set(drawn)) == 16
    loader = lab.StepLoader(source, tokenizer, model.config, recipe.loader, seed=1)
    for [batch], [expected] in zip(runs[1], loader.steps(1, recipe.steps), strict=True):
        assert torch.equal(batch.pixels, expected.pixels)
        assert torch.equal(batch.tokens, expected.tokens)
    assert not torch.equal(runs[0][0][0].tokens, runs[1][0][0].tokens)


def test_runs_share_the_tokens_of_a_frozen_encoder(monkeypatch):
    study_module, study = module("study"), small("fusion")
    monkeypatch.setattr(study_module, "SAMPLES", study_module.SampleCache())
    monkeypatch.setattr(study_module, "CURVE_EXAMPLES", 2)
    recipe = dataclasses.replace(study.recipe, data=dataclasses.replace(study.recipe.data, size=16))
    encode, encoded = GIT.frame_tokens, []
    monkeypatch.setattr(
        GIT,
        "frame_tokens",
        lambda model, pixels: encoded.append(len(pixels)) or encode(model, pixels),
    )

    def scores(seed: int, *, cached: bool):
        compute = dataclasses.replace(recipe.compute, cache_features=cached)
        changed = dataclasses.replace(study, recipe=dataclasses.replace(recipe, compute=compute))
        return study_module.train_arm(changed, study_module.RunKey("prefix", 1e-3, seed)).scores

    first = scores(0, cached=True)
    scores(1, cached=True)
    assert encoded.count(1) == 16
    assert first == pytest.approx(scores(0, cached=False), rel=1e-4)
    assert encoded.count(1) == 16


def test_an_interval_is_students():
    mean, half = module("study").paired_interval([3, 5, 7, 9], [1, 2, 3, 4])
    assert mean == 3.5
    assert half == pytest.approx(3.1824 * statistics.stdev([2, 3, 4, 5]) / 2)


def write_pictures(folder, splits):
    """Two pictures for each split, and a vocabulary."""
    for split in splits:
        (folder / split).mkdir(parents=True)
        for name in ("red", "blue"):
            Image.new("RGB", (64, 64), name).save(folder / split / f"{name}.png")
            (folder / split / f"{name}.txt").write_text(f"a {name} square")
    (folder / "vocabulary").mkdir()
    text = named_tokenizer("shapes").to_json()
    (folder / "vocabulary" / "tokenizer.json").write_text(text)


@pytest.mark.parametrize("name", NAMES)
def test_every_study_trains_and_measures_its_last_arm(monkeypatch, tmp_path, name):
    study_module, study = module("study"), small(name, steps=2)
    monkeypatch.setattr(study_module, "N_CURVE", 2)
    if name == "worlds":
        monkeypatch.setattr(module("worlds"), "DATA", tmp_path)
        write_pictures(tmp_path / "emoji", ("train", "other_vendor"))
    if name == "composition":  # whose data sets are larger than these
        monkeypatch.setattr(module("composition"), "N_TEST", 2)
        monkeypatch.setattr(module("composition"), "N_PROBE", 10)
    arm = study.arms[-1]
    run = study_module.train_arm(study, study_module.RunKey(arm.name, 1e-3, 0))
    assert run.scores.keys() >= study.columns.keys()
    assert all(math.isfinite(score) for score in run.scores.values())
    assert [step for step, _ in run.curve] == [0, 1, 2]
    json.dumps(dataclasses.asdict(run))


def test_a_mask_may_change_after_training_without_the_weights():
    masks = module("image_mask")
    model, _ = masks.with_mask("bidirectional")(small("mask_10").recipe)
    model.eval()
    visual = torch.randn(1, 5, model.config.decoder.width)
    changed = visual.clone()
    changed[:, 3] += 1
    for kind, expected in (
        ("bidirectional", [True] * 5),
        ("causal", [False, False, False, True, True]),
        ("self only", [False, False, False, True, False]),
    ):
        model.decoder.kind = kind
        before, after = (
            model.decoder.prefill(visual)[-1].key,
            model.decoder.prefill(changed)[-1].key,
        )
        assert ((before - after).abs().amax((0, 1, 3)) > 0).tolist() == expected


@pytest.mark.parametrize("name", ["cross_attention", "pooled_queries"])
def test_the_arms_of_fusion_have_equally_many_weights_and_decode_step_by_step(name):
    fusion, recipe = module("fusion"), small("fusion").recipe
    prefix, tokenizer = module("lab").initial_model(recipe)
    model, _ = getattr(fusion, name)(recipe)
    n_prefix, n_weights = fusion.n_weights(prefix), fusion.n_weights(model)
    assert abs(n_weights - n_prefix) < 0.002 * n_prefix
    model.eval()
    pixels = torch.randn(2, 3, 64, 64)
    tokens = torch.randint(5, 100, (2, 4))
    whole = model(pixels, tokens)
    assert not torch.allclose(whole[0], whole[1])
    captioner = Captioner(model, tokenizer)
    scene = model.see(pixels)
    assert scene.layers[0].key.shape[2] == (10 if name == "cross_attention" else fusion.N_QUERIES)
    from git_model.model.attention import KVCache

    cache = KVCache(len(model.decoder.blocks))
    steps = [model.decoder(tokens[:, i : i + 1], scene.layers_for(2), cache) for i in range(4)]
    logits = captioner.model.decoder.lm_head(torch.cat(steps, 1))
    assert torch.allclose(logits, whole, atol=1e-4)
    model.train()(pixels, tokens).sum().backward()
    assert all(weight.grad is not None for weight in model.decoder.blocks.parameters())


def test_the_calibration_error_is_the_gap_between_confidence_and_truth():
    error = module("calibration").calibration_error
    confidence = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.3, 0.3])
    correct = torch.tensor([True, True, True, False, True, False])
    # (4 x |0.9 - 0.75| + 2 x |0.3 - 0.5|) / 6
    assert error(confidence, correct) == pytest.approx(100 * (0.6 + 0.4) / 6, rel=1e-6)
    assert error(torch.ones(3), torch.ones(3, dtype=torch.bool)) == 0


@pytest.mark.parametrize("n", [4, 8, 16, 24])
def test_held_out_pairs_leave_every_colour_and_every_shape_in_training(n):
    composition = module("composition")
    arm = composition.Composition(n)
    assert len(set(arm.new)) == n
    assert {colour for colour, _ in arm.old} == set(COLOURS)
    assert {shape for _, shape in arm.old} == set(OUTLINES)
    train, held_out = composition.Scenes(arm.old, 30, 0, 2), composition.Scenes(arm.new, 30, 1, 1)
    for index in range(30):
        assert {thing.appearance for thing in train.world(index).things} <= set(arm.old)
        assert train.world(index).things == tuple(
            sorted(train.world(index).things, key=lambda thing: thing.cell)
        )
        [thing] = held_out.world(index).things
        assert thing.appearance in arm.new
    assert composition.held_out_pairs(n) == composition.held_out_pairs(24)[:n]


def test_a_probe_tells_what_is_linear():
    composition = module("composition")
    features = torch.randn(200, 6)
    labels = (features[:, 2] > 0).long()
    probe = composition.fit_probe(features, labels, 2)
    assert (probe(features).argmax(-1) == labels).float().mean() > 0.98


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.jsonl")), ids=lambda path: path.stem)
def test_the_table_of_a_finished_study_is_of_its_runs_and_an_unfinished_one_is_named(path):
    study_module, study = module("study"), module("studies").studies()[path.stem]
    runs = study_module.read_runs(path, study.recipe)
    document = (ROOT / "docs" / "experiments.md").read_text()
    if study_module.missing_runs(study, runs):
        assert f"`{study.name}` is not finished" in document
    else:
        assert study_module.table(study, runs) in document
