"""The options of every command that takes images."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import WORDS, run
from PIL import Image
from tiny import tiny_checkpoint
from videos import film, grey

IMAGES = Path(__file__).parents[2] / "examples" / "images"
CASES = Path(__file__).parents[1] / "fixtures" / "cases"


def logprob(model: str, image: str | Path, *options: str) -> float:
    result = run("score", image, "-m", model, "--text", "word1 word2", "--json", *options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["logprob"]


@pytest.mark.parametrize(("style", "default"), [("huggingface", True), ("microsoft", False)])
def test_a_photo_is_upright_by_its_style_or_by_option(
    tmp_path: Path, style: str, default: bool
) -> None:
    model = tiny_checkpoint(tmp_path / "model", WORDS)
    photo = CASES / "orient6.png"
    image = Image.open(photo).convert("RGB")
    image.save(tmp_path / "stored.png")
    image.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    stored, upright = (
        logprob(model, tmp_path / f"{name}.png", "--style", style) for name in ("stored", "upright")
    )
    assert stored != upright
    assert logprob(model, photo, "--style", style, "--upright") == upright
    assert logprob(model, photo, "--style", style, "--no-upright") == stored
    assert logprob(model, photo, "--style", style) == (upright if default else stored)


def test_a_folder_is_sent_to_batch(tmp_path: Path) -> None:
    model = tiny_checkpoint(tmp_path / "model", WORDS)
    result = run("caption", tmp_path, "-m", model)
    assert result.exit_code == 1
    assert f"{tmp_path}: Is a directory, expected an image or a video; `git-model batch`" in (
        result.stderr
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("list.txt", "`git-model batch` captions the images that a list, a table or a tar names"),
        ("x.tar", "`git-model batch` captions the images that a list, a table or a tar names"),
        ("table.CSV", "`git-model batch` captions the images that a list, a table or a tar names"),
        ("x.zip", "unpack a compressed file first: `git-model batch` captions a folder"),
    ],
)
def test_a_file_that_names_or_holds_images_is_sent_to_batch(
    tmp_path: Path, name: str, hint: str
) -> None:
    (tmp_path / name).write_text("a.png\n")
    alone = run("caption", tmp_path / name)  # before a model is opened
    assert alone.exit_code == 1
    assert f"{tmp_path / name}: " in alone.stderr
    assert hint in alone.stderr
    model = tiny_checkpoint(tmp_path / "model", WORDS)
    both = run("caption", tmp_path / name, CASES / "orient6.png", "-m", model)
    assert hint in both.stderr
    shutil.copy(CASES / "orient6.png", tmp_path / name)  # an image, whatever its name
    assert run("caption", tmp_path / name, "-m", model).exit_code == 0


def test_a_video_becomes_one_image_for_an_image_model_if_asked(tmp_path: Path) -> None:
    model = tiny_checkpoint(tmp_path / "model", WORDS)
    path = film(tmp_path / "a.mp4", "mpeg4", [grey(index) for index in range(20)])
    refused = run("caption", path, "-m", model)
    assert refused.exit_code == 1
    assert "--video-as first, middle or sheet" in refused.stderr
    result = run("caption", path, "-m", model, "--json", "--video-as", "middle")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["frames"] == [10]
    refused = run("caption", path, "-m", model, "--frames", "3")
    assert refused.exit_code == 2
    assert "are for models with temporal embeddings" in refused.stderr


def test_a_truncated_file_is_captioned_if_asked_and_the_record_says_so(tmp_path: Path) -> None:
    model = tiny_checkpoint(tmp_path / "model", WORDS)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    assert run("caption", tmp_path / "a.png", "-m", model).exit_code == 1
    result = run("caption", tmp_path / "a.png", "-m", model, "--truncated", "--json")
    assert json.loads(result.stdout)["truncated"] is True


def test_a_name_of_any_bytes_stays_on_one_line_of_the_output(tmp_path: Path) -> None:
    names = [os.fsdecode(b"\xff.png"), "two\nlines.png", "\x1b[31m.png", "\u202egnp.png"]
    for name in names:
        shutil.copy(IMAGES / "one_shape.png", tmp_path / name)
    paths = [tmp_path / name for name in names]
    result = run("caption", "--model", "demo", *paths)
    lines = result.stdout.splitlines()
    assert [line.split("  ")[0].split("/")[-1] for line in lines] == [
        r"\xff.png", r"two\nlines.png", r"\x1b[31m.png", r"\u202egnp.png",
    ]  # fmt: skip
    records = map(
        json.loads, run("caption", "--model", "demo", "--json", *paths).stdout.splitlines()
    )
    assert [Path(record["image"]).name for record in records] == [r"\xff.png", *names[1:]]


def test_names_without_a_file_are_refused_before_a_model_is_opened(tmp_path: Path) -> None:
    for arguments in (["caption"], ["ask", "-q", "why?"], ["score", "-t", "a cat"]):
        result = run(*arguments, "nope.jpg", str(tmp_path))
        lines = result.stderr.splitlines()
        assert result.exit_code == 1
        assert lines[0].startswith("Error: nope.jpg: ")
        assert len(lines) == 2
        assert "git-base" not in result.stderr


def test_an_image_that_is_mostly_cut_off_has_a_warning(tmp_path: Path) -> None:
    model = tiny_checkpoint(tmp_path / "model", WORDS)
    Image.new("RGB", (300, 100)).save(tmp_path / "wide.png")
    Image.new("RGB", (140, 100)).save(tmp_path / "photo.png")
    wide = run("caption", str(tmp_path / "wide.png"), "-m", model)
    assert "the model sees only the middle 33% of this image" in wide.stderr
    assert run("caption", str(tmp_path / "photo.png"), "-m", model).stderr == ""


def test_a_warning_is_in_the_record_and_its_images_are_counted(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (300, 200)).save(tmp_path / name)
    paths = [tmp_path / "a.png", IMAGES / "one_shape.png", tmp_path / "b.png"]
    for command in (["caption"], ["score", "-t", "a star"]):
        result = run(*command, "--model", "demo", "--json", *paths)
        records = list(map(json.loads, result.stdout.splitlines()))
        assert ["300 x 200" in record.get("warning", "") for record in records] == [
            True,
            False,
            True,
        ]
        first, count = result.stderr.splitlines()
        assert first.startswith(f"Warning: {paths[0]}: ")
        assert count == "Warning: 2 images in all have such a warning"
