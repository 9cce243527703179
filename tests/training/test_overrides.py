"""`--set` changes a recipe, and names the nearest key of one that is wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import recipe_table

from git_model.training.overrides import recipe_keys, with_settings
from git_model.training.recipe import Recipe
from git_model.utils.errors import ConfigError
from git_model.utils.serialize import from_dict


def recipe_with(*settings: str) -> Recipe:
    return from_dict(Recipe, with_settings(recipe_table("start"), settings))


def test_numbers_texts_lists_and_tables_are_set() -> None:
    recipe = recipe_with(
        "seed=7",
        "learning.decoder_lr=3e-4",
        'style="microsoft"',
        "checkpoint=models/git-base",
        "learning.frozen=['encoder']",
        "loader.augment={flip = 0.5}",
        "compute.device=cpu",
        "reports.trackers=[]",
    )
    assert (recipe.seed, recipe.style, recipe.checkpoint) == (7, "microsoft", "models/git-base")
    assert recipe.learning.decoder_lr == 3e-4
    assert recipe.learning.encoder_lr == 2e-3  # of the recipe
    assert recipe.learning.frozen == ("encoder",)
    assert recipe.loader.augment is not None
    assert recipe.loader.augment.flip == 0.5


def test_learning_rate_stands_for_both_rates() -> None:
    learning = recipe_with("learning.rate=3e-4").learning
    assert (learning.encoder_lr, learning.decoder_lr) == (3e-4, 3e-4)


def test_the_last_of_two_settings_wins_and_the_table_stays() -> None:
    table = recipe_table("start")
    assert with_settings(table, ["seed=1", "seed=2"])["seed"] == 2
    assert table == recipe_table("start")


def test_a_table_that_the_recipe_lacks_is_made() -> None:
    recipe = recipe_with("loss.kind=scst", "loss.samples=3", "loss.counted=9")
    assert recipe.loss.kind == "scst"
    own = recipe_with("loss.kind=python", "loss.loss=a.b", "loss.arguments.gamma=2.0")
    assert own.loss.arguments == {"gamma": 2.0}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("learning.decoder_rl=1", "no such key, did you mean learning.decoder_lr?"),
        ("decoder_lr=1", "no such key, did you mean learning.decoder_lr?"),
        ("learnin.rate=1", "did you mean learning.rate?"),
        ("batch_siz=1", "did you mean loader.batch_size?"),
        ("zzz.qqq=1", "docs/recipe.md lists all"),
        ("seed", "--set seed: expected key=value"),
        ("=3", "expected key=value"),
        ("seed=1 2", "--set seed: '1 2' is no TOML value"),
        ("seed=[1", "is no TOML value"),
        ("seed=two", "seed is 'two', expected int"),
        ("steps.more=1", "no such key"),
        ("learning.warmup_steps=99", "warmup_steps is 99, expected fewer than steps 8"),
    ],
)
def test_a_wrong_setting_is_one_line_with_a_hint(setting: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        recipe_with(setting)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@given(st.text(max_size=30))
def test_any_text_is_a_setting_or_one_line(text: str) -> None:
    message = ""
    try:
        with_settings({"seed": 1}, [text])
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message


def test_the_keys_are_those_of_every_table() -> None:
    keys = recipe_keys()
    assert len(set(keys)) == len(keys)
    assert {
        "steps", "data.kind", "data.shards", "validation.annotations", "loader.augment.flip",
        "learning.layer_decay", "loss.samples", "loss.teacher", "selection.patience",
    } <= set(keys)  # fmt: skip
