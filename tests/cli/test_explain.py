"""The command `explain`."""

import os
import sys
from pathlib import Path

import pytest
from commands import WORDS, refusal, run
from photos import photo
from tiny import tiny_checkpoint

IMAGES = Path(__file__).parents[2] / "examples" / "images"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny checkpoint in the native format."""
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model", WORDS)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    photo(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_report_and_its_figures_are_written(model: str, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    short = "--max-new-tokens", "3", "--num-beams", "2"
    result = run("explain", image, "--out", out, "--model", model, *short)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == str(out / "report.html")
    names = {path.name for path in out.iterdir()}
    assert {"report.html", "mask.png", "tokens.png", "beams.png", "token-01.png"} <= names
    assert "photo.png" in (out / "report.html").read_text()
    if os.name == "posix":
        assert (out / "report.html").stat().st_mode & 0o777 == 0o644


@pytest.mark.usefixtures("few_figures")
def test_a_question_is_answered(model: str, image: Path, tmp_path: Path) -> None:
    out, short = tmp_path / "out", ("--max-new-tokens", "2")
    result = run("explain", image, "-q", "word1 word2", "-o", out, "--model", model, *short)
    assert result.exit_code == 0, result.stderr
    assert "<p>word1 word2</p>" in (out / "report.html").read_text()


def test_a_folder_with_other_files_is_never_replaced(
    model: str, image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    arguments = ("explain", image, "--out", out, "--model", model, "--max-new-tokens", "1")
    assert "already exists" in refusal(*arguments)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    assert "holds mine.txt" in refusal(*arguments, "--overwrite")
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


@pytest.mark.usefixtures("few_figures")
def test_a_report_replaces_a_report(model: str, image: Path, tmp_path: Path) -> None:
    command = ("explain", image, "--out", tmp_path / "out", "--model", model, "--max-new-tokens")
    assert run(*command, "2", "--num-beams", "2").exit_code == 0
    before = {path.name for path in (tmp_path / "out").iterdir()}
    assert "already exists" in refusal(*command, "1")
    assert run(*command, "1", "--overwrite").exit_code == 0
    assert before - {path.name for path in (tmp_path / "out").iterdir()} >= {"beams.png"}


def test_a_failed_command_leaves_no_folder(model: str, tmp_path: Path) -> None:
    message = refusal("explain", tmp_path / "none.png", "--out", tmp_path / "out", "-m", model)
    assert "none.png" in message
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_one_line_says_what_to_install(
    model: str, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    message = refusal("explain", image, "--out", tmp_path / "out", "-m", model)
    assert "pip install 'git-model[plot]'" in message
    assert not (tmp_path / "out").exists()


def test_the_folder_is_required(model: str, image: Path) -> None:
    result = run("explain", image, "--model", model)
    assert result.exit_code == 2
    assert "--out" in result.stderr


def test_options_without_effect_are_wrong_usage(model: str, image: Path, tmp_path: Path) -> None:
    for extra in (("--top-k", "3"), ("--compile",), ("--question", " ")):
        result = run("explain", image, "--out", tmp_path / "out", "--model", model, *extra)
        assert result.exit_code == 2, extra
        assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("few_figures")
def test_sampling_chooses_the_frames_of_a_clip(tmp_path: Path) -> None:
    arguments = (IMAGES / "one_acts_twice.gif", "--max-new-tokens", "1", "--sampling", "ends")
    result = run("explain", *arguments, "--model", "demo", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "out" / "frames.png").is_file()


@pytest.mark.usefixtures("few_figures")
def test_out_may_be_a_link_which_stays(model: str, image: Path, tmp_path: Path) -> None:
    target, link = tmp_path / "results" / "target", tmp_path / "links" / "out"
    target.mkdir(parents=True)
    link.parent.mkdir()
    link.symlink_to(target, target_is_directory=True)
    short = "--max-new-tokens", "1"
    for options in ((), ("--overwrite",)):
        result = run("explain", image, "--out", link, "--model", model, *short, *options)
        assert result.exit_code == 0, result.stderr
        assert link.is_symlink()
        assert link.resolve() == target
        assert (target / "report.html").is_file()
        assert [path.name for path in link.parent.iterdir()] == ["out"]
        assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_missing_image_is_named_before_a_model_is_looked_for(tmp_path: Path) -> None:
    result = run("explain", "nope.jpg", "--out", tmp_path / "out", "--model", "no/such-model")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: nope.jpg: ")
    assert "such-model" not in result.stderr
    assert not (tmp_path / "out").exists()
