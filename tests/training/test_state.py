"""A run that was killed, stopped, or met a full disk resumes as if nothing had happened."""

import dataclasses
import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from runs import (
    finished,
    log_of,
    recipe_of,
    recipe_table,
    same_weights,
    start_folder,
    start_process,
    write_recipe,
)

from git_model.checkpoints.native import TOKENIZER, read_checkpoint, write_checkpoint
from git_model.model.git import GIT
from git_model.training import state as state_module
from git_model.training.loop import CHECKPOINT, train
from git_model.training.reports import LOG
from git_model.training.state import STATE, last_step
from git_model.utils.errors import GITError

STEPS = 10
EVERY_THIRD = {"save_every": 3}


@pytest.fixture
def start(tmp_path):
    return start_folder(tmp_path / "start", dropout=0.1)


@pytest.fixture
def table(start):
    return recipe_table(start, steps=STEPS, learning={"ema": 0.9}, reports=EVERY_THIRD)


@pytest.fixture
def unbroken(tmp_path, start, table):
    out = tmp_path / "unbroken"
    train(recipe_of(start, **table), out)
    return out


def last_logged(out: Path) -> int:
    """The last step in the log so far."""
    path = out / LOG
    return path.read_text().count('"loss"') if path.is_file() else 0


def until(process: subprocess.Popen, condition) -> None:
    """Wait for the condition or the end of the process."""
    while not condition() and process.poll() is None:
        time.sleep(0.001)


@pytest.mark.parametrize("step", [1, 5, 8])
def test_a_run_that_was_killed_ends_with_the_bits_of_one_that_was_not(
    tmp_path, table, unbroken, step
):
    out, recipe = tmp_path / "run", write_recipe(tmp_path / "recipe.json", table)
    process = start_process(recipe, out)
    until(process, lambda: last_logged(out) >= step)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    saved = last_step(out)
    assert saved < STEPS
    code, errors = finished(start_process(recipe, out, "--resume"))
    assert code == 0, errors
    assert same_weights(out, unbroken)
    assert [line["step"] for line in log_of(out)] == list(range(1, STEPS + 1))
    assert [line["loss"] for line in log_of(out)] == [line["loss"] for line in log_of(unbroken)]


def test_a_kill_while_a_state_is_written_leaves_the_last_state(tmp_path, table, unbroken):
    out, recipe = tmp_path / "run", write_recipe(tmp_path / "recipe.json", table)
    process = start_process(recipe, out)
    until(process, lambda: last_step(out) == 3)
    until(process, lambda: any((out / STATE).glob(".*")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert last_step(out) >= 3
    assert finished(start_process(recipe, out, "--resume"))[0] == 0
    assert same_weights(out, unbroken)
    assert [path.name for path in (out / STATE).iterdir()] == [f"step-{STEPS}"]


def test_sigterm_saves_and_exits_0(tmp_path, table, unbroken):
    out, recipe = tmp_path / "run", write_recipe(tmp_path / "recipe.json", table)
    process = start_process(recipe, out)
    until(process, lambda: last_logged(out) >= 1)
    process.terminate()
    code, errors = finished(process)
    assert code == 0, errors
    stopped = last_step(out)
    assert 1 <= stopped < STEPS
    assert last_logged(out) == stopped
    assert not (out / CHECKPOINT).exists()
    assert finished(start_process(recipe, out, "--resume"))[0] == 0
    assert same_weights(out, unbroken)


def test_a_full_disk_ends_the_run_in_one_line_and_leaves_the_last_state(tmp_path, table, unbroken):
    out, recipe = tmp_path / "run", write_recipe(tmp_path / "recipe.json", table)
    process = start_process(recipe, out)
    until(process, lambda: last_step(out) >= 3)
    saved = last_step(out)
    max_bytes = 16_000  # of a file: enough for the log
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (max_bytes, resource.RLIM_INFINITY))
    code, errors = finished(process)
    assert code == 1
    line = errors.splitlines()[-1]
    assert line.startswith("Error: ")
    assert "cannot be written" in line
    assert "Traceback" not in errors
    assert last_step(out) == saved
    assert [path.name for path in (out / STATE).iterdir()] == [f"step-{saved}"]
    assert finished(start_process(recipe, out, "--resume"))[0] == 0
    assert same_weights(out, unbroken)


def test_a_save_that_fails_half_way_leaves_the_last_state(tmp_path, start, monkeypatch):
    real, count = state_module.save, iter(range(9))

    def failing(tensors, checkpoint_id, **options):
        real(tensors, checkpoint_id=checkpoint_id, **options)
        if next(count) == 1:
            os.truncate(next(Path(checkpoint_id).glob("*.distcp")), 10)
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(state_module, "save", failing)
    with pytest.raises(GITError, match="No space left on device"):
        train(recipe_of(start, reports=EVERY_THIRD), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / STATE).iterdir()] == ["step-3"]


