"""Whole runs over data sets, and runs that are interrupted."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from batch_runs import SHORT, beside, fill, records, run, table, texts, tiny_captioner

from git_model import Captioner
from git_model.batch.caption_filters import CaptionFilters
from git_model.batch.inputs import InputOptions, find_inputs
from git_model.batch.journal import open_journal
from git_model.batch.sinks import Sink, TextFileSink
from git_model.utils.atomic import DiskFullError
from git_model.utils.distributed import ProcessGroup, StopRequest
from git_model.utils.errors import GITError

MANY_KILLS = 60  # which the README quotes


@pytest.fixture
def captioner() -> Captioner:
    return tiny_captioner()


def test_every_input_has_one_record_in_the_order_of_the_inputs(
    captioner: Captioner, tmp_path: Path
) -> None:
    folder, out = fill(tmp_path / "in", 10), tmp_path / "out.jsonl"
    summary = run(captioner, folder, table(out))
    written = records(out)
    inputs = list(find_inputs(str(folder), InputOptions()))
    assert [record["file_name"] for record in written] == [item.key for item in inputs]
    assert len({record["text"] for record in written}) > 1
    for record in written:
        alone = captioner.caption(captioner.see(folder / record["file_name"]), SHORT)
        assert record["text"] == alone.text
        assert record["logprob"] == pytest.approx(alone.logprob, abs=1e-4)
        assert record["model"] == "tiny"
        assert record["style"] == "huggingface"
        assert record["decoding"] == {"max_new_tokens": 3, "min_new_tokens": 2}
    assert (summary["written"], summary["failed"]) == (10, 0)
    assert json.loads((tmp_path / "out.batch.json").read_text())["written"] == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.batch.json", "out.jsonl"]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_read_is_named_and_the_run_continues(
    captioner: Captioner, tmp_path: Path, workers: int
) -> None:
    folder, out = fill(tmp_path / "in", 6), tmp_path / "out.jsonl"
    (folder / "000.png").write_bytes(b"")
    (folder / "003.png").write_bytes((folder / "003.png").read_bytes()[:60])
    (folder / "dir.jpg").mkdir()
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "loop").symlink_to(folder)
    summary = run(captioner, folder, table(out), workers=workers)
    errors = records(tmp_path / "out.errors.jsonl")
    assert {error["file_name"] for error in errors} == {
        "000.png", "003.png", "gone.jpg", "loop",
    }  # fmt: skip
    assert all(error["error"] and "\n" not in error["error"] for error in errors)
    assert (summary["written"], summary["failed"]) == (4, 4)
    assert len(records(out)) == 4


def test_failures_are_tried_again_by_the_next_run(captioner: Captioner, tmp_path: Path) -> None:
    folder, out = fill(tmp_path / "in", 4), tmp_path / "out.jsonl"
    whole = (folder / "000.png").read_bytes()
    (folder / "000.png").write_bytes(whole[:50])
    assert run(captioner, folder, table(out))["failed"] == 1
    (folder / "000.png").write_bytes(whole)
    summary = run(captioner, folder, table(out))
    assert (summary["written"], summary["kept"], summary["failed"]) == (1, 3, 0)
    assert not (tmp_path / "out.errors.jsonl").exists()
    assert records(out)[0]["file_name"] == "000.png"


def test_an_input_that_comes_twice_has_one_record(captioner: Captioner, tmp_path: Path) -> None:
    fill(tmp_path, 3)
    (tmp_path / "list.txt").write_text("000.png\ninner/001.png\n000.png\n" * 3)
    out = tmp_path / "out.jsonl"
    run(captioner, tmp_path / "list.txt", table(out))
    assert [record["file_name"] for record in records(out)] == ["000.png", "inner/001.png"]


def test_all_questions_about_an_image_share_one_encoding(
    captioner: Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = fill(tmp_path / "in", 4), tmp_path / "out.jsonl"
    encoded: list[int] = []
    see = captioner.model.see
    monkeypatch.setattr(
        captioner.model, "see", lambda pixels: encoded.append(len(pixels)) or see(pixels)
    )
    questions = ("word3 word4", "word5")
    run(captioner, folder, table(out), {"questions": questions})
    assert sum(encoded) == 4
    answers = records(out)
    assert [record["question"] for record in answers] == [*questions] * 4
    scene = captioner.see(folder / answers[1]["file_name"])
    assert answers[1]["answer"] == captioner.ask(scene, questions[1], SHORT).text


def test_a_question_that_is_too_long_fails_alone(captioner: Captioner, tmp_path: Path) -> None:
    folder, out = fill(tmp_path / "in", 2), tmp_path / "out.jsonl"
    long = " ".join(["word3"] * 500)
    summary = run(captioner, folder, table(out), {"questions": ("word3", long)})
    assert (summary["written"], summary["failed"]) == (2, 2)
    assert "tokens" in records(tmp_path / "out.errors.jsonl")[0]["error"]


def test_a_second_run_keeps_what_is_there_and_adds_what_is_new(
    captioner: Captioner, tmp_path: Path
) -> None:
    folder, out = fill(tmp_path / "in", 4), tmp_path / "out.jsonl"
    run(captioner, folder, table(out))
    lines = out.read_text().splitlines()
    edited = json.loads(lines[0]) | {"text": "by hand"}
    out.write_text("\n".join([json.dumps(edited), *lines[1:]]) + "\n")
    fill(folder, 2, first=4)
    (folder / "inner" / "001.png").unlink()
    summary = run(captioner, folder, table(out))
    text_of = {record["file_name"]: record["text"] for record in records(out)}
    assert (summary["written"], summary["kept"]) == (2, 3)
    assert text_of["000.png"] == "by hand"
    assert len(text_of) == 6  # that of the image which is gone, too
    assert list(text_of)[-1] == "inner/001.png"


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("overwrite", "{new}"), ("append", "{old}, {new}"), ("prepend", "{new}, {old}")],
)
@pytest.mark.parametrize("form", ["table", "beside"])
def test_texts_that_are_there_are_replaced_or_joined(
    captioner: Captioner, tmp_path: Path, mode: str, expected: str, form: str
) -> None:
    folder, out = fill(tmp_path / "in", 3), tmp_path / "out.jsonl"
    sink = {"table": lambda: table(out), "beside": lambda: beside(folder)}[form]
    read_texts = {
        "table": lambda: {record["file_name"]: record["text"] for record in records(out)},
        "beside": lambda: texts(folder),
    }[form]
    run(captioner, folder, sink(), filters=CaptionFilters(prefix="old-"))
    old = read_texts()
    run(captioner, folder, sink(), mode=mode)
    for name, text in read_texts().items():
        new = old[name].removeprefix("old-")
        assert text == expected.format(old=old[name], new=new)


def test_a_text_that_is_not_good_enough_is_rejected_and_replaces_nothing(
    captioner: Captioner, tmp_path: Path
) -> None:
    folder, out = fill(tmp_path / "in", 2), tmp_path / "out.jsonl"
    summary = run(captioner, folder, table(out), min_confidence=1.0)
    assert (summary["written"], summary["rejected"]) == (0, 2)
    assert all("is below 1" in record["rejected"] for record in records(out))
    assert run(captioner, folder, table(out))["written"] == 2  # a rejected text is none
    good = out.read_text()
    assert run(captioner, folder, table(out), mode="append", min_confidence=1.0)["rejected"] == 2
    assert out.read_text() == good
    run(captioner, folder, beside(folder), min_confidence=1.0)
    assert texts(folder) == {}


def test_a_run_cannot_continue_with_other_settings(captioner: Captioner, tmp_path: Path) -> None:
    folder, out = fill(tmp_path / "in", 8), tmp_path / "out.jsonl"
    with pytest.raises(GITError, match="stopped by a signal"):
        run(captioner, folder, table(out), stop=StopRequest(received=True))
    with pytest.raises(GITError, match=r"begun with filters = .*delete .*out\.batch\.run"):
        run(captioner, folder, table(out), filters=CaptionFilters(prefix="x"))
    with pytest.raises(GITError, match=r'begun with extension = "\.jsonl", now it is "\.csv"'):
        run(captioner, folder, table(tmp_path / "out.csv"))
    summary = run(captioner, folder, table(out), batch_size=3)  # which changes no text
    assert (summary["written"], summary["done_before"]) == (4, 4)


def test_two_runs_at_a_time_are_refused(captioner: Captioner, tmp_path: Path) -> None:
    folder, out = fill(tmp_path / "in", 2), tmp_path / "out.jsonl"

    refusals = []

    class Reentrant(Captioner):
        def generate(self, *args: Any) -> Any:
            with pytest.raises(GITError, match="another run writes here") as error:
                run(captioner, folder, table(out))
            refusals.append(error)
            return super().generate(*args)

    run(Reentrant(captioner.model, captioner.tokenizer), folder, table(out))
    assert len(refusals) == 1
    assert len(records(out)) == 2


@dataclass(frozen=True)
class InTurn(ProcessGroup):
    """Two processes, of which the second begins when the first has done its part."""

    ended: tuple[Event, Event] = field(default_factory=lambda: (Event(), Event()))
    parts: list[Any] = field(default_factory=list)

    def barrier(self) -> None:
        if self.rank == 1:
            self.ended[0].wait()

    def all_gather_object(self, value: Any) -> list[Any]:
        self.parts.append(value)
        self.ended[self.rank].set()
        self.ended[1].wait()
        return self.parts

    def broadcast(self, value: Any) -> Any:
        return value


def test_nothing_is_lost_of_a_process_that_begins_late(
    captioner: Captioner, tmp_path: Path
) -> None:
    folder, out = fill(tmp_path / "in", 8), tmp_path / "out.jsonl"
    run(captioner, folder, table(tmp_path / "alone.jsonl"))
    first = InTurn(torch.device("cpu"), rank=0, size=2)
    with ThreadPoolExecutor(1) as thread:
        second = thread.submit(run, captioner, folder, table(out), group=replace(first, rank=1))
        summary = run(captioner, folder, table(out), group=first)
        second.result()
    assert summary["written"] == 8
    assert [part.written > 0 for part in first.parts] == [True, True]
    assert [record["file_name"] for record in records(out)] == [
        record["file_name"] for record in records(tmp_path / "alone.jsonl")
    ]


def test_a_full_disk_ends_the_run_and_loses_nothing(
    captioner: Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill(tmp_path / "in", 8)
    write, calls = TextFileSink.write, []

    def full(self: Any, item: Any, record: Any) -> None:
        calls.append(item)
        if len(calls) == 6:
            raise DiskFullError("x: cannot be written: No space left on device")
        write(self, item, record)

    monkeypatch.setattr(TextFileSink, "write", full)
    with pytest.raises(GITError, match="No space left"):
        run(captioner, folder, beside(folder))
    monkeypatch.undo()
    summary = run(captioner, folder, beside(folder))
    assert summary["failed"] == 0
    assert len(texts(folder)) == 8


@pytest.mark.parametrize("name", ["errors.jsonl", "batch.json", "batch.jsonl"])
@pytest.mark.parametrize("content", ["[1, 2]\n", '{"file_name": "a.png", "error": "mine"}\n'])
def test_a_file_that_no_run_wrote_is_neither_replaced_nor_removed(
    captioner: Captioner, tmp_path: Path, name: str, content: str
) -> None:
    folder = fill(tmp_path / "in", 2)
    (folder / name).write_text(content)
    with pytest.raises(GITError, match=rf"{name}: no run of .* wrote this file"):
        run(captioner, folder, beside(folder))
    assert (folder / name).read_text() == content
    assert texts(folder) == {}
    (folder / name).unlink()
    (folder / "bad.png").write_bytes(b"no image")
    assert run(captioner, folder, beside(folder))["failed"] == 1
    assert run(captioner, folder, beside(folder))["failed"] == 1  # its own it replaces
    (folder / name).write_text(content)
    with pytest.raises(GITError, match="wrote this file"):
        run(captioner, folder, beside(folder))
    assert (folder / name).read_text() == content


@pytest.mark.parametrize("form", ["beside", "table"])
@pytest.mark.parametrize(
    "name", ["mine", "settings.json", "deep/mine", "old/mine", "0.sqlite.txt", "empty/"]
)
def test_a_folder_with_the_name_of_a_runs_state_is_neither_used_nor_removed(
    captioner: Captioner, tmp_path: Path, name: str, form: str
) -> None:
    folder = fill(tmp_path / "in", 1)
    state = folder / "batch.run" if form == "beside" else tmp_path / "out.batch.run"
    path = state / name
    path.mkdir(parents=True) if name.endswith("/") else path.parent.mkdir(parents=True)
    if not name.endswith("/"):
        path.write_text('{"theme": "dark"}')
    before = sorted(state.rglob("*"))
    sink = beside(folder) if form == "beside" else table(tmp_path / "out.jsonl")
    with pytest.raises(GITError, match=rf"{state.name}/.*no run of .* wrote this file") as error:
        run(captioner, folder, sink)
    assert "\n" not in str(error.value)
    assert sorted(state.rglob("*")) == before
    assert name.endswith("/") or path.read_text() == '{"theme": "dark"}'
    shutil.rmtree(state)
    assert run(captioner, folder, sink)["written"] == 1
    assert not state.exists()


def test_a_file_with_the_name_of_a_runs_state_is_kept(captioner: Captioner, tmp_path: Path) -> None:
    folder = fill(tmp_path / "in", 1)
    (folder / "batch.run").write_text("mine")
    with pytest.raises(GITError, match=r"batch\.run: cannot be made"):
        run(captioner, folder, beside(folder))
    assert (folder / "batch.run").read_text() == "mine"


def test_what_is_left_of_a_removed_state_is_removed_unless_it_is_foreign(
    captioner: Captioner, tmp_path: Path
) -> None:
    folder = fill(tmp_path / "in", 1)
    left = folder / ".batch.run.gone"
    left.mkdir()
    (left / "0.sqlite").touch()
    run(captioner, folder, beside(folder))
    assert not left.exists()
    left.mkdir()
    (left / "mine").touch()
    with pytest.raises(GITError, match=r"\.batch\.run\.gone/mine: no run of"):
        run(captioner, folder, beside(folder))
    assert (left / "mine").exists()


def test_its_own_errors_are_known_after_a_kill_before_the_report(
    captioner: Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill(tmp_path / "in", 2)
    (folder / "bad.png").write_bytes(b"no image")
    dumps = json.dumps
    monkeypatch.setattr(json, "dumps", interrupting(dumps, lambda value: "ended" in value))
    with pytest.raises(KeyboardInterrupt):
        run(captioner, folder, beside(folder))
    monkeypatch.setattr(json, "dumps", dumps)
    assert (folder / "errors.jsonl").exists()
    assert not (folder / "batch.json").exists()
    summary = run(captioner, folder, beside(folder))
    assert (summary["done_before"], summary["failed"]) == (3, 1)


def interrupting(function: Any, is_due: Any) -> Any:
    def interrupted(value: Any, **options: Any) -> Any:
        if isinstance(value, dict) and is_due(value):
            raise KeyboardInterrupt
        return function(value, **options)

    return interrupted


@pytest.mark.parametrize("mode", ["append", "prepend"])
@pytest.mark.parametrize("form", ["table", "beside"])
def test_a_kill_between_the_last_removal_and_the_end_doubles_no_text(
    captioner: Captioner, tmp_path: Path, mode: str, form: str
) -> None:
    """The process is gone as soon as the run's folder is; the same command is given again."""
    folder, out = fill(tmp_path / "in", 3), tmp_path / "out.jsonl"
    for path in folder.rglob("*.png"):
        path.with_suffix(".txt").write_text("old")
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.png"))]
    out.write_text("".join(f'{{"file_name": "{name}", "text": "old"}}\n' for name in names))
    sink = table(out) if form == "table" else beside(folder)

    def killed_at_the_end() -> None:
        from git_model.batch import run as module

        close = module.close_run

        def close_and_die(path: Path) -> None:
            close(path)
            os.kill(os.getpid(), signal.SIGKILL)

        module.close_run = close_and_die
        run(captioner, folder, sink, mode=mode)

    def state() -> list[str]:
        if form == "table":
            return [record["text"] for record in records(out)]
        return sorted(texts(folder).values())

    assert killed_run(killed_at_the_end, 1000) is False
    joined = state()
    assert all(text.count("old") == 1 and text != "old" for text in joined)
    assert run(captioner, folder, sink, mode=mode)["failed"] == 0
    assert state() == joined


