"""The command line: what it prints, and what it says of bad input."""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tiny import tiny_model

from git_model.cli import main
from git_model.config import DecodingOptions
from git_model.tokenizer import Tokenizer

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"word{n}" for n in range(36))]


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A tiny checkpoint in our form."""
    from git_model.checkpoint import write_checkpoint

    tiny = tiny_model().float()
    files = {"tokenizer.json": Tokenizer.from_vocab(WORDS).to_json()}
    write_checkpoint(tmp_path / "model", tiny.config, tiny.state_dict(), files)
    return str(tmp_path / "model")


@pytest.fixture
def image(tmp_path: Path) -> str:
    Image.new("RGB", (20, 30), "red").save(tmp_path / "red.png")
    return str(tmp_path / "red.png")


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def refusal(*arguments: str | Path, code: int = 1) -> str:
    """The one line that a command ends with."""
    result = run(*arguments)
    assert result.exit_code == code, result.output
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("Error: ")
    return line


def test_help_is_there_at_once_without_torch() -> None:
    code = (
        "import sys\nfrom git_model.cli import main\n"
        "try:\n    main(['caption', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_caption_line_has_name_text_and_logprob(model: str, image: str) -> None:
    result = run("caption", image, "--model", model)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{image}  word")
    assert "(log p -" in result.stdout


def test_json_has_a_line_an_image(model: str, image: str) -> None:
    result = run("caption", image, image, "--model", model, "--json", "--batch-size", 1)
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert first == second
    assert first["image"] == image
    assert first["logprob"] == pytest.approx(sum(first["token_logprobs"]))


def test_several_captions_of_an_image_are_all_printed(model: str, image: str) -> None:
    result = run("caption", image, "--model", model, "--beams", 3, "--sequences", 3)
    assert len(result.stdout.splitlines()) == 3


def test_every_decoding_option_is_on_the_command_line() -> None:
    text = run("caption", "--help").stdout
    for field in dataclasses.fields(DecodingOptions):
        assert f"--{field.name.replace('_', '-')}" in text


def test_pictures_that_cannot_be_read_do_not_stop_the_others(
    model: str, image: str, tmp_path: Path
) -> None:
    text, empty = tmp_path / "text.jpg", tmp_path / "empty.png"
    text.write_text("no picture")
    empty.touch()
    bad = [text, empty, tmp_path / "missing.jpg", tmp_path]
    result = run("caption", bad[0], image, *bad[1:], "--model", model, "--batch-size", 2)
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 1
    lines = result.stderr.splitlines()
    assert [str(path) in line for path, line in zip(bad, lines, strict=True)] == [True] * 4
    assert all(line.startswith("Error: ") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["caption"], "Missing argument 'IMAGE…'"),
        (["caption", "x.png", "--beams", "2", "--sample"], "either sample or beams"),
        (["caption", "x.png", "--top-p", "0"], "top_p is 0.0, expected more than 0"),
        (["caption", "x.png", "--dtype", "int8"], "'int8' is not one of"),
        (["convert", "x"], "Missing argument 'FOLDER'"),
        (["train", "x.toml"], "Missing option '--out'"),
        (["dance"], "No such command 'dance'"),
    ],
)
def test_wrong_usage_is_exit_code_two(arguments: list[str], message: str) -> None:
    assert message in refusal(*arguments, code=2)


def test_an_unknown_model_is_one_line(image: str) -> None:
    assert "/nowhere: no such folder" in refusal("caption", image, "--model", "/nowhere")
    line = refusal("caption", image, "--model", "microsoft/git-nothing")
    assert "microsoft/git-nothing: no such folder, and the hub" in line


def test_a_damaged_checkpoint_is_one_line(model: str, image: str) -> None:
    weights = Path(model) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:999])
    line = refusal("caption", image, "--model", model)
    assert f"{weights}: not a readable safetensors file" in line


def test_an_unknown_device_is_one_line(model: str, image: str) -> None:
    assert "device" in refusal("caption", image, "--model", model, "--device", "abacus")


def test_a_failed_conversion_writes_nothing(tmp_path: Path, model: str) -> None:
    target = tmp_path / "somewhere" / "new"
    refusal("convert", tmp_path / "nothing", target)
    assert not target.parent.exists()
    assert "already exists" in refusal("convert", model, model, "--to", "hf")


def test_a_model_goes_to_huggingface_and_back(model: str, image: str, tmp_path: Path) -> None:
    there, back = tmp_path / "hf", tmp_path / "back"
    assert run("convert", model, there, "--to", "hf").exit_code == 0
    assert run("convert", there, back).exit_code == 0
    captions = [run("caption", image, "-m", name).stdout for name in (model, there, back)]
    assert captions[0] == captions[1] == captions[2]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_verify_prints_every_stage(model: str, dtype: str) -> None:
    result = run("verify", model, "--dtype", dtype)
    assert result.exit_code == 0, result.output
    stages = ("cached logits", "encoder", "projector", "decoder layer 1", "logits")
    for stage in stages:
        assert any(stage in line and line.endswith(" ok") for line in result.stdout.splitlines())


def test_a_recipe_with_a_mistake_is_one_line(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("stepz = 5")
    line = refusal("train", recipe, "--out", tmp_path / "out")
    assert f"{recipe}: unknown key 'stepz'" in line
    assert not (tmp_path / "out").exists()


def test_the_module_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "git_model", "--version"], capture_output=True, text=True, check=True
    )
    assert "version" in done.stdout


@pytest.mark.slow
def test_help_takes_less_than_a_third_of_a_second() -> None:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "git_model", "--help"], check=True, capture_output=True)
    assert time.perf_counter() - start < 0.3