def test_resuming_a_finished_run_changes_nothing(tmp_path, start, table, unbroken):
    shutil.copytree(unbroken, tmp_path / "again")
    train(recipe_of(start, **table), tmp_path / "again", resume=True)
    assert same_weights(unbroken, tmp_path / "again")
    assert log_of(unbroken) == log_of(tmp_path / "again")


def test_a_run_with_frozen_parts_resumes_with_the_same_bits(tmp_path, start, monkeypatch):
    recipe = recipe_of(
        start, learning={"frozen": ["encoder", "temporal_embedding"]}, reports=EVERY_THIRD
    )
    train(recipe, tmp_path / "whole")
    real = state_module.save

    def first_only(tensors, **options):
        if list((tmp_path / "part" / STATE).glob("step-*")):
            raise OSError("killed")
        real(tensors, **options)

    with monkeypatch.context() as patch:
        patch.setattr(state_module, "save", first_only)
        with pytest.raises(GITError, match="killed"):
            train(recipe, tmp_path / "part")
    train(recipe, tmp_path / "part", resume=True)
    assert same_weights(tmp_path / "whole", tmp_path / "part")


def test_a_run_without_a_state_begins_at_its_first_step(tmp_path, start, table, unbroken):
    out = tmp_path / "again"
    shutil.copytree(unbroken, out)
    shutil.rmtree(out / STATE)
    train(recipe_of(start, **table), out, resume=True)
    assert same_weights(unbroken, out)
    assert len(log_of(out)) == STEPS


def test_there_must_be_a_run_to_resume(tmp_path, start):
    with pytest.raises(GITError, match=r"no run to resume, expected a folder with recipe\.json"):
        train(recipe_of(start), tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_recipe_is_refused_and_the_difference_named(tmp_path, start, unbroken):
    with pytest.raises(GITError, match="another recipe, there and here steps is 10 and 11"):
        train(recipe_of(start, steps=11), unbroken, resume=True)


def test_a_run_may_resume_with_other_reports_and_compute(start, table, unbroken):
    table = table | {
        "reports": {"log_every": 5},
        "compute": {"device": "cpu", "activation_checkpointing": True},
    }
    train(recipe_of(start, **table), unbroken, resume=True)


def test_a_state_of_another_model_is_refused_in_one_line(start, table, unbroken):
    config, _ = read_checkpoint(start)
    wider = dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, mlp_width=48))
    vocabulary = (start / TOKENIZER).read_text()
    write_checkpoint(start, wider, GIT(wider).tensors(), {TOKENIZER: vocabulary}, overwrite=True)
    with pytest.raises(GITError, match=r"state/step-10: cannot be read: ") as error:
        train(recipe_of(start, **table), unbroken, resume=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_a_damaged_state_is_refused_in_one_line(start, table, unbroken, name):
    os.truncate(unbroken / STATE / f"step-{STEPS}" / name, 10)
    with pytest.raises(GITError, match=r"state/step-10: cannot be read: ") as error:
        train(recipe_of(start, **table), unbroken, resume=True)
    assert "\n" not in str(error.value)
