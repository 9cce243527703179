"""The training loop: what a run learns, writes and refuses."""

import dataclasses
import json
from random import Random

import pytest
import torch
from photos import photo
from runs import (
    finished,
    log_of,
    losses_of,
    recipe_of,
    recipe_table,
    same_weights,
    start_folder,
    start_process,
    weights_of,
    write_recipe,
)

from git_model.captioner import Captioner
from git_model.config import config_folder
from git_model.data.collation import Collator, collate
from git_model.data.example import Annotation, Example
from git_model.data.folder import FolderData
from git_model.data.loader import StepLoader
from git_model.shapes.source import ShapesData
from git_model.training.loop import CHECKPOINT, Trainer, step_seed, train
from git_model.training.loss import batch_loss
from git_model.training.recipe import Recipe, read_recipe
from git_model.utils.distributed import ProcessGroup
from git_model.utils.errors import GITError
from git_model.utils.serialize import from_dict

RECIPES = sorted((config_folder() / "train").glob("*.toml"))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return start_folder(tmp_path_factory.mktemp("start") / "start")


@pytest.fixture(scope="module")
def plain(tmp_path_factory, start):
    """The run of the unchanged recipe; the tests leave it as it is."""
    out = tmp_path_factory.mktemp("plain") / "run"
    train(recipe_of(start), out)
    return out


def test_training_lowers_the_loss_and_writes_a_checkpoint_that_opens(tmp_path, start):
    train(recipe_of(start, steps=30), tmp_path / "run")
    losses = losses_of(tmp_path / "run")
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 1
    captioner = Captioner.from_pretrained(tmp_path / "run" / CHECKPOINT)
    before = Captioner.from_pretrained(start)
    assert captioner.model.config == before.model.config
    assert captioner.tokenizer.to_json() == before.tokenizer.to_json()


def test_a_random_start_of_a_named_size_is_trained(tmp_path):
    table = recipe_table("", model="demo", tokenizer="shapes", checkpoint=None, steps=1)
    train(from_dict(Recipe, table), tmp_path / "run")
    captioner = Captioner.from_pretrained(tmp_path / "run" / CHECKPOINT)
    assert captioner.model.config.decoder.vocab_size == len(captioner.tokenizer)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_that_ships_trains_a_tiny_model_on_tiny_data(tmp_path, start, path):
    recipe = read_recipe(path)
    data = ShapesData(size=8)
    tiny = dataclasses.replace(
        recipe,
        model=None,
        initial="bert",
        checkpoint=str(start),
        tokenizer=None,
        steps=recipe.learning.warmup_steps + 1,
        data=data,
        validation=recipe.validation and data,
        loader=dataclasses.replace(recipe.loader, batch_size=2, workers=0, max_tokens=38),
        compute=dataclasses.replace(recipe.compute, device="cpu", threads=1),
        reports=dataclasses.replace(recipe.reports, check_examples=2),
    )
    trainer = Trainer(tiny, ProcessGroup(torch.device("cpu")))
    config = trainer.model.config
    loader = StepLoader(data.open(), trainer.tokenizer, config, tiny.loader, seed=tiny.seed)
    losses = [
        trainer.step(step, batches).loss for step, batches in enumerate(loader.steps(1, 3), 1)
    ]
    assert all(0 < loss < 100 for loss in losses)


def test_the_same_recipe_gives_the_same_weights(tmp_path):
    start = start_folder(tmp_path / "start", dropout=0.1)
    for name in "ab":
        train(recipe_of(start, steps=3), tmp_path / name)
    train(recipe_of(start, steps=3, seed=4), tmp_path / "other")
    assert same_weights(tmp_path / "a", tmp_path / "b")
    assert not same_weights(tmp_path / "a", tmp_path / "other")


def test_worker_processes_change_nothing(tmp_path):
    start = start_folder(tmp_path / "start", dropout=0.1)
    for workers in (0, 2):
        train(recipe_of(start, steps=3, loader={"workers": workers}), tmp_path / str(workers))
    assert same_weights(tmp_path / "0", tmp_path / "2")


