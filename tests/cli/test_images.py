"""The options of every command that takes images."""

import json
from pathlib import Path

import pytest
from commands import WORDS, run
from PIL import Image
from tiny import tiny_checkpoint

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
