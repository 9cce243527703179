"""`--set` changes a recipe, and names the nearest key of one that is wrong."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from runs import recipe_table, write_recipe

from git_model.cli.main import main
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


def test_a_text_needs_no_quotes_even_with_spaces() -> None:
    recipe = recipe_with(
        "validation.kind=shapes", "selection.metric=captions cider_d", "checkpoint=my runs/a#1",
        'purpose="captions of drawings"', "reports.project=two words",
    )  # fmt: skip
    assert recipe.selection.metric == "captions cider_d"
    assert (recipe.checkpoint, recipe.purpose) == ("my runs/a#1", "captions of drawings")
    assert recipe.reports.project == "two words"


@pytest.mark.parametrize(
    "setting",
    ["learning.rate=inf", "learning.weight_decay=inf", "learning.betas=[0.9, nan]",
     "adapter.alpha=inf", "learning.max_grad_norm=inf"],
)  # fmt: skip
def test_every_number_of_a_recipe_is_finite(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a finite number|expected each from 0"):
        recipe_with(setting)


def test_a_wrong_setting_is_wrong_usage_and_a_wrong_file_is_not(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "recipe.json", recipe_table("nowhere"))
    wrong = write_recipe(tmp_path / "wrong.json", recipe_table("nowhere") | {"steps": "two"})
    for settings, recipe, code in (
        (["seed=two"], path, 2),
        (["learning.rate=inf"], path, 2),
        (["sede=2"], path, 2),
        (["seed=1 2"], path, 2),
        (["seed=2"], wrong, 1),
        ([], wrong, 1),
    ):
        options = [option for setting in settings for option in ("--set", setting)]
        command = ["train", str(recipe), "--out", str(tmp_path / "run"), *options]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output


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
        ('checkpoint="a', "is no TOML value"),
        ("checkpoint=", "is no TOML value"),
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
