"""Folders are read strictly, written whole or not at all, and refused in one line."""

import json
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_model

from git_model import GIT
from git_model.checkpoints.loading import exact_revision
from git_model.checkpoints.native import folder_of, read_checkpoint, write_checkpoint
from git_model.utils.atomic import new_folder
from git_model.utils.errors import CheckpointError, GITError


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
    assert again.tensors().keys() == model.tensors().keys()
    for name, tensor in model.tensors().items():
        assert torch.equal(tensor, again.tensors()[name])


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


def test_a_folder_of_another_format_says_how_to_convert_it(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "git"}))
    assert "git-model convert" in refusal(folder)


def test_an_unknown_key_in_the_configuration_is_named(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    settings["encoder"]["activation"] = "swish"
    (folder / "config.json").write_text(json.dumps(settings))
    message = "activation is 'swish', expected one of gelu, gelu_tanh, quick_gelu, relu, silu"
    assert message in refusal(folder)


def test_nothing_is_written_over_a_folder_that_is_there(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(GITError, match="already exists; name a new folder"):
        tiny_model().save_pretrained(folder)
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_folder_can_be_replaced_on_request(folder: Path) -> None:
    tiny_model(seed=5).save_pretrained(folder, overwrite=True)
    assert GIT.from_pretrained(folder).config.frames == 0
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_a_folder_with_something_else_in_it_is_never_replaced(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(GITError, match=r"holds notes\.txt; name a new folder"):
        tiny_model().save_pretrained(folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"


def half_written(folder: Path, error: Exception, replaces: tuple[str, ...] = ()) -> None:
    with new_folder(folder, replaces=replaces) as temporary:
        (temporary / "half").write_text("…")
        raise error


def test_a_failure_while_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="in the middle"):
        half_written(tmp_path / "new", RuntimeError("in the middle"))
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_replacing_keeps_what_was_there(folder: Path) -> None:
    full = OSError(28, "No space left on device")
    with pytest.raises(GITError, match=r"cannot be written: .*No space left"):
        half_written(folder, full, ("*",))
    assert GIT.from_pretrained(folder).config.frames == 2
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_others_may_read_what_was_written(folder: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_more_files_travel_with_a_checkpoint(tmp_path: Path) -> None:
    model = tiny_model()
    files = {"tokenizer.json": "{}"}
    write_checkpoint(tmp_path / "x", model.config, model.tensors(), files)
    assert (tmp_path / "x" / "tokenizer.json").read_text() == "{}"
    assert read_checkpoint(tmp_path / "x")[0] == model.config


# Digests


def damage(path: Path) -> None:
    """Flip one bit in the middle of a file, as a bad disk does."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def refused_digest(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        GIT.from_pretrained(folder, integrity=True)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_holds_the_sha256_of_its_files(folder: Path) -> None:
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    names = ["config.json", "model.safetensors"]
    expected = [f"{sha256((folder / name).read_bytes()).hexdigest()}  {name}" for name in names]
    assert lines == expected


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum")
def test_the_program_sha256sum_reads_the_digests(folder: Path) -> None:
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    assert subprocess.run(command, cwd=folder, check=False).returncode == 0
    damage(folder / "model.safetensors")
    assert subprocess.run(command, cwd=folder, check=False).returncode == 1


def test_a_whole_folder_passes_its_digests(folder: Path) -> None:
    again = GIT.from_pretrained(folder, integrity=True)
    assert again.config == tiny_model(frames=2).config
    (folder / "notes.txt").write_text("a file that is never read")
    GIT.from_pretrained(folder, integrity=True)


def test_a_flipped_bit_is_found_on_request_only(folder: Path) -> None:
    damage(folder / "model.safetensors")
    GIT.from_pretrained(folder)
    message = refused_digest(folder)
    assert f"{folder / 'model.safetensors'}: its sha256 is" in message
    assert "the file was changed or damaged" in message


def test_a_changed_setting_is_found(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"frames": 2', '"frames": 1'))
    assert f"{path}: its sha256 is" in refused_digest(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "added_tokens.json"])
def test_a_file_that_was_added_later_is_found(name: str, folder: Path) -> None:
    (folder / name).write_text("{}")
    assert f"{folder / name}: not in SHA256SUMS, so it was added later" in refused_digest(folder)


def test_a_missing_file_is_found(tmp_path: Path) -> None:
    model = tiny_model()
    files = {"tokenizer.json": "{}"}
    write_checkpoint(tmp_path / "x", model.config, model.tensors(), files)
    (tmp_path / "x" / "tokenizer.json").unlink()
    assert "tokenizer.json: missing, but SHA256SUMS lists it" in refused_digest(tmp_path / "x")


def test_a_folder_without_digests_says_what_to_do(folder: Path) -> None:
    (folder / "SHA256SUMS").unlink()
    message = refused_digest(folder)
    assert "no SHA256SUMS, so its files cannot be checked: convert the checkpoint again" in message


@pytest.mark.parametrize(
    "line",
    ["x", f"{'0' * 64}  ../config.json", f"{'0' * 64}  /etc/passwd", f"{'0' * 63}  config.json"],
)
def test_a_damaged_list_of_digests_is_refused(line: str, folder: Path) -> None:
    (folder / "SHA256SUMS").write_text(f"{line}\n")
    assert "expected a sha256 and a file's name" in refused_digest(folder)


def test_a_replaced_checkpoint_has_new_digests(folder: Path) -> None:
    tiny_model(seed=5).save_pretrained(folder, overwrite=True)
    GIT.from_pretrained(folder, integrity=True)


def test_the_shipped_model_passes_its_digests() -> None:
    GIT.from_pretrained(folder_of("demo"), integrity=True)


def test_the_revision_of_a_folder_is_a_digest_of_its_weights(folder: Path) -> None:
    inner = sha256((folder / "model.safetensors").read_bytes()).digest()
    before = exact_revision(str(folder), None)
    assert before == f"sha256:{sha256(inner).hexdigest()[:12]}"
    (folder / "config.json").write_text("{}")
    assert exact_revision(str(folder), None) == before
    damage(folder / "model.safetensors")
    assert exact_revision(str(folder), None) != before


def test_an_export_into_a_checkpoints_folder_leaves_its_revision(folder: Path) -> None:
    before = exact_revision(str(folder), None)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "weights.bin").write_bytes(b"other")
    assert exact_revision(str(folder), None) == before
