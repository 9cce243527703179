"""The command `batch`, as users meet it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from forked import Forked, git_model
from PIL import Image

from git_model.batch.journal import open_journal
from git_model.batch.sink_tables import TABLE_FORMATS, read_parquet
from git_model.cli.main import main

IMAGES = Path(__file__).parents[2] / "examples" / "images"
CASES = Path(__file__).parents[1] / "fixtures" / "cases"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("one_shape.png", "two_shapes.png", "both_act.gif"):
        shutil.copy(IMAGES / name, folder)
    (folder / "sub").mkdir()
    shutil.copy(IMAGES / "close_up.png", folder / "sub" / "close.PNG")
    return folder


def batch(*arguments: Any, stdin: str | None = None) -> Result:
    """Run the command with the built-in model, unless the arguments name another."""
    command = ["batch", "--model", "demo", *map(str, arguments)]
    result = CliRunner().invoke(main, command, input=stdin)
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_folder_becomes_lines_of_json(folder: Path) -> None:
    out = folder.parent / "out.jsonl"
    run = batch(folder, "--out", out)
    assert run.exit_code == 0, run.output
    assert run.output.startswith(f"{out}: 4 written; ")
    records = {record["file_name"]: record for record in lines(out)}
    assert list(records) == ["both_act.gif", "one_shape.png", "two_shapes.png", "sub/close.PNG"]
    assert records["one_shape.png"]["text"] == "a large green star at the bottom left"
    assert records["both_act.gif"]["frames"] == [0, 1, 2, 3, 4]
    assert records["one_shape.png"]["model"] == "demo"
    assert records["one_shape.png"]["revision"].startswith("sha256:")
    metadata = json.loads((folder.parent / "out.batch.json").read_text())
    assert metadata["source"] == str(folder)
    assert metadata["decoding"]["num_beams"] == 1


def test_the_result_is_a_data_set_that_this_project_reads(folder: Path) -> None:
    from git_model.data.folder import FolderData

    assert batch(folder, "--out", folder / "metadata.jsonl").exit_code == 0
    source = FolderData(path=str(folder), frames=6).open()
    assert len(source) == 4
    assert source[1].annotations[0].texts == ("a large green star at the bottom left",)


def test_files_patterns_and_folders_work_together(folder: Path) -> None:
    (folder / "raw.cr2").touch()
    out = folder.parent / "out.jsonl"
    sources = [
        folder / "one_shape.png",
        folder / "two_shapes.png",
        folder / "*.gif",
        folder / "sub",
    ]
    run = batch(*sources, "--out", out)
    assert run.exit_code == 0, run.output
    names = [record["file_name"] for record in lines(out)]
    assert names == ["one_shape.png", "two_shapes.png", "both_act.gif", "sub/close.PNG"]
    metadata = json.loads((folder.parent / "out.batch.json").read_text())
    assert metadata["source"] == list(map(str, sources))
    assert "Not taken" not in run.output
    again = batch(folder, folder / "one_shape.png", "--out", out)
    assert "4 had a text already, 1 named more than once" in again.output
    assert "Not taken, though they look like images or videos: 1: raw.cr2" in again.output


def test_a_preview_shows_the_inputs_and_captions_none(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    sheet = folder.parent / "sheet.png"
    run = batch(folder, "--preview", sheet)
    assert run.exit_code == 0, run.output
    assert f"{sheet}: 4 inputs drawn, 0 refused" in run.output
    assert sorted(folder.rglob("*")) == before
    (folder / "sub" / "no.jpg").touch()
    run = batch(folder, "--preview", sheet, "--preview-count", 5)
    assert run.exit_code == 1
    assert "no.jpg: the file is empty" in run.output


def test_truncated_files_are_captioned_if_asked_and_marked(folder: Path) -> None:
    data = (folder / "one_shape.png").read_bytes()
    (folder / "one_shape.png").write_bytes(data[: len(data) * 2 // 3])
    for form in ("jsonl", "csv", "parquet"):
        out = folder.parent / f"out.{form}"
        assert batch(folder, "--out", out).exit_code == 1
        run = batch(folder, "--out", out, "--truncated")
        assert run.exit_code == 0, run.output
        marks = {
            record["file_name"]: record.get("truncated")
            for record in TABLE_FORMATS[out.suffix].read(out)
        }
        assert marks.pop("one_shape.png") is True
        assert set(marks.values()) == {None}


def test_more_frames_than_the_model_has_are_interpolated_if_asked(folder: Path) -> None:
    out = folder.parent / "out.jsonl"
    run = batch(folder / "both_act.gif", "--out", out, "--frames", 9, "--interpolate-frames")
    assert run.exit_code == 0, run.output
    assert len(lines(out)[0]["frames"]) > 0
    run = batch(folder / "both_act.gif", "--out", out, "--frames", 2, "--overwrite")
    assert len(lines(out)[0]["frames"]) == 2


def test_a_photo_on_its_side_is_turned_as_the_options_say(tmp_path: Path) -> None:
    shutil.copy(CASES / "orient6.png", tmp_path / "photo.png")
    with Image.open(tmp_path / "photo.png") as image:
        stored = image.convert("RGB")
    (tmp_path / "in").mkdir()
    stored.save(tmp_path / "in" / "stored.png")
    stored.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "in" / "upright.png")
    shutil.copy(CASES / "orient6.png", tmp_path / "in" / "photo.png")
    for option, same in (("--upright", "upright"), ("--no-upright", "stored")):
        out = tmp_path / f"{same}.jsonl"
        run = batch(tmp_path / "in", "--out", out, "--style", "microsoft", option, "--workers", 0)
        records = {Path(record["file_name"]).stem: record for record in lines(out)}
        assert records["stored"]["logprob"] != records["upright"]["logprob"]
        assert records["photo"]["logprob"] == records[same]["logprob"]
        assert records["photo"]["options"] == {"upright": option == "--upright"}
        warned = "Warning: 1 image is stored rotated or mirrored, and left so, as in the original's"
        assert (warned in run.stderr) == (option == "--no-upright")
    assert "--upright rotates them" in run.stderr
    again = batch(tmp_path / "in", "--out", out, "--style", "microsoft", "--workers", 0)
    assert "(3 by demo with upright false): --overwrite-if-other" in again.stderr


def test_flags_of_kohyas_script_work_as_they_are(folder: Path) -> None:
    run = batch(
        folder, "--caption_extension", ".caption", "--batch_size", 2, "--max_length", 4,
        "--remove_words", "--recursive", "--model_id", "demo", "--max_data_loader_n_workers", 0,
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    assert (folder / "one_shape.caption").read_text() == "a large green\n"
    assert (folder / "sub" / "close.caption").exists()


def test_paths_come_from_standard_input_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    run = batch("-", "--out", "out.csv", stdin="two_shapes.png\nsub/close.PNG\n../out\n")
    assert run.exit_code == 1
    assert "2 written, 1 failed, see out.errors.jsonl" in run.output
    assert "--root" in lines(folder / "out.errors.jsonl")[0]["error"]


def test_a_list_may_lie_elsewhere_than_its_images(folder: Path) -> None:
    (folder.parent / "list.txt").write_text("two_shapes.png\nsub/close.PNG\n")
    out = folder.parent / "out.jsonl"
    run = batch(folder.parent / "list.txt", "--root", folder, "--out", out)
    assert run.exit_code == 0, run.output
    assert [record["file_name"] for record in lines(out)] == ["two_shapes.png", "sub/close.PNG"]
    metadata = json.loads((folder.parent / "out.batch.json").read_text())
    assert metadata["root"] == str(folder)


def test_questions_make_answers(folder: Path) -> None:
    out = folder.parent / "out.jsonl"
    run = batch(folder, "-o", out, "-q", "how many stars are there?", "-q", "is there a circle?")
    assert run.exit_code == 0, run.output
    assert len(lines(out)) == 8
    assert lines(out)[2]["answer"] == "one"
    (folder / "t.csv").write_text("image,q\nclose_up.png,what colour is the star?\n")
    shutil.copy(IMAGES / "close_up.png", folder)
    out = folder.parent / "table.parquet"
    run = batch(folder / "t.csv", "-o", out, "--question-column", "q")
    assert run.exit_code == 0, run.output


def test_several_texts_are_a_list(folder: Path) -> None:
    out = folder.parent / "out.jsonl"
    run = batch(folder, "--out", out, "--num-beams", 3, "--num-return-sequences", 2)
    assert run.exit_code == 0, run.output
    first = lines(out)[0]
    assert len(first["text"]) == len(first["logprob"]) == len(first["confidence"]) == 2
    assert first["logprob"][0] >= first["logprob"][1]
    run = batch(folder, "--num-beams", 3, "--num-return-sequences", 2)
    assert (folder / "one_shape.txt").read_text().count("\n") == 2


def test_texts_of_another_origin_are_named_and_written_anew_on_request(folder: Path) -> None:
    assert batch(folder, "--workers", 0).stderr == ""
    options = ("--num-beams", 2, "--workers", 0)
    run = batch(folder, *options)
    assert "0 written, 4 had a text already" in run.stdout
    [line] = run.stderr.splitlines()
    assert line.startswith("Warning: 4 of the existing texts have another origin")
    assert "(4 by demo with max_new_tokens 24): --overwrite-if-other replaces only these" in line
    assert "4 written" in batch(folder, *options, "--overwrite-if-other").stdout
    assert batch(folder, *options).stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 1, "nowhere: there is no such file or folder"),
        (["{folder}", "--out", "x.docx"], 2, "expected a folder, or a file that ends in .jsonl"),
        (["{folder}", "--out", "x.jsonl", "--caption-extension", "txt"], 2, "an extension is for"),
        (["{folder}", "-q", "a?", "-q", "b?"], 2, "holds no answers to several questions"),
        (["{folder}", "--append", "-q", "a?", "--out", "x.jsonl"], 2, "--append is for captions"),
        (["{folder}", "--max_length", "9", "--max-new-tokens", "8"], 2, "not both"),
        (["{folder}", "--model", "nowhere"], 1, "nowhere"),
        (["{folder}", "--min-words", "4", "--max-words", "3"], 2, "at least min_words"),
        (["{folder}", "--workers", "-1"], 2, "--workers"),
        (["{folder}", "--root", "x"], 1, "--root is for lists and tables"),
        (["{folder}", "{folder}/none.jpg"], 1, "none.jpg: there is no such file or folder"),
        (["{folder}/one_shape.png", "{script}", "--out", "{folder}/new"], 1, "expected a folder"),
        (["{folder}", "--preview", "s.png", "--out", "x.jsonl"], 2, "--preview writes no captions"),
        (["{folder}", "--preview", "{folder}/s.pdf"], 1, "expected a name that ends in .png"),
        (["{folder}", "--no-csv-safe", "--out", "x.jsonl"], 2, "--no-csv-safe is for one table"),
        (["{folder}", "--frames", "99"], 2, "this model has 6 temporal embeddings"),
        (["{folder}", "--interpolate-frames"], 2, "is for --frames above the model's 6"),
        (["{folder}", "--video-as", "first"], 2, "is for models without temporal embeddings"),
        (["{folder}", "--device", "warp"], 1, "warp"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_leaves_nothing(
    folder: Path, arguments: list[str], code: int, message: str
) -> None:
    before = sorted(folder.parent.rglob("*"))
    run = batch(*(argument.format(folder=folder, script=__file__) for argument in arguments))
    assert run.exit_code == code
    assert message in run.output
    assert sorted(folder.parent.rglob("*")) == before


def test_the_model_is_only_a_name_in_the_help() -> None:
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "git_model", "batch", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "torch" not in run.stderr
    assert "SOURCE is a folder" in run.stdout


@pytest.fixture
def default_signals() -> Iterator[None]:
    """SIGHUP, which nohup ignores, as it is in a terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)]
)
def test_a_signal_ends_a_run_with_a_line_and_leaves_no_process(
    folder: Path, number: signal.Signals
) -> None:
    for name in range(400):
        (folder / f"{name:03}.png").symlink_to(IMAGES / "three_shapes.png")
    out = folder.parent / "out.jsonl"
    run = Forked(git_model, "batch", folder, "-o", out, "--batch-size", 1, "--model", "demo")
    journal = folder.parent / "out.batch.run" / "0.sqlite"
    while not journal.exists() or n_noted(journal) < 2:
        assert run.poll() is None
        time.sleep(0.01)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    assert children
    run.send_signal(number)
    assert run.wait() == 1
    assert "stopped by a signal; the same command continues the run" in run.communicate()[1]
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_run_begins_is_a_line_too(number: signal.Signals) -> None:
    from git_model.cli.signals import StoppedError, stop_signals

    before = signal.getsignal(number)

    def signalled() -> None:
        with stop_signals():
            os.kill(os.getpid(), number)
            time.sleep(1)

    with pytest.raises(StoppedError, match=f"stopped by {number.name} before the run"):
        signalled()
    with stop_signals() as stop:
        stop.begun = True
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        assert stop.received
    assert signal.getsignal(number) is before


