"""A model by its name, and what becomes of folders of another time or of another format."""

import json
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from forked import run as run_forked
from PIL import Image
from runs import recipe_table, write_recipe
from tiny import tiny_checkpoint, tiny_model

from git_model import GIT, Captioner
from git_model.checkpoints.loading import open_model
from git_model.cli.main import main
from git_model.utils.errors import CheckpointError, GITError
from weights_convert import convert
from weights_convert.folders import read_native
from weights_convert.huggingface import read_folder

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "cat", *(f"w{n}" for n in range(34))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(tiny_checkpoint(tmp_path / "tiny", WORDS))


@pytest.fixture
def old(folder: Path) -> Path:
    """A folder as version 0.1 wrote it: the format's name, and other names in it."""
    path = folder / "config.json"
    settings = json.loads(path.read_text()) | {"format": "git_model 1"}
    settings["eos_id"] = settings.pop("eos_ids")[0]
    settings["decoding"]["beams"] = settings["decoding"].pop("num_beams")
    path.write_text(json.dumps(settings))
    (folder / "SHA256SUMS").unlink()
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.effect_noise((16, 16), 50).save(tmp_path / "x.png")
    return tmp_path / "x.png"


# Folders of version 0.1

ADVICE = (
    "a checkpoint of git-model 0.1, expected format 'git_model 2': convert its source again, or "
    "export it with git-model 0.1 (convert --to hf) and convert that"
)
COMMANDS = [
    ["caption", "{image}", "-m", "{old}"],
    ["ask", "{image}", "-q", "a cat", "-m", "{old}"],
    ["score", "{image}", "-t", "a cat", "-m", "{old}"],
    ["classify", "{image}", "-l", "a", "-l", "cat", "-m", "{old}"],
    ["explain", "{image}", "--out", "{new}", "-m", "{old}"],
    ["batch", "{image}", "--out", "{new}.jsonl", "-m", "{old}"],
    ["evaluate", "{data}", "-m", "{old}"],
    ["train", "{recipe}", "--out", "{new}"],
    ["convert", "{old}", "{new}"],
    ["convert", "{old}", "{new}", "--to", "hf"],
    ["convert", "{old}", "{new}", "--from", "hf"],
    ["convert", "{old}", "{new}", "--from", "microsoft"],
    ["verify", "{old}"],
    ["page", "-m", "{old}"],
    ["caption", "{image}", "-m", "{old}", "--integrity"],
]

# of the page, without the seconds that gradio takes
LAYOUT = SimpleNamespace(
    Page=None, open_port=lambda *_: nullcontext(), server_of=None, web_app=None
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_old_folder_gives_one_line_that_says_what_to_do(
    command: list[str], old: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "git_model.page.layout", LAYOUT)
    (tmp_path / "data.toml").write_text('[data]\nkind = "shapes"\nsize = 2\n')
    write_recipe(tmp_path / "recipe.json", recipe_table(old))
    names = {
        "image": image,
        "old": old,
        "new": tmp_path / "new",
        "data": tmp_path / "data.toml",
        "recipe": tmp_path / "recipe.json",
    }
    result = CliRunner().invoke(main, [word.format(**names) for word in command])
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    assert line == f"Error: {old / 'config.json'}: {ADVICE}"
    assert result.stdout == ""
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "new.jsonl").exists()


@pytest.mark.parametrize(
    "read",
    [
        GIT.from_pretrained,
        Captioner.from_pretrained,
        open_model,
        read_native,
        lambda old: convert(str(old), old.parent / "new"),
    ],
)
def test_an_old_folder_gives_the_same_line_in_python(read: Callable, old: Path) -> None:
    with pytest.raises(CheckpointError, match=r"git-model 0\.1.*: convert its source again"):
        read(old)


def test_a_folder_of_ours_is_not_read_as_hugging_faces(folder: Path) -> None:
    with pytest.raises(GITError, match="in this project's format already"):
        read_folder(folder)


# --integrity


def test_integrity_opens_what_convert_wrote_and_refuses_what_changed(
    folder: Path, image: Path
) -> None:
    command = ["caption", str(image), "-m", str(folder), "--integrity"]
    assert CliRunner().invoke(main, command).exit_code == 0
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"cat"', '"dog"'))
    assert CliRunner().invoke(main, command[:-1]).exit_code == 0
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {path}: its sha256 is ")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: its sha256 is"):
        Captioner.from_pretrained(folder, integrity=True)


def test_integrity_of_another_format_says_to_convert_it(folder: Path) -> None:
    convert(str(folder), folder.parent / "hf", to="hf")
    Captioner.from_pretrained(folder.parent / "hf")
    with pytest.raises(CheckpointError, match=r"hf: --integrity checks .*convert the checkpoint"):
        Captioner.from_pretrained(folder.parent / "hf", integrity=True)


# Names


def print_imports(*folders: str) -> None:
    """A child: whether the converters are imported at first, and after each folder was opened."""
    ours = ("git_model", "weights_convert")
    for name in [name for name in sys.modules if name.startswith(ours)]:
        del sys.modules[name]
    from git_model import Captioner

    print("weights_convert" in sys.modules)
    for folder in folders:
        Captioner.from_pretrained(folder)
        print("weights_convert" in sys.modules)


def test_the_converters_are_imported_for_other_formats_only(folder: Path) -> None:
    convert(str(folder), folder.parent / "hf", to="hf")
    code, output, errors = run_forked(print_imports, folder, folder.parent / "hf")
    assert code == 0, errors
    assert output.split() == ["False", "False", "True"]


def test_a_revision_of_a_folder_is_refused(folder: Path) -> None:
    with pytest.raises(GITError, match="a revision is for hub ids, this is a folder"):
        open_model(folder, revision="v1")


def test_a_vocabulary_may_be_missing_but_not_of_another_model(folder: Path, tmp_path: Path) -> None:
    tiny_model().float().save_pretrained(tmp_path / "bare")
    assert open_model(tmp_path / "bare")[1] is None
    shutil.copy(folder / "tokenizer.json", tmp_path / "bare")
    assert open_model(tmp_path / "bare")[1] is not None
    text = json.loads((folder / "tokenizer.json").read_text())
    text["model"]["vocab"]["far"] = 40
    (tmp_path / "bare" / "tokenizer.json").write_text(json.dumps(text))
    with pytest.raises(GITError, match="has 41 tokens, but the model's vocab_size is 40"):
        open_model(tmp_path / "bare")
