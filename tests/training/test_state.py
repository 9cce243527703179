"""A run that was killed, stopped, or met a full disk resumes as if nothing had happened."""

import dataclasses
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from forked import Forked, git_model
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
from git_model.training.lock import LOCK
from git_model.training.loop import CHECKPOINT, train
from git_model.training.reports import LOG
from git_model.training.state import STATE, last_step
from git_model.utils.errors import GITError

STEPS = 5
EVERY_SECOND = {"save_every": 2}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return start_folder(tmp_path_factory.mktemp("start") / "start", dropout=0.1)


@pytest.fixture(scope="module")
def table(start):
    return recipe_table(start, steps=STEPS, learning={"ema": 0.9}, reports=EVERY_SECOND)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, start, table):
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(recipe_of(start, **table), out)
    return out


@pytest.fixture
def unbroken(tmp_path, whole_run):
    """A copy of the run, to change."""
    return shutil.copytree(whole_run, tmp_path / "unbroken")


def last_logged(out: Path) -> int:
    """The last step in the log so far."""
    path = out / LOG
    return path.read_text().count('"loss"') if path.is_file() else 0


def states(out: Path) -> list[str]:
    """The names of everything in the folder of states, hidden names too."""
    return sorted(path.name for path in (out / STATE).iterdir())


def until(process: Forked, condition) -> None:
    """Wait for the condition or the end of the process."""
    while not condition() and process.poll() is None:
        time.sleep(0.001)