@pytest.mark.parametrize(
    "changes",
    [
        {"loader": {"micro_batch": 1}},
        {"loader": {"micro_batch": 2}},
        {"compute": {"activation_checkpointing": True}},
    ],
    ids=str,
)
def test_micro_batches_and_activation_checkpointing_change_only_rounding(
    tmp_path, start, plain, changes
):
    train(recipe_of(start, **changes), tmp_path / "changed")
    losses = losses_of(tmp_path / "changed")
    assert losses == pytest.approx(losses_of(plain), rel=1e-5)


class Repeated:
    """One example at every index."""

    def __init__(self, example):
        self._example = example

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return self._example


def test_the_logged_loss_is_the_mean_over_the_tokens_before_the_step(tmp_path, start, monkeypatch):
    source = ShapesData(size=2).open()
    example = Example("a.png", source[0].media, (Annotation(("a red star", "a star")),))
    monkeypatch.setattr(ShapesData, "open", lambda _: Repeated(example))
    train(recipe_of(start, steps=1), tmp_path / "run")
    captioner = Captioner.from_pretrained(start)
    config = captioner.model.config
    sample = Collator(tokenizer=captioner.tokenizer, config=config).sample(example, Random(0))
    batch = collate([sample], config.pad_id)
    expected = batch_loss(captioner.model, batch).item() / 7  # a red star, end; a star, end
    assert losses_of(tmp_path / "run") == [pytest.approx(expected, rel=1e-5)]


def test_bfloat16_learns_nearly_the_same_and_keeps_weights_in_float32(tmp_path, start, plain):
    train(recipe_of(start, learning={"precision": "bfloat16"}), tmp_path / "bfloat16")
    losses = losses_of(tmp_path / "bfloat16")
    assert losses == pytest.approx(losses_of(plain), rel=0.05)
    assert losses != losses_of(plain)
    assert {t.dtype for t in weights_of(tmp_path / "bfloat16").values()} == {torch.float32}


def test_frozen_parts_stay_and_the_others_change(tmp_path, start):
    train(recipe_of(start, learning={"frozen": ["encoder", "projector"]}), tmp_path / "run")
    before = Captioner.from_pretrained(start).model.tensors()
    for name, after in weights_of(tmp_path / "run").items():
        frozen = name.startswith(("encoder.", "projector."))
        assert torch.equal(after, before[name]) == frozen, name


def test_the_checkpoint_holds_the_moving_average_if_there_is_one(tmp_path, start, plain):
    averaged = tmp_path / "averaged"
    train(recipe_of(start, learning={"ema": 0.9}), averaged)
    assert losses_of(plain) == losses_of(averaged)
    before = Captioner.from_pretrained(start).model.projector.linear.weight
    last, mean = (weights_of(run)["projector.linear.weight"] for run in (plain, averaged))
    assert 0 < (mean - before).norm() < (last - before).norm()


def test_checks_caption_the_validation_data_and_print_some(tmp_path, start, capsys):
    data = {"kind": "shapes", "split": "held_out", "size": 9}
    reports = {"check_every": 2, "check_examples": 6, "show": 1}
    train(recipe_of(start, steps=3, validation=data, reports=reports), tmp_path / "run")
    checks = [line for line in log_of(tmp_path / "run") if "captions exact" in line]
    assert [line["step"] for line in checks] == [2, 3]
    assert {"captions exact", "questions exact"} <= checks[0].keys()
    assert "step 2: captions exact" in capsys.readouterr().err


def test_files_beside_the_data_that_look_like_images_are_named(tmp_path, start, capsys):
    folder = tmp_path / "in"
    photo(folder / "a.png").with_suffix(".txt").write_text("a red square")
    (folder / "raw.CR2").touch()
    recipe = dataclasses.replace(
        recipe_of(start, steps=1, loader={"batch_size": 1}), data=FolderData(path=str(folder))
    )
    train(recipe, tmp_path / "run")
    assert (
        "Not taken, though they look like images or videos: 1: raw.CR2" in capsys.readouterr().err
    )


