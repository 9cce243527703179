"""Several processes compute what a single process does, and a failure of any is one line."""

import signal
import subprocess
import sys
import time

import pytest
import torch
from forked import end_after_two_steps
from runs import (
    Table,
    finished,
    free_port,
    log_of,
    losses_of,
    recipe_of,
    recipe_table,
    run_together,
    start_folder,
    start_process,
    start_processes,
    weights_of,
    write_recipe,
)
from safetensors.torch import load_file

from git_model.data.loader import StepLoader
from git_model.training.initialization import initial_model
from git_model.training.loop import CHECKPOINT
from git_model.training.state import last_step
from git_model.utils.distributed import ProcessGroup, init, stop_on_signals

SINGLE = ProcessGroup(torch.device("cpu"))
ROUNDING = {"rel": 1e-5}  # float32 sums in another order


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return start_folder(tmp_path_factory.mktemp("ranks") / "start")


@pytest.fixture(scope="module")
def table(start) -> Table:
    loader, reports = {"batch_size": 6, "micro_batch": 2}, {"save_every": 4}
    return recipe_table(start, loader=loader, reports=reports, learning={"ema": 0.9})


@pytest.fixture(scope="module")
def single(tmp_path_factory, table):
    """The run that all others must equal."""
    out = tmp_path_factory.mktemp("single") / "run"
    run_together(table, out, count=1)
    return out


def test_a_single_process_needs_no_exchange():
    assert SINGLE.is_first
    assert SINGLE.all_gather(1, 2.5).tolist() == [[1, 2.5]]
    assert SINGLE.all_gather_object("a") == ["a"]
    assert SINGLE.broadcast("a") == "a"
    SINGLE.barrier()
    with init("cpu") as group:
        assert group == SINGLE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_recorded_and_the_handler_restored(number, capfd):
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop.received
        signal.raise_signal(number)
        assert stop.received
    assert stop.interrupted is (number == signal.SIGINT)
    assert ("Ctrl-C again" in capfd.readouterr().err) is stop.interrupted
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_stops_at_once_and_an_ignored_one_stays_ignored():
    with stop_on_signals():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            signal.raise_signal(signal.SIGINT)
        assert not stop.received
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_processes_of_these_tests_have_different_numbers_of_batches(start, table):
    recipe = recipe_of(start, **table)
    model, tokenizer = initial_model(recipe)
    data = recipe.data.open()
    loader = StepLoader(data, tokenizer, model.config, recipe.loader, seed=recipe.seed)
    counts = [[len(batches) for batches in loader.steps(1, 8, rank, 2)] for rank in (0, 1)]
    assert any(left != right for left, right in zip(*counts, strict=True))


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_two_processes_compute_what_a_single_one_does(tmp_path, table, single, sharding):
    run_together(
        table | {"compute": {"device": "cpu", "sharding": sharding}}, tmp_path / "two", count=2
    )
    assert losses_of(tmp_path / "two") == pytest.approx(losses_of(single), **ROUNDING)
    for name in ("grad_norm", "encoder_lr"):
        values, expected = (
            [line[name] for line in log_of(out)] for out in (tmp_path / "two", single)
        )
        assert values == pytest.approx(expected, **ROUNDING)
    ours, expected = weights_of(tmp_path / "two"), weights_of(single)
    for name, weight in ours.items():
        difference = (weight - expected[name]).abs()
        if name.endswith("qkv.bias"):
            # Softmax ignores what is added to all keys alike, so their bias has no gradient but
            # rounding errors, which Adam turns into steps of the size of the learning rate, 2e-3.
            queries, keys, values = difference.chunk(3)
            assert keys.max() <= 2e-3, name
            difference = torch.cat([queries, values])
        assert difference.max() <= 1e-4, name


@pytest.mark.slow
def test_shards_of_a_model_with_frozen_parts_compute_what_a_single_process_does(tmp_path, table):
    frozen = table | {"learning": table["learning"] | {"frozen": ["encoder", "temporal_embedding"]}}
    run_together(frozen, tmp_path / "one", count=1)
    sharded = frozen | {
        "compute": {"device": "cpu", "sharding": "fsdp", "activation_checkpointing": True}
    }
    run_together(sharded, tmp_path / "two", count=2)
    assert losses_of(tmp_path / "two") == pytest.approx(losses_of(tmp_path / "one"), **ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_an_adapter_that_two_processes_train_is_the_same(tmp_path, table, sharding):
    adapter = table | {"adapter": {"rank": 4}}
    run_together(adapter, tmp_path / "one", count=1)
    compute = {"device": "cpu", "sharding": sharding}
    run_together(adapter | {"compute": compute}, tmp_path / "two", count=2)
    assert losses_of(tmp_path / "two") == pytest.approx(losses_of(tmp_path / "one"), **ROUNDING)
    ours, expected = (
        load_file(tmp_path / run / CHECKPOINT / "adapter_model.safetensors")
        for run in ("two", "one")
    )
    assert ours.keys() == expected.keys()
    for name, weight in ours.items():
        assert torch.allclose(weight, expected[name], atol=1e-4), name


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param((2, "fsdp"), (1, "none"), marks=pytest.mark.slow),
        ((1, "none"), (2, "fsdp")),
        pytest.param((2, "none"), (2, "fsdp"), marks=pytest.mark.slow),
    ],
)
def test_a_run_resumes_with_another_number_of_processes(tmp_path, table, single, first, then):
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
    assert losses_of(out) == pytest.approx(losses_of(single), **ROUNDING)


def test_sigterm_for_one_process_stops_all_of_them_at_the_same_step(tmp_path, table, single):
    out, recipe = tmp_path / "run", write_recipe(tmp_path / "recipe.json", table)
    shared = {"count": 2, "port": free_port()}
    for process in [
        start_process(recipe, out, rank=0, **shared),
        start_process(recipe, out, rank=1, **shared, run=end_after_two_steps),
    ]:
        code, errors = finished(process)
        assert code == 0, errors
    stopped = last_step(out)
    assert 2 <= stopped == len(log_of(out)) < 8
    run_together(table, out, "--resume", count=2)
    assert losses_of(out) == pytest.approx(losses_of(single), **ROUNDING)


def test_processes_with_different_recipes_are_one_line_each_and_none_waits(tmp_path, table):
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
    first, second = start_processes([recipe] * 2, tmp_path / "run")
    while not (tmp_path / "run" / "log.jsonl").is_file() and first.poll() is None:
        time.sleep(0.001)
    second.kill()
    code, errors = finished(first)
    assert code == 1
    assert errors.splitlines()[-1] == (
        "Error: another process of this run has ended; its own line says why"
    )
    assert "Traceback" not in errors
    second.communicate()


def test_more_processes_than_images_in_a_batch_are_refused(tmp_path, table):
    recipe = write_recipe(tmp_path / "recipe.json", table | {"loader": {"batch_size": 1}})
    for process in start_processes([recipe] * 2, tmp_path / "run"):
        code, errors = finished(process)
        assert code == 1
        assert "batch_size is 1, but there are 2 processes" in errors


@pytest.mark.slow  # three processes import torch anew
def test_torchrun_starts_it(tmp_path, table, single):
    recipe = write_recipe(tmp_path / "recipe.json", table)
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m"]
    command += ["git_model", "train", str(recipe), "--out", str(tmp_path / "run")]
    subprocess.run([sys.executable, *command], check=True, capture_output=True, timeout=300)
    assert losses_of(tmp_path / "run") == pytest.approx(losses_of(single), **ROUNDING)
