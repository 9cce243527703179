"""Damaged checkpoints of every format open, or are refused in one line; nothing is written."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from fuzzing import as_json, damaged, examples, fuzz, nothing_else_touched, warped
from hypothesis import strategies as st
from PIL import Image
from runs import start_folder
from safetensors.torch import load_file, save_file

from git_model import GIT, Captioner
from git_model.preprocessing.tokenizer import Tokenizer
from weights_convert import convert
from weights_convert.files import INDEX
from weights_convert.microsoft import read_folder, read_parameters

FIXTURE = Path(__file__).parents[1] / "fixtures" / "microsoft" / "video_6_frames"
IDS = {"bos_id": 1, "eos_id": 2, "pad_id": 0}
PICTURE = Image.effect_noise((16, 16), 50)


@pytest.fixture(scope="module")
def forms(tmp_path_factory) -> dict[str, Path]:
    """A tiny checkpoint in this project's format, in Hugging Face's, and there in shards."""
    home = tmp_path_factory.mktemp("forms")
    folders = {name: home / name for name in ("native", "hf", "shards")}
    start_folder(folders["native"])
    convert(str(folders["native"]), folders["hf"], to="hf")
    shutil.copytree(folders["hf"], folders["shards"])
    tensors = list(load_file(folders["hf"] / "model.safetensors").items())
    parts = {f"model-{number}-of-2.safetensors": tensors[number - 1 :: 2] for number in (1, 2)}
    for name, part in parts.items():
        save_file(dict(part), folders["shards"] / name)
    index = {"weight_map": {key: name for name, part in parts.items() for key, _ in part}}
    (folders["shards"] / f"model.safetensors{INDEX}").write_text(json.dumps(index))
    (folders["shards"] / "model.safetensors").unlink()
    return folders


@pytest.fixture
def copy(tmp_path, forms, request) -> Path:
    """One of them, which a test may spoil."""
    return shutil.copytree(forms[request.param], tmp_path / "folder")


def of_form(*names):
    return pytest.mark.parametrize("copy", names, indirect=True)


def opened(path, folder):
    """Write a file of a checkpoint, open the checkpoint, caption an image, then convert it."""

    def read(data):
        path.write_bytes(data)
        with nothing_else_touched(folder.parent):
            Captioner.from_pretrained(folder).caption(PICTURE)
        try:
            with nothing_else_touched(folder):
                convert(str(folder), folder.parent / "new")
        finally:
            shutil.rmtree(folder.parent / "new", ignore_errors=True)
            assert list(folder.parent.iterdir()) == [folder]

    return read


# Tensors


@examples(12, 1500)
@of_form("native", "hf")
def test_a_damaged_file_of_tensors(copy, count):
    path = copy / "model.safetensors"
    fuzz(count, damaged(path.read_bytes()), opened(path, copy))


@examples(12, 1500)
@of_form("native", "hf")
def test_a_damaged_beginning_of_a_file_of_tensors(copy, count):
    path = copy / "model.safetensors"
    whole = path.read_bytes()
    begin = 8 + int.from_bytes(whole[:8], "little")
    inputs = damaged(whole[:begin]).map(lambda header: header + whole[begin:])
    fuzz(count, inputs, opened(path, copy))


@examples(12, 1500)
@of_form("native", "hf")
def test_a_header_that_says_other_things(copy, count):
    path = copy / "model.safetensors"
    whole = path.read_bytes()
    begin = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:begin])

    def file(value):
        text = as_json(value)
        return len(text).to_bytes(8, "little") + text + whole[begin:]

    dtypes = ["F64", "F32", "F16", "BF16", "I64", "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "C64"]
    dtypes += ["F4", "F6_E2M3", "F8_E8M0", "Q4", "U64", ""]
    other = st.tuples(st.sampled_from(sorted(header)), st.sampled_from(dtypes)).map(
        lambda pair: header | {pair[0]: {**header[pair[0]], "dtype": pair[1]}}
    )
    fuzz(count, st.one_of(warped(header), other).map(file), opened(path, copy))


@examples(15, 1500)
@of_form("native")
def test_numbers_of_any_kind(copy, count):
    path = copy / "model.safetensors"
    whole = path.read_bytes()
    begin = 8 + int.from_bytes(whole[:8], "little")
    changes = st.lists(
        st.tuples(st.integers(begin, len(whole) - 8), st.binary(min_size=8, max_size=8)), min_size=1
    )

    def file(parts):
        data = bytearray(whole)
        for start, numbers in parts:
            data[start : start + 8] = numbers
        return bytes(data)

    fuzz(count, changes.map(file), opened(path, copy))


# Settings


@examples(12, 1500)
@pytest.mark.parametrize(
    ("copy", "name"),
    [
        ("native", "config.json"),
        ("native", "tokenizer.json"),
        ("hf", "config.json"),
        ("hf", "tokenizer.json"),
        ("hf", "tokenizer_config.json"),
        ("hf", "preprocessor_config.json"),
        ("hf", "generation_config.json"),
    ],
    indirect=["copy"],
)
def test_settings_that_say_other_things(copy, name, count):
    path = copy / name
    whole = json.loads(path.read_text())
    fuzz(count, warped(whole).map(as_json), opened(path, copy))


@examples(10, 1500)
@of_form("native", "hf")
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_damaged_settings(copy, name, count):
    path = copy / name
    fuzz(count, damaged(path.read_bytes()), opened(path, copy))


ADDED = {"added_tokens.json": {"red panda": 164, "<obj>": 165, "[MASK]": 4}}
SPECIAL = {
    "special_tokens_map.json": {
        "cls_token": "[CLS]",
        "sep_token": {"content": "[SEP]", "lstrip": True, "special": True},
        "additional_special_tokens": ["<obj>"],
    }
}
FLAGS = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": True}
DECODER = {
    "tokenizer_config.json": {
        "added_tokens_decoder": {"164": {"content": "<obj>", **FLAGS, "special": False}}
    }
}


@examples(16, 1500)
@of_form("hf")
@pytest.mark.parametrize(
    "files", [ADDED, ADDED | SPECIAL, DECODER], ids=["added", "map", "decoder"]
)
def test_added_tokens_that_say_other_things(copy, files, count):
    """The vocabulary has 164 tokens, and the model rows for a few more."""
    words = json.loads((copy / "tokenizer.json").read_text())["model"]["vocab"]
    assert len(words) == 164
    (copy / "tokenizer.json").unlink()
    (copy / "vocab.txt").write_text("\n".join(words))
    for name, content in files.items():
        (copy / name).write_text(json.dumps(content))
    name, content = list(files.items())[-1]
    path = copy / name

    def read(data):
        path.write_bytes(data)
        with nothing_else_touched(copy):
            tokenizer = Tokenizer.from_folder(copy)
            tokenizer.decode(tokenizer.encode("a red panda <OBJ> [SEP]"))

    read(path.read_bytes())
    fuzz(count, st.one_of(warped(content).map(as_json), damaged(path.read_bytes())), read)


@examples(16, 1500)
@of_form("native")
def test_a_damaged_list_of_digests(copy, count):
    path = copy / "SHA256SUMS"
    whole = path.read_bytes()

    def read(data):
        path.write_bytes(data)
        with nothing_else_touched(copy):
            GIT.from_pretrained(copy, integrity=True)

    read(whole)
    fuzz(count, damaged(whole), read)


@examples(10, 1500)
@of_form("shards")
def test_a_damaged_list_of_shards(copy, count):
    path = copy / f"model.safetensors{INDEX}"
    whole = path.read_bytes()
    inputs = st.one_of(warped(json.loads(whole)).map(as_json), damaged(whole))
    fuzz(count, inputs, opened(path, copy))


@examples(12, 1500)
@of_form("hf")
def test_a_damaged_list_of_words(copy, count):
    words = json.loads((copy / "tokenizer.json").read_text())["model"]["vocab"]
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer_config.json").unlink()
    whole = "\n".join(words).encode()
    fuzz(count, damaged(whole), opened(copy / "vocab.txt", copy))


# The original's


@pytest.fixture
def original(tmp_path) -> Path:
    """A folder in the original's format, which a test may spoil."""
    return shutil.copytree(FIXTURE, tmp_path / "folder")


