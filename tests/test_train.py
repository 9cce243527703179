import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from git_model.captioner import Captioner
from git_model.config import DecodingOptions, config_folder
from git_model.settings import ConfigError, GITError, from_dict, read_mapping
from git_model.shapes import describe, draw, make_world
from git_model.train import (
    CHECKPOINT,
    LOG,
    TrainConfig,
    exact_match,
    new_captioner,
    parameter_groups,
    schedule,
    train,
)

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "git_model" / "demo"
RECIPES = sorted((config_folder() / "train").glob("*.toml"))

# File in examples/images -> number of its held-out world.
EXAMPLES = {"one_shape": 21, "two_shapes": 26, "three_shapes": 10, "three_more_shapes": 38}


def recipe(**changes) -> TrainConfig:
    few = {"model": "demo", "steps": 12, "batch_size": 8, "encoder_lr": 2e-3, "decoder_lr": 2e-3}
    rare = {"log_every": 3, "check_every": 12, "check_worlds": 2, "threads": 1}
    return TrainConfig(**{**few, **rare, **changes})


def log_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / LOG).read_text().splitlines()]


def losses_of(out: Path) -> list[float]:
    return [line["loss"] for line in log_of(out) if "loss" in line]


def test_training_lowers_the_loss_and_writes_a_checkpoint_that_opens(tmp_path):
    git = train(recipe(), tmp_path / "run")
    first, *_, last = losses_of(tmp_path / "run")
    assert last < first - 1
    opened = Captioner.from_pretrained(tmp_path / "run" / CHECKPOINT)
    trained = git.model.state_dict()
    assert all(torch.equal(trained[name], t) for name, t in opened.model.state_dict().items())
    assert opened.tokenizer.to_json() == git.tokenizer.to_json()


def test_the_same_recipe_gives_the_same_weights(tmp_path):
    runs = [train(recipe(steps=3), tmp_path / name).model.state_dict() for name in "ab"]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_another_seed_gives_other_weights(tmp_path):
    one, other = (
        train(recipe(steps=1, seed=seed), tmp_path / str(seed)).model.projector.linear.weight
        for seed in (0, 1)
    )
    assert not torch.equal(one, other)


def test_training_leaves_torch_as_it_was(tmp_path):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    train(recipe(steps=1, threads=2 if threads == 1 else 1), tmp_path / "run")
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_the_log_has_the_recipe_then_losses_rates_speeds_and_checks(tmp_path):
    train(recipe(steps=6, check_every=4), tmp_path / "run")
    first, *lines = log_of(tmp_path / "run")
    assert from_dict(TrainConfig, first["recipe"]) == recipe(steps=6, check_every=4)
    assert [(line["step"], "exact" in line) for line in lines] == [
        (3, False), (4, True), (6, False), (6, True)
    ]  # fmt: skip
    assert lines[0].keys() == {"step", "loss", "encoder_lr", "decoder_lr", "images_per_s"}


def test_the_progress_bar_shows_the_loss(tmp_path, capsys):
    train(recipe(steps=3), tmp_path / "run")
    captured = capsys.readouterr()
    assert "loss=" in captured.err
    assert "held-out captions are right" in captured.err
    assert captured.out == ""


def test_a_folder_that_exists_is_refused_before_training(tmp_path):
    with pytest.raises(GITError, match="already exists"):
        train(recipe(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 3}, "unknown key 'step'"),
        ({"steps": "many"}, "steps is 'many', expected int"),
        ({"steps": 0}, "steps is 0, expected at least 1"),
        ({"encoder_lr": 0.0}, "encoder_lr is 0.0, expected more than 0"),
        ({"warmup_steps": 12}, "warmup_steps is 12, expected fewer than steps"),
        ({"precision": "float8"}, "precision is 'float8', expected one of float32, bfloat16"),
        ({"smoothing": 1.0}, "smoothing is 1.0, expected 0 or more and less than 1"),
        ({"betas": [0.9, 1.0]}, "betas is"),
        ({"threads": 0}, "threads is 0, expected from 1 to 1024"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0, expected 0 or more"),
    ],
)
def test_a_wrong_setting_is_named(change, message):
    few = {"model": "demo", "steps": 12, "batch_size": 8, "encoder_lr": 1e-3, "decoder_lr": 1e-3}
    with pytest.raises(ConfigError, match="train.toml: .*" + message.replace(".", r"\.")):
        from_dict(TrainConfig, {**few, **change}, "train.toml")


def test_a_model_for_another_vocabulary_is_refused():
    with pytest.raises(ConfigError, match="git_base: vocab_size is 30522, expected 1"):
        new_captioner(recipe(model="git_base"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_can_be_read(path):
    from_dict(TrainConfig, read_mapping(path), str(path))


def test_every_parameter_is_in_one_group():
    model = new_captioner(recipe()).model
    grouped = [p for group in parameter_groups(model, recipe()) for p in group["params"]]
    assert len(grouped) == len(set(map(id, grouped)))
    assert set(map(id, grouped)) == set(map(id, model.parameters()))


def test_only_weights_that_multiply_decay():
    model = new_captioner(recipe()).model
    groups = parameter_groups(model, recipe(weight_decay=0.5))
    decays = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    expected = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Linear)}
    expected |= {id(model.encoder.patch.weight), id(model.decoder.output_weight)}
    assert decays == expected


def test_the_encoder_has_its_own_learning_rate():
    model = new_captioner(recipe()).model
    groups = parameter_groups(model, recipe(encoder_lr=1e-5, decoder_lr=5e-5))
    slow = {id(p) for group in groups if group["lr"] == 1e-5 for p in group["params"]}
    assert slow == set(map(id, model.encoder.parameters()))


def test_the_learning_rate_goes_up_a_line_and_down_a_cosine():
    config = recipe(steps=30, warmup_steps=10)
    rates = [schedule(step, config) for step in range(1, 31)]
    assert rates[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert rates[19] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0)
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_the_shipped_model_is_under_ten_megabytes():
    assert sum(path.stat().st_size for path in DEMO.iterdir()) < 10e6


def test_the_shipped_model_has_the_shipped_configuration():
    git = Captioner.from_pretrained("demo")
    expected = new_captioner(recipe())
    assert git.model.config == expected.model.config
    assert git.tokenizer.to_json() == expected.tokenizer.to_json()


def test_the_shipped_model_captions_held_out_worlds():
    assert exact_match(Captioner.from_pretrained("demo"), 200) >= 0.9


@pytest.mark.slow
def test_the_shipped_model_captions_a_thousand_held_out_worlds():
    assert exact_match(Captioner.from_pretrained("demo"), 1000) >= 0.9


@pytest.mark.parametrize(("name", "number"), EXAMPLES.items())
def test_the_example_pictures_are_held_out_and_captioned_right(name, number):
    world = make_world(number, held_out=True)
    path = ROOT / "examples" / "images" / f"{name}.png"
    with Image.open(path) as image:
        assert image.tobytes() == draw(world).tobytes()
    options = DecodingOptions(max_new_tokens=40)
    assert Captioner.from_pretrained("demo").caption(path, options).text == describe(world)
