"""Recipes are read strictly, and every recipe that ships is valid."""

from pathlib import Path

import pytest
from runs import recipe_of, recipe_table

from git_model.config import config_folder
from git_model.training.recipe import MUTABLE, Recipe, difference, read_recipe
from git_model.utils.errors import ConfigError
from git_model.utils.serialize import from_dict, to_dict

RECIPES = sorted((config_folder() / "train").glob("*.toml"))
START = Path("start")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_that_ships_can_be_read(path):
    recipe = read_recipe(path)
    assert from_dict(Recipe, to_dict(recipe)) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stepz": 3}, "unknown key 'stepz'"),
        ({"steps": "many"}, "steps is 'many', expected int"),
        ({"steps": 0}, "steps is 0, expected at least 1"),
        ({"seed": -1}, "seed is -1, expected 0 or more"),
        ({"model": "demo"}, "give either model (random weights) or checkpoint"),
        ({"checkpoint": None}, "give either model (random weights) or checkpoint"),
        ({"checkpoint": None, "model": "demo"}, "tokenizer is missing"),
        (
            {"initial": "by_width"},
            "initial is by_width, expected bert: a checkpoint has its weights",
        ),
        ({"data": {"kind": "shape"}}, "data: kind is 'shape', expected one of shapes, coco"),
        ({"data": {"colour": "red"}}, "data: unknown key 'colour'"),
        ({"loader": {"batch_size": 0}}, "loader: batch_size is 0, expected at least 1"),
        ({"learning": 3}, "learning is 3, expected a table"),
        ({"learning": {"rate": 1.0}}, "learning: unknown key 'rate'"),
        ({"learning": {"encoder_lr": 0.0}}, "learning: encoder_lr is 0.0, expected more than 0"),
        ({"learning": {"warmup_steps": 8}}, "warmup_steps is 8, expected fewer than steps 8"),
        ({"learning": {"warmup_steps": -1}}, "learning: warmup_steps is -1, expected 0 or more"),
        ({"learning": {"precision": "float8"}}, "precision is 'float8', expected one of float32"),
        (
            {"learning": {"label_smoothing": 1.0}},
            "label_smoothing is 1.0, expected 0 or more and less than 1",
        ),
        ({"learning": {"betas": [0.9, 1.0]}}, "betas is (0.9, 1.0), expected each from 0"),
        ({"learning": {"ema": 1.0}}, "ema is 1.0, expected between 0 and 1"),
        ({"learning": {"weight_decay": -1.0}}, "weight_decay is -1.0, expected 0 or more"),
        (
            {"learning": {"max_grad_norm": float("nan")}},
            "max_grad_norm is nan, expected more than 0",
        ),
        ({"learning": {"frozen": ["eye"]}}, "frozen is 'eye', expected one of encoder, temporal"),
        (
            {"learning": {"schedule": "cooldown"}},
            "cooldown_steps is 0, expected at least 1 with schedule cooldown",
        ),
        (
            {"learning": {"cooldown_steps": 2}},
            "cooldown_steps is 2, expected 0: schedule is cosine",
        ),
        (
            {"learning": {"schedule": "cooldown", "cooldown_steps": 7, "warmup_steps": 2}},
            "cooldown_steps is 7, expected at most the 6 steps after the warm-up",
        ),
        ({"learning": {"schedule": "step"}}, "schedule is 'step', expected one of cosine"),
        ({"learning": {"layer_decay": 0.0}}, "layer_decay is 0.0, expected more than 0"),
        ({"learning": {"encoder_last": -1}}, "encoder_last is -1, expected 0 or more"),
        (
            {"learning": {"frozen": ["encoder"], "encoder_last": 1}},
            "encoder_last has no effect: frozen has encoder",
        ),
        (
            {"learning": {"optimizer": "torch.optim.SGD", "betas": [0.9, 0.95]}},
            "betas is (0.9, 0.95), expected the default",
        ),
        ({"loss": {"kind": "focal"}}, "loss: kind is 'focal', expected one of cross_entropy, scst"),
        ({"loss": {"kind": "scst", "samples": 1}}, "samples is 1, expected at least 2"),
        (
            {"loss": {"kind": "scst"}, "learning": {"label_smoothing": 0.1}},
            "label_smoothing is 0.1, expected 0: loss scst has none",
        ),
        (
            {"loss": {"kind": "scst"}, "compute": {"sharding": "fsdp"}},
            "sharding is fsdp, expected none with loss scst",
        ),
        ({"loss": {"kind": "distillation"}}, "loss: teacher is missing"),
        (
            {"loss": {"kind": "contrastive"}, "loader": {"micro_batch": 1}},
            "a forward pass has one image, expected several",
        ),
        ({"selection": {"metric": "captions bleu"}}, "metric is captions bleu, expected one of"),
        ({"selection": {"patience": 3}}, "selection needs scores: add a table [validation]"),
        ({"compute": {"cache_features": True}}, "cache_features needs a frozen encoder"),
        (
            {
                "compute": {"cache_features": True},
                "learning": {"frozen": ["encoder"]},
                "loader": {"augment": {}},
            },
            "cache_features is true, but loader.augment changes every image",
        ),
        (
            {"reports": {"trackers": ["visdom"]}},
            "trackers is 'visdom', expected one of tensorboard",
        ),
        ({"compute": {"threads": 0}}, "compute: threads is 0, expected from 1 to 1024"),
        ({"compute": {"sharding": "ddp"}}, "sharding is 'ddp', expected one of none, fsdp"),
        ({"reports": {"save_every": 0}}, "reports: save_every is 0, expected at least 1"),
        ({"reports": {"show": -1}}, "reports: show is -1, expected 0 or more"),
    ],
)
def test_a_wrong_setting_is_named(change, message):
    with pytest.raises(ConfigError) as error:
        from_dict(Recipe, recipe_table(START, **change), "train.toml")
    assert str(error.value).startswith("train.toml: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"feed": {"batch_size": 6}}, "feed"),
        ({"learning": {"clip_norm": 1.0}}, "clip_norm"),
        ({"learning": {"smoothing": 0.1}}, "smoothing"),
        ({"learning": {"average": 0.9}}, "average"),
        ({"compute": {"recompute": True}}, "recompute"),
    ],
)
def test_a_key_of_version_0_1_is_an_unknown_key(change, key):
    with pytest.raises(ConfigError, match=f"unknown key '{key}', expected one of ") as error:
        from_dict(Recipe, recipe_table(START, **change), "train.toml")
    assert "\n" not in str(error.value)


def test_a_recipe_that_is_missing_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        read_recipe(tmp_path / "none.toml")


def test_the_first_difference_of_two_recipes_is_named_with_both_values():
    recipe = recipe_of(START)
    assert difference(recipe, recipe) is None
    faster = recipe_of(START, learning={"encoder_lr": 0.5})
    assert difference(recipe, faster) == "learning.encoder_lr is 0.002 and 0.5"
    assert difference(recipe, recipe_of(START, steps=9)) == "steps is 8 and 9"


def test_the_kind_of_the_data_set_is_a_difference():
    table = recipe_table(START) | {"data": {"kind": "folder", "path": "images"}}
    folder = from_dict(Recipe, table)
    assert difference(recipe_of(START), folder) == "data.kind is shapes and folder"


def test_compute_and_reports_are_no_difference_where_they_are_ignored():
    recipe = recipe_of(START)
    other = recipe_of(START, compute={"threads": 2}, reports={"log_every": 3})
    assert difference(recipe, other) == "compute.threads is 1 and 2"
    assert difference(recipe, other, ignore=MUTABLE) is None
