"""The options of every command that takes images."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import WORDS, run
from PIL import Image
from tiny import tiny_checkpoint
from videos import film, grey

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