def start(n: int, folder: Path, out: Path) -> subprocess.Popen[str]:
    """The command in n processes, an image a batch."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               f"--nproc-per-node={n}", "-m", "git_model", "batch", str(folder), "--out", str(out),
               "--workers", "0", "--batch-size", "1"]  # fmt: skip
    return subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def n_noted(path: Path) -> int:
    with open_journal(path) as journal:
        return sum(1 for _ in journal)


@pytest.mark.slow  # Ray's processes import torch anew
def test_a_cluster_does_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 otherwise: minutes on a busy machine
    (folder / "bad.png").write_bytes(b"no image")
    single, many = folder.parent / "single.jsonl", folder.parent / "many"
    assert batch(folder, "--out", single).exit_code == 1
    run = batch(folder, "--out", many, "--engine", "ray")
    assert run.exit_code == 1, run.output
    assert "4 written, 1 failed" in run.output
    records = [record for path in sorted(many.glob("*.parquet")) for record in read_parquet(path)]
    good = [record for record in records if "error" not in record]
    assert [record["file_name"] for record in records] == [
        "bad.png", "both_act.gif", "one_shape.png", "two_shapes.png", "sub/close.PNG",
    ]  # fmt: skip
    for cluster, alone in zip(good, lines(single), strict=True):
        assert cluster.pop("logprob") == pytest.approx(alone.pop("logprob"), abs=1e-4)
        assert cluster.pop("confidence") == pytest.approx(alone.pop("confidence"), abs=1e-4)
        files = cluster.pop("source_file"), alone.pop("source_file")
        assert files[0] == files[1] | {"path": f"../{files[1]['path']}"}
        assert cluster == alone
    assert (
        "already exists; name a new folder" in batch(folder, "-o", many, "--engine", "ray").output
    )


@pytest.mark.slow
def test_many_processes_share_the_work_and_others_continue_it(folder: Path) -> None:
    for number in range(300):
        shutil.copy(IMAGES / "three_shapes.png", folder / f"{number:03}.png")
    single, many = folder.parent / "single.jsonl", folder.parent / "many.jsonl"
    assert batch(folder, "--out", single, "--batch-size", 1).exit_code == 0
    run = start(2, folder, many)
    journal = folder.parent / "many.batch.run" / "1.sqlite"
    while not journal.exists() or n_noted(journal) < 5:
        assert run.poll() is None
        time.sleep(0.01)
    workers = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    for pid in [run.pid, *map(int, workers)]:
        os.kill(pid, signal.SIGKILL)
    run.wait()
    run = start(3, folder, many)
    assert run.wait() == 0, run.stderr.read()
    metadata = json.loads((folder.parent / "many.batch.json").read_text())
    assert metadata["done_before"] > 0
    assert metadata["written"] + metadata["done_before"] == 304
    assert many.read_text() == single.read_text()