@examples(15, 1500)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_damaged_pickle(original, legacy, count):
    path = original / "snapshot" / "model.pt"
    file = io.BytesIO()
    loaded = torch.load(path, weights_only=True)
    torch.save(loaded, file, _use_new_zipfile_serialization=not legacy)
    whole = file.getvalue()
    # most of the file is numbers; what can go wrong is at its ends
    ends = (
        damaged(whole[:40000]).map(lambda head: head + whole[40000:]),
        damaged(whole[-20000:]).map(lambda tail: whole[:-20000] + tail),
    )

    def read(data):
        path.write_bytes(data)
        with nothing_else_touched(original):
            config, state, _ = read_folder(original, **IDS)
            GIT.from_state(config, state, "it")

    fuzz(count, st.one_of(damaged(whole), *ends), read)


TAGS = ("", "!!int ", "!!float ", "!!bool ", "!!timestamp ", "!!binary ", "!!set ", "!!omap ",
        "!!str ", "!!null ", "!!python/name:os.system ", "!!python/object/apply:os.abort ", "&a ",
        "*a ", "!x ", "<<: ")  # fmt: skip
VALUES = ("", "1", "0x" + "f" * 5000, "-1", "1e400", ".nan", "1:2:3", "2001-99-99", "[1, 2]", "{}",
          "{a: b}", "'a\\nb'", '"\\u0000"', "[" * 50, "? x", "---", "- 1", "|\n  x", "x: y: z",
          "CLIPViT_B_16", "9" * 5000, "~", "%")  # fmt: skip


@examples(80, 20000)
def test_a_damaged_parameter_file(tmp_path, count):
    path = tmp_path / "parameter.yaml"
    keys = st.sampled_from(("test_crop_size", "image_encoder_type", "*a", "? [a]", "<<", "x"))
    line = st.tuples(keys, st.sampled_from(TAGS), st.sampled_from(VALUES)).map(
        lambda parts: f"{parts[0]}: {parts[1]}{parts[2]}"
    )
    written = st.lists(line, min_size=1, max_size=3).map("\n".join).map(str.encode)
    whole = yaml.safe_dump({"test_crop_size": 32, "image_encoder_type": "CLIPViT_B_16"}).encode()

    def read(data):
        path.write_bytes(data)
        with nothing_else_touched(tmp_path):
            read_parameters(path)

    fuzz(count, st.one_of(written, damaged(whole)), read)