@pytest.mark.parametrize(
    "step", [1, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
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
    until(process, lambda: last_step(out) == 2)
    until(process, lambda: any((out / STATE).glob(".*")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert last_step(out) >= 2
    assert finished(start_process(recipe, out, "--resume"))[0] == 0
    assert same_weights(out, unbroken)
    assert states(out) == ["step-4", "step-5"]


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


def run_on_a_disk_that_fills(*arguments: str) -> None:
    """`git-model` in a child that can write no large file after the first state."""
    save = state_module.save

    def save_and_fill(*tensors: Any, **options: Any) -> None:
        save(*tensors, **options)
        max_bytes = 16_000  # of a file: enough for the log and for the digests of this state
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, resource.RLIM_INFINITY))

    state_module.save = save_and_fill
    git_model(*arguments)


def test_a_full_disk_ends_the_run_in_one_line_and_leaves_the_last_state(tmp_path, table, unbroken):
    out, recipe = tmp_path / "run", write_recipe(tmp_path / "recipe.json", table)
    code, errors = finished(start_process(recipe, out, run=run_on_a_disk_that_fills))
    assert code == 1
    line = errors.splitlines()[-1]
    assert line.startswith("Error: ")
    assert "cannot be written" in line
    assert "Traceback" not in errors
    assert last_step(out) == 2
    assert states(out) == ["step-2"]
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
        train(recipe_of(start, steps=STEPS, reports=EVERY_SECOND), tmp_path / "run")
    assert states(tmp_path / "run") == ["step-2"]


def test_resuming_a_finished_run_changes_nothing(tmp_path, start, table, unbroken):
    shutil.copytree(unbroken, tmp_path / "again")
    train(recipe_of(start, **table), tmp_path / "again", resume=True)
    assert same_weights(unbroken, tmp_path / "again")
    assert log_of(unbroken) == log_of(tmp_path / "again")


def test_a_run_with_frozen_parts_resumes_with_the_same_bits(tmp_path, start, monkeypatch):
    recipe = recipe_of(
        start,
        steps=STEPS,
        learning={"frozen": ["encoder", "temporal_embedding"]},
        reports=EVERY_SECOND,
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
    with pytest.raises(GITError, match="another recipe, there and here steps is 5 and 6"):
        train(recipe_of(start, steps=6), unbroken, resume=True)


def test_a_run_may_resume_with_other_reports_and_compute(start, table, unbroken):
    table = table | {
        "reports": {"log_every": 5},
        "compute": {"device": "cpu", "activation_checkpointing": True},
    }
    train(recipe_of(start, **table), unbroken, resume=True)


def test_a_state_of_another_model_is_refused_in_one_line(start, table, unbroken, tmp_path):
    config, state = read_checkpoint(start)
    state = {name: tensor.clone() for name, tensor in state.items()}  # not mapped from the file
    wider = dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, mlp_width=48))
    files = {TOKENIZER: (start / TOKENIZER).read_text()}
    write_checkpoint(start, wider, GIT(wider).tensors(), files, overwrite=True)
    try:
        with pytest.raises(GITError, match=r"state/step-5: cannot be read: ") as error:
            train(recipe_of(start, **table), unbroken, resume=True)
    finally:
        write_checkpoint(start, config, state, files, overwrite=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_damaged_states_are_refused_in_one_line(start, table, unbroken, name):
    for step in (4, 5):
        os.truncate(unbroken / STATE / f"step-{step}" / name, 10)
    with pytest.raises(GITError, match=r"state/step-5/.*damaged, and no state before it is whole"):
        train(recipe_of(start, **table), unbroken, resume=True)
    assert states(unbroken) == ["step-4", "step-5"]


def flip_bits(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0b101
    path.write_bytes(content)


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp", "SHA256SUMS"])
def test_bits_flipped_in_the_newest_state_are_noticed_and_the_state_before_continues(
    tmp_path, start, table, unbroken, capsys, name
):
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    shutil.rmtree(out / CHECKPOINT)
    flip_bits(out / STATE / "step-5" / name)
    train(recipe_of(start, **table), out, resume=True)
    errors = capsys.readouterr().err
    assert "state/step-5" in errors
    assert "resuming from step 4 instead" in errors
    assert same_weights(out, unbroken)
    assert [line["loss"] for line in log_of(out)] == [line["loss"] for line in log_of(unbroken)]
    assert states(out) == ["step-4", "step-5"]


def test_sha256sum_itself_accepts_the_digests_of_a_state(unbroken):
    folder = unbroken / STATE / "step-5"
    names = {line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert names == {path.name for path in folder.iterdir()} - {"SHA256SUMS"}
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(command, cwd=folder, check=False).returncode == 0


@pytest.mark.parametrize("name", ["step-abc", "step-", "step-5.bak", "step-007", "step--3"])
def test_an_entry_that_is_no_state_is_named_in_one_line(start, table, unbroken, name):
    (unbroken / STATE / name).mkdir()
    with pytest.raises(GITError, match=f"state/{name}: no state of this run, expected a name") as e:
        train(recipe_of(start, **table), unbroken, resume=True)
    assert "\n" not in str(e.value)
    assert (unbroken / STATE / name).is_dir()


@pytest.mark.parametrize(
    "line",
    [b"garbage", b"[1]", b'{"loss": 1}', b'{"step": "3"}', b"\xff", b"[" * 99_999],
    ids=["text", "list", "no step", "step as text", "not UTF-8", "too deep"],
)
def test_a_damaged_log_is_one_line_that_names_the_line(start, table, unbroken, line):
    log = unbroken / LOG
    lines = log.read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:3], line + b"\n", *lines[4:]])
    log.write_bytes(damaged)
    with pytest.raises(GITError, match=r"log\.jsonl: line 4 is damaged, expected") as error:
        train(recipe_of(start, **table), unbroken, resume=True)
    assert "\n" not in str(error.value)
    assert log.read_bytes() == damaged


@pytest.mark.parametrize("damage", ["folder", "weights", "bits"])
def test_a_finished_run_without_its_checkpoint_writes_it_again(
    tmp_path, start, table, unbroken, damage
):
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    weights = out / CHECKPOINT / "model.safetensors"
    if damage == "folder":
        shutil.rmtree(out / CHECKPOINT)
    elif damage == "weights":
        weights.unlink()
    else:
        flip_bits(weights)
    train(recipe_of(start, **table), out, resume=True)
    assert same_weights(out, unbroken)  # those of the moving average, which the table asks for
    assert log_of(out) == log_of(unbroken)
    assert (out / CHECKPOINT / "SHA256SUMS").read_bytes() == (
        unbroken / CHECKPOINT / "SHA256SUMS"
    ).read_bytes()


def test_leftovers_of_killed_saves_are_swept_at_the_next_start_and_nothing_else(
    start, table, unbroken
):
    for name in (".checkpoint.a1b2", ".checkpoint.a1b2.old", "state/.step-12.x9", "notes"):
        (unbroken / name).mkdir()
    (unbroken / STATE / "notes.txt").write_text("mine")
    train(recipe_of(start, **table), unbroken, resume=True)
    assert states(unbroken) == ["notes.txt", "step-4", "step-5"]
    assert sorted(path.name for path in unbroken.iterdir()) == [
        "checkpoint", "log.jsonl", "notes", "recipe.json", "state",
    ]  # fmt: skip


def test_a_kill_between_the_two_renames_of_a_checkpoint_loses_none(start, table, unbroken):
    (unbroken / CHECKPOINT).rename(unbroken / ".checkpoint.a1b2.old")
    before = (unbroken / ".checkpoint.a1b2.old" / "config.json").stat().st_ino
    train(recipe_of(start, **table), unbroken, resume=True)
    assert (unbroken / CHECKPOINT / "config.json").stat().st_ino == before


def test_a_second_resume_is_locked_out_while_the_first_one_runs(tmp_path, table, unbroken):
    out, recipe = tmp_path / "run", write_recipe(tmp_path / "recipe.json", table)
    first = start_process(recipe, out)
    until(first, lambda: last_logged(out) >= 1)
    first.send_signal(signal.SIGSTOP)
    code, errors = finished(start_process(recipe, out, "--resume"))
    first.send_signal(signal.SIGCONT)
    assert code == 1
    assert f"process {first.pid} on " in errors.splitlines()[-1]
    assert "is training here, expected one run at a time" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert finished(first)[0] == 0
    assert same_weights(out, unbroken)
    assert not (out / LOCK).exists()


def test_the_lock_of_a_process_that_was_killed_is_taken_over(tmp_path, start, table, unbroken):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    owner = {"process": child.pid, "host": socket.gethostname(), "start": "1"}
    (unbroken / LOCK).write_text(json.dumps(owner))
    train(recipe_of(start, **table), unbroken, resume=True)
    assert not (unbroken / LOCK).exists()


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs /proc")
def test_a_later_process_of_the_same_number_does_not_keep_the_lock(start, table, unbroken):
    owner = {"process": os.getppid(), "host": socket.gethostname(), "start": "1"}
    (unbroken / LOCK).write_text(json.dumps(owner))
    train(recipe_of(start, **table), unbroken, resume=True)
    assert not (unbroken / LOCK).exists()


@pytest.mark.parametrize(
    "text", ["", "garbage", '{"process": 1, "host": "elsewhere", "start": null}']
)
def test_a_lock_that_nobody_here_can_judge_is_refused_with_what_to_do(start, table, unbroken, text):
    (unbroken / LOCK).write_text(text)
    with pytest.raises(GITError, match=r"if it has ended, delete .*run\.lock$"):
        train(recipe_of(start, **table), unbroken, resume=True)
    assert (unbroken / LOCK).read_text() == text
