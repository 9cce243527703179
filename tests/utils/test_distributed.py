"""Several processes learn what one would, and one that goes wrong is one line."""

import signal
import subprocess
import sys
import time

import pytest
import torch
from runs import (
    Table,
    finished,
    log_of,
    losses_of,
    recipe_of,
    recipe_table,
    run_together,
    start_folder,
    start_processes,
    weights_of,
    write_recipe,
)

from git_model.data.loader import StepLoader
from git_model.training.initialization import start_of
from git_model.training.state import last_step
from git_model.utils.distributed import ProcessGroup, init, stop_on_sigterm

ALONE = ProcessGroup(torch.device("cpu"))
CLOSE = {"rel": 1e-5}  # float32, its sums taken in another order


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return start_folder(tmp_path_factory.mktemp("ranks") / "start")


@pytest.fixture(scope="module")
def table(start) -> Table:
    feed, reports = {"batch_size": 6, "micro_batch": 2}, {"save_every": 4}
    return recipe_table(start, feed=feed, reports=reports, learning={"average": 0.9})


@pytest.fixture(scope="module")
def alone(tmp_path_factory, table):
    """The run that all others are to equal."""
    out = tmp_path_factory.mktemp("alone") / "run"
    run_together(table, out, count=1)
    return out


def test_a_process_alone_has_everything_already():
    assert ALONE.is_first
    assert ALONE.gather(1, 2.5).tolist() == [[1, 2.5]]
    assert ALONE.all_of("a") == ["a"]
    assert ALONE.same("a") == "a"
    ALONE.wait()
    with init("cpu") as group:
        assert ranks == ALONE


def test_sigterm_is_noted_and_afterwards_as_before():
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_sigterm() as stop:
        assert not stop.received
        signal.raise_signal(signal.SIGTERM)
        assert stop.received
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_processes_of_these_tests_have_different_numbers_of_batches(start, table):
    recipe = recipe_of(start, **table)
    model, words = start_of(recipe)
    feed = StepLoader(recipe.data.open(), words, model.config, recipe.feed, seed=recipe.seed)
    counts = [[len(batches) for batches in feed.steps(1, 8, rank, 2)] for rank in (0, 1)]
    assert any(one != other for one, other in zip(*counts, strict=True))


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_two_processes_learn_what_one_does(tmp_path, table, alone, sharding):
    run_together(
        table | {"compute": {"device": "cpu", "sharding": sharding}}, tmp_path / "two", count=2
    )
    assert losses_of(tmp_path / "two") == pytest.approx(losses_of(alone), **CLOSE)
    for name in ("gradient", "encoder_lr"):
        found, expected = (
            [line[name] for line in log_of(out)] for out in (tmp_path / "two", alone)
        )
        assert found == pytest.approx(expected, **CLOSE)
    for name, weight in weights_of(tmp_path / "two").items():
        # Adam turns a gradient of nearly 0 into a step of up to the rate, whatever its sign.
        torch.testing.assert_close(weight, weights_of(alone)[name], rtol=0, atol=1e-3)


def test_shards_of_a_model_that_is_partly_frozen_learn_what_one_process_does(tmp_path, table):
    frozen = table | {"learning": table["learning"] | {"frozen": ["encoder", "temporal_embedding"]}}
    run_together(frozen, tmp_path / "one", count=1)
    sharded = frozen | {"compute": {"device": "cpu", "sharding": "fsdp", "recompute": True}}
    run_together(sharded, tmp_path / "two", count=2)
    assert losses_of(tmp_path / "two") == pytest.approx(losses_of(tmp_path / "one"), **CLOSE)


@pytest.mark.parametrize(
    ("first", "then"),
    [((2, "fsdp"), (1, "none")), ((1, "none"), (2, "fsdp")), ((2, "none"), (2, "fsdp"))],
)
def test_a_run_goes_on_with_another_number_of_processes(tmp_path, table, alone, first, then):
    out = tmp_path / "run"
    for (count, sharding), *options in ((first,), (then, "--resume")):
        compute = {"device": "cpu", "sharding": sharding}
        recipe = write_recipe(tmp_path / "recipe.json", table | {"compute": compute})
        processes = start_processes([recipe] * count, out, *options)
        if not options:
            while last_step(out) < 4 and processes[0].poll() is None:
                time.sleep(0.001)
            for process in processes:
                process.kill()
        codes = [finished(process)[0] for process in processes]
    assert codes == [0] * then[0]
    assert losses_of(out) == pytest.approx(losses_of(alone), **CLOSE)


def test_sigterm_for_one_process_stops_all_of_them_at_the_same_step(tmp_path, table, alone):
    out, recipe = tmp_path / "run", write_recipe(tmp_path / "recipe.json", table)
    processes = start_processes([recipe] * 2, out)
    while not (out / "log.jsonl").is_file() and processes[0].poll() is None:
        time.sleep(0.001)
    processes[1].terminate()
    for process in processes:
        code, errors = finished(process)
        assert code == 0, errors
    stopped = last_step(out)
    assert stopped == len(log_of(out)) < 8
    run_together(table, out, "--resume", count=2)
    assert losses_of(out) == pytest.approx(losses_of(alone), **CLOSE)


def test_processes_with_different_recipes_are_one_line_each_and_no_one_waits(tmp_path, table):
    recipes = [
        write_recipe(tmp_path / f"{steps}.json", table | {"steps": steps}) for steps in (8, 9)
    ]
    for process in start_processes(recipes, tmp_path / "run"):
        code, errors = finished(process)
        assert code == 1
        assert errors == "Error: processes 0 and 1 have different recipes: steps is 8 and 9\n"
    assert not (tmp_path / "run").exists()


def test_a_process_that_is_killed_ends_the_others_in_one_line(tmp_path, table):
    recipe = write_recipe(tmp_path / "recipe.json", table | {"steps": 500})
    one, other = start_processes([recipe] * 2, tmp_path / "run")
    while not (tmp_path / "run" / "log.jsonl").is_file() and one.poll() is None:
        time.sleep(0.001)
    other.kill()
    code, errors = finished(one)
    assert code == 1
    assert errors.splitlines()[-1] == (
        "Error: another process of this run has ended; its own line says why"
    )
    assert "Traceback" not in errors
    other.communicate()


def test_more_processes_than_pictures_in_a_batch_are_refused(tmp_path, table):
    recipe = write_recipe(tmp_path / "recipe.json", table | {"feed": {"batch_size": 1}})
    for process in start_processes([recipe] * 2, tmp_path / "run"):
        code, errors = finished(process)
        assert code == 1
        assert "batch_size is 1, but there are 2 processes" in errors


def test_torchrun_starts_it(tmp_path, table, alone):
    recipe = write_recipe(tmp_path / "recipe.json", table)
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m"]
    command += ["git_model", "train", str(recipe), "--out", str(tmp_path / "run")]
    subprocess.run([sys.executable, *command], check=True, capture_output=True, timeout=300)
    assert losses_of(tmp_path / "run") == pytest.approx(losses_of(alone), **CLOSE)
