"""Folders are read strictly, written whole or not at all, and refused in one line."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_model

from git_model import GIT
from git_model.checkpoints.native import read_checkpoint, write_checkpoint
from git_model.utils.atomic import new_folder
from git_model.utils.errors import CheckpointError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model(frames=2).float().save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        GIT.from_pretrained(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def change(folder: Path, edit) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_a_saved_model_comes_back_bit_for_bit(folder: Path) -> None:
    model, again = tiny_model(frames=2).float(), GIT.from_pretrained(folder)
    assert again.config == model.config
    assert not again.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_weights_are_cast_to_the_type_that_is_asked_for(folder: Path) -> None:
    model = GIT.from_pretrained(folder, dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_a_missing_tensor_is_named(folder: Path) -> None:
    change(folder, lambda tensors: tensors.pop("decoder.embedding_norm.weight"))
    assert "tensor decoder.embedding_norm.weight is missing" in refusal(folder)


def test_an_extra_tensor_is_named(folder: Path) -> None:
    change(folder, lambda tensors: tensors.update(stranger=torch.zeros(1)))
    assert "tensor stranger is not part of this model" in refusal(folder)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(folder: Path) -> None:
    change(folder, lambda tensors: tensors.update({"decoder.lm_head.bias": torch.zeros(7)}))
    message = refusal(folder)
    assert "tensor decoder.lm_head.bias has shape (7,), expected (40,)" in message


@pytest.mark.parametrize("length", [0, 4, 100, 5000])
def test_a_truncated_file_is_refused(folder: Path, length: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    assert "not a readable safetensors file" in refusal(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert refusal(folder).endswith("model.safetensors: no such file")
    (folder / "config.json").unlink()
    assert "config.json" in refusal(folder)
    assert "no such folder" in refusal(folder / "nowhere")


def test_a_folder_of_another_form_says_how_to_convert_it(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "git"}))
    assert "git-model convert" in refusal(folder)


def test_an_unknown_key_in_the_configuration_is_named(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    settings["encoder"]["activation"] = "swish"
    (folder / "config.json").write_text(json.dumps(settings))
    assert "activation is 'swish', expected one of gelu, quick_gelu" in refusal(folder)


def test_nothing_is_written_over_a_folder_that_is_there(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="already exists; name a new folder"):
        tiny_model().save_pretrained(folder)
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_folder_can_be_replaced_on_request(folder: Path) -> None:
    tiny_model(seed=5).save_pretrained(folder, overwrite=True)
    assert GIT.from_pretrained(folder).config.frames == 0
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_a_folder_with_something_else_in_it_is_never_replaced(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"holds notes\.txt; name a new folder"):
        tiny_model().save_pretrained(folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"


def half_written(folder: Path, error: Exception, replaces: tuple[str, ...] = ()) -> None:
    with new_folder(folder, replaces=replaces) as beside:
        (beside / "half").write_text("…")
        raise error


def test_a_failure_while_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="in the middle"):
        half_written(tmp_path / "new", RuntimeError("in the middle"))
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_replacing_keeps_what_was_there(folder: Path) -> None:
    full = OSError(28, "No space left on device")
    with pytest.raises(CheckpointError, match=r"cannot be written: .*No space left"):
        half_written(folder, full, ("*",))
    assert GIT.from_pretrained(folder).config.frames == 2
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_others_may_read_what_was_written(folder: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_more_files_travel_with_a_checkpoint(tmp_path: Path) -> None:
    model = tiny_model()
    files = {"tokenizer.json": "{}"}
    write_checkpoint(tmp_path / "x", model.config, model.state_dict(), files)
    assert (tmp_path / "x" / "tokenizer.json").read_text() == "{}"
    assert read_checkpoint(tmp_path / "x")[0] == model.config