def test_training_restores_threads_and_random_state(tmp_path, start):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    other = 2 if threads == 1 else 1
    train(recipe_of(start, steps=1, compute={"threads": other}), tmp_path / "run")
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_the_folder_of_a_run_keeps_its_recipe(tmp_path, start):
    recipe = recipe_of(start, steps=1)
    train(recipe, tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert from_dict(Recipe, stored) == recipe


def test_a_folder_that_exists_is_refused_before_training(tmp_path, start):
    (tmp_path / "run").mkdir()
    with pytest.raises(GITError, match="run: already exists; name a new folder, or --resume"):
        train(recipe_of(start), tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_loss_that_is_not_finite_ends_the_run_in_one_line(tmp_path, start):
    recipe = recipe_of(start, steps=30, learning={"encoder_lr": 1e30, "decoder_lr": 1e30})
    with pytest.raises(GITError, match=r"step \d+: the loss is .*expected finite numbers") as error:
        train(recipe, tmp_path / "run")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"size": 3}}, "batch_size is 6, but there are only 3 examples"),
        ({"loader": {"max_tokens": 41}}, "max_tokens is 41"),
        ({"checkpoint": "nowhere"}, "nowhere"),
        (
            {"learning": {"frozen": ["encoder", "projector", "decoder", "temporal_embedding"]}},
            "frozen",
        ),
        ({"compute": {"device": "cuda:77"}}, "device 'cuda:77' cannot be used here"),
    ],
)
def test_a_refused_recipe_leaves_no_folder(tmp_path, start, changes, message):
    with pytest.raises(GITError, match=message):
        train(recipe_of(start, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_empty_data_set_is_one_line_of_the_command(tmp_path, start):
    (tmp_path / "images").mkdir()
    table = recipe_table(start)
    table["data"] = {"kind": "folder", "path": str(tmp_path / "images")}
    recipe = write_recipe(tmp_path / "recipe.json", table)
    code, errors = finished(start_process(recipe, tmp_path / "run"))
    assert code == 1
    assert errors.startswith("Error: ")
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


class SomeBroken(Repeated):
    """Every fifth example cannot be read."""

    def __getitem__(self, index):
        if index % 5 == 0:
            raise GITError(f"{index}.png: not an image")
        return super().__getitem__(index)


def test_broken_examples_are_left_out_and_logged_once_up_to_a_limit(tmp_path, start, monkeypatch):
    example = ShapesData().open()[0]
    monkeypatch.setattr(ShapesData, "open", lambda _: SomeBroken(example))
    train(recipe_of(start, steps=6), tmp_path / "run")  # nearly two epochs of 20 examples
    reasons = [line["left_out"] for line in log_of(tmp_path / "run") if "left_out" in line]
    assert sorted(reasons) == sorted(f"{index}.png: not an image" for index in range(0, 20, 5))
    with pytest.raises(GITError, match="4 examples cannot be read, expected at most 3"):
        train(recipe_of(start, loader={"broken_limit": 3}), tmp_path / "other")


def test_a_step_without_a_readable_example_has_loss_zero(tmp_path, start, monkeypatch):
    example = ShapesData().open()[0]
    monkeypatch.setattr(ShapesData, "open", lambda _: SomeBroken(example))
    train(recipe_of(start, steps=20, loader={"batch_size": 1}), tmp_path / "run")
    losses = losses_of(tmp_path / "run")
    assert 0 < losses.count(0) < 15
    assert all(loss >= 0 for loss in losses)


def test_every_step_and_rank_has_random_numbers_of_its_own():
    seeds = {step_seed(s, n, r) for s in range(3) for n in range(1, 30) for r in range(4)}
    assert len(seeds) == 3 * 29 * 4
    assert all(0 <= seed < 2**63 for seed in seeds)