# Killing -----------------------------------------------------------------------------------------


def killed_run(begin: Any, seconds: float) -> bool:
    """Run something in a process of its own and kill it after a while; whether that came first."""
    child = os.fork()
    if child == 0:
        try:
            begin()
        finally:
            os._exit(0)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def journaled(folder: Path) -> int:
    if not (folder / "0.sqlite").exists():
        return 0
    with open_journal(folder / "0.sqlite") as journal:
        return sum(1 for _ in journal)


@pytest.mark.parametrize("n_kills", [8, pytest.param(MANY_KILLS, marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", ["table", "beside"])
def test_a_run_may_be_killed_at_any_moment(
    captioner: Captioner, tmp_path: Path, form: str, n_kills: int
) -> None:
    """Many kills, and in the end every input has one record, and nothing was done twice."""
    rng, kills, rounds = random.Random(form), 0, 0
    while kills < n_kills:
        folder = fill(tmp_path / f"in{rounds}", 40)
        out = tmp_path / f"out{rounds}.jsonl"
        for path in [path for path in folder.rglob("*.png") if form == "beside"]:
            path.with_suffix(".txt").write_text("old")
        sink = table(out) if form == "table" else beside(folder)
        state = (tmp_path / f"out{rounds}.batch.run") if form == "table" else folder / "batch.run"
        mode = "skip" if form == "table" else "append"

        def begin(folder: Path = folder, sink: Sink = sink, mode: str = mode) -> None:
            run(captioner, folder, sink, mode=mode, batch_size=2)

        report = tmp_path / f"out{rounds}.batch.json" if form == "table" else folder / "batch.json"
        first, before = kills, 0
        # later and later, so that a slow machine comes to an end, too
        while killed_run(begin, rng.uniform(0, 0.3) * 1.1 ** (kills - first)):
            kills += 1
            if report.exists() and not state.exists():
                break  # it was complete, and killed on its way out
            before = journaled(state)
        summary = json.loads(report.read_text())
        assert summary["done_before"] >= before
        assert summary["done_before"] + summary["written"] == 40
        expected = {str(path.relative_to(folder)) for path in folder.rglob("*.png")}
        if form == "table":
            names = [record["file_name"] for record in records(out)]
            assert sorted(names) == sorted(expected)
        else:
            text_of = texts(folder)
            assert {name.replace(".txt", ".png") for name in text_of} == expected
            assert all(text.startswith("old, word") for text in text_of.values())
            assert all(text.count("old") == 1 for text in text_of.values())
        assert not state.exists()
        # a run that is killed while it removes its folder leaves the rest of it
        assert all(path.name.endswith(".gone") for path in tmp_path.rglob(".*"))
        rounds += 1


# Size --------------------------------------------------------------------------------------------

HERE = Path(__file__).parent
SEARCHED = [str(HERE), str(HERE.parent), str(HERE.parents[1])]
LARGE = """
import resource, sys
from pathlib import Path
from batch_runs import run, table
from test_captioner import exact_captioner
from git_model import Captioner
from git_model.captioner import Caption

class Quick(Captioner):
    def generate(self, scene, questions, options=None):
        return [[[Caption("a picture", [5, 2], -1.0, [-0.5, -0.5])]] for _ in questions]

exact = exact_captioner()
captioner = Quick(exact.model.float(), exact.tokenizer)
captioner.encode = lambda pixels: pixels
summary = run(captioner, Path(sys.argv[1]), table(Path(sys.argv[2])), batch_size=64, workers=1)
print(summary["written"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_does_not_grow_with_the_number_of_inputs(tmp_path: Path) -> None:
    photo = fill(tmp_path, 1) / "000.png"
    peaks = {}
    for n in (10_000, 100_000):
        folder = tmp_path / str(n)
        for number in range(n):
            path = folder / f"{number // 1000:03}" / f"{number:06}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(photo)
        out = tmp_path / f"{n}.jsonl"
        result = subprocess.run(
            [sys.executable, "-c", LARGE, folder, out],
            capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(SEARCHED)},
        )  # fmt: skip
        written, peaks[n] = map(int, result.stdout.split())
        assert written == n == len({record["file_name"] for record in records(out)})
    print(peaks)  # in MB
    assert peaks[100_000] - peaks[10_000] < 16
