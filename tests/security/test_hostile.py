"""Files that ask for more than they are: refused by name, before memory or time is taken."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile

import pytest
import torch
from click.testing import CliRunner
from fuzzing import MB, at_most, nothing_else_touched, outcome
from PIL import Image
from tiny import tiny_config, tiny_model

from git_model import GIT, Captioner
from git_model.checkpoints.native import read_checkpoint
from git_model.cli.main import main
from git_model.config import GITConfig, PreprocessConfig
from git_model.data.coco import KarpathyData
from git_model.data.example import Source
from git_model.data.folder import FolderData
from git_model.data.webdataset import WebDatasetData
from git_model.evaluation.predictions import read_predictions
from git_model.preprocessing.image import open_image
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.preprocessing.tokenizer_files import ADDED, JSON, SPECIAL, VOCAB
from git_model.preprocessing.video import read_media
from git_model.utils.serialize import from_dict, read_mapping
from weights_convert.files import INDEX, open_tensors
from weights_convert.microsoft import read_parameters


def refused(read, words, memory=100 * MB):
    """The reading is refused with these words, and has not taken more memory than this."""
    with at_most(memory):
        message = outcome(read)
    assert message is not None
    assert words in message


# Tensors


@pytest.fixture
def folder(tmp_path):
    tiny_model().float().save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_a_small_file_of_a_huge_configuration_is_refused_before_allocation(folder):
    settings = json.loads((folder / "config.json").read_text())
    settings["decoder"] |= {"vocab_size": 2**20, "width": 2**16, "heads": 1, "mlp_width": 2**16}
    (folder / "config.json").write_text(json.dumps(settings))
    refused(lambda: GIT.from_pretrained(folder), "has shape")


def test_a_configuration_of_a_million_layers_is_refused_at_once(folder):
    settings = json.loads((folder / "config.json").read_text())
    settings["encoder"]["layers"] = 10**6
    (folder / "config.json").write_text(json.dumps(settings))
    refused(lambda: GIT.from_pretrained(folder), "layers is 1000000, expected at most 1024")


@pytest.mark.parametrize("claimed", [0, 2**20, 2**40, 2**64 - 1])
def test_a_header_that_is_longer_than_its_file_is_refused(folder, claimed):
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", claimed) + path.read_bytes()[8:2000])
    refused(lambda: read_checkpoint(folder), "its header claims")


def tensors(path, header, size):
    """A .safetensors file of this header's text, and so many bytes of numbers."""
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + b"\0" * size)
    return path


@pytest.mark.parametrize(
    "header",
    [
        '{"a":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        '"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}',
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}',
        '{"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}}',
        "[" * 5000,
    ],
)
def test_tensors_that_overlap_or_are_larger_than_the_file_are_refused(tmp_path, header):
    path = tensors(tmp_path / "a.safetensors", header, 12)
    refused(lambda: dict(open_tensors(path)), "not a readable safetensors file")


# Pickles


class Calls:
    """What a pickle may ask for."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("what", "words"),
    [
        (Calls(os.mkdir, "owned"), "posix.mkdir"),
        (Calls(bytearray, 10**11), "bytearray"),
        (Calls(torch.Tensor, 10**6, 10**6), "torch._tensor.Tensor"),
    ],
    ids=["mkdir", "bytearray", "tensor"],
)
def test_a_pickle_that_calls_something_is_refused(tmp_path, monkeypatch, what, words, legacy):
    monkeypatch.chdir(tmp_path)
    file = io.BytesIO()
    torch.save({"a": what}, file, _use_new_zipfile_serialization=not legacy)
    (tmp_path / "model.pt").write_bytes(file.getvalue())
    with nothing_else_touched(tmp_path):
        refused(lambda: open_tensors(tmp_path / "model.pt"), "it asks for")
    assert words.split(".")[-1] in str(outcome(lambda: open_tensors(tmp_path / "model.pt")))


def archive(path, names, *, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as made:
        for name, data in names.items():
            made.writestr(name, data)
    return path


def test_a_zip_bomb_is_refused(tmp_path):
    whole = pickle.dumps({"a" * (300 * MB): 1}, protocol=2)
    path = archive(tmp_path / "model.pt", {"a/data.pkl": whole}, compression=zipfile.ZIP_DEFLATED)
    del whole
    refused(lambda: open_tensors(path), "is compressed")


def test_a_list_of_tensors_that_is_too_long_is_refused(tmp_path):
    path = archive(tmp_path / "model.pt", {"a/data.pkl": b"\x80\x02}." + b"\0" * 5 * MB})
    refused(lambda: open_tensors(path), "expected at most")


def test_a_path_in_a_zip_is_never_written(tmp_path):
    (tmp_path / "in").mkdir()
    names = {"a/data.pkl": pickle.dumps({}, protocol=2), "../../out": b"x", "/tmp/out": b"x"}
    path = archive(tmp_path / "in" / "model.pt", names)
    with nothing_else_touched(tmp_path):
        outcome(lambda: open_tensors(path))


def test_a_tensor_that_shows_one_number_a_billion_times_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"a": torch.ones(1).expand(10**5, 10**5)}, path)
    refused(lambda: open_tensors(path), "the tensors claim")


def test_tied_weights_are_no_false_claim(tmp_path):
    weight = torch.randn(1000, 100)
    torch.save({"a": weight, "b": weight}, tmp_path / "model.pt")
    assert set(open_tensors(tmp_path / "model.pt")) == {"a", "b"}


def test_a_tuple_of_tuples_without_end_is_refused(tmp_path):
    # )q\0, then sixty times: h\0 h\0 TUPLE2 q\0; the tuple becomes a key, which is hashed
    bomb = b"\x80\x02})q\0" + b"h\0h\0\x86q\0" * 60 + b"K\1s."
    path = archive(tmp_path / "model.pt", {"a/data.pkl": bomb})
    refused(lambda: open_tensors(path), "tuples within tuples")


def test_a_long_list_of_nothing_is_looked_through_in_no_time(tmp_path):
    nothing = b"\x80\x02" + b"N" * MB + b"(t0" * 100_000 + b"."  # above a stack of a million
    path = archive(tmp_path / "model.pt", {"a/data.pkl": nothing})
    assert outcome(lambda: open_tensors(path)) is not None


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/passwd", "x/a.bin", "a.pkl", 3])
def test_a_list_of_shards_cannot_leave_its_folder(tmp_path, name):
    path = tmp_path / f"model.safetensors{INDEX}"
    path.write_text(json.dumps({"weight_map": {"a": name}}))
    assert outcome(lambda: open_tensors(path)) is not None


# Settings


def test_aliases_of_aliases_are_refused(tmp_path):
    path = tmp_path / "parameter.yaml"
    lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    path.write_text("\n".join(["a0: &a0 [x]", *lines]))
    refused(lambda: read_parameters(path), "an alias")


@pytest.mark.parametrize("name", ["config.json", "recipe.toml"])
def test_settings_of_absurd_size_are_refused_unread(tmp_path, name):
    with (tmp_path / name).open("wb") as file:
        file.truncate(2**40)
    refused(lambda: read_mapping(tmp_path / name), "expected at most 4,194,304")


def test_a_pipe_is_refused_unopened(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    refused(lambda: read_mapping(tmp_path / "config.json"), "expected a file")
    refused(lambda: open_image(tmp_path / "config.json"), "a pipe, socket or device")
    refused(lambda: read_media(tmp_path / "config.json", 4), "a pipe, socket or device")


@pytest.mark.parametrize("name", [JSON, VOCAB])
def test_a_vocabulary_of_absurd_size_is_refused_unread(tmp_path, name):
    with (tmp_path / name).open("wb") as file:
        file.truncate(2**40)
    refused(lambda: Tokenizer.from_folder(tmp_path), "expected at most 16,777,216")


@pytest.mark.parametrize("name", [ADDED, SPECIAL, "tokenizer_config.json"])
def test_a_file_beside_the_vocabulary_of_absurd_size_is_refused_unread(tmp_path, name):
    (tmp_path / VOCAB).write_text("[PAD]\n[CLS]\n[SEP]\n[UNK]\na")
    with (tmp_path / name).open("wb") as file:
        file.truncate(2**40)
    refused(lambda: Tokenizer.from_folder(tmp_path), "expected at most 4,194,304")


@pytest.mark.parametrize("n", [15_000, pytest.param(150_000, marks=pytest.mark.slow)])
def test_as_many_added_tokens_as_a_file_may_hold_are_added_in_bounded_time_and_memory(tmp_path, n):
    """The library builds its automaton anew for each call, so they are added in one."""
    (tmp_path / VOCAB).write_text("[PAD]\n[CLS]\n[SEP]\n[UNK]\na")
    (tmp_path / ADDED).write_text(json.dumps({f"<{i:x}>": i + 5 for i in range(n)}))
    with at_most(600 * MB):
        assert len(Tokenizer.from_folder(tmp_path)) == n + 5


@pytest.mark.parametrize("n", [10**6, pytest.param(4 * 10**6, marks=pytest.mark.slow)])
def test_one_added_token_of_megabytes_is_no_harm(tmp_path, n):
    (tmp_path / VOCAB).write_text("[PAD]\n[CLS]\n[SEP]\n[UNK]\na")
    (tmp_path / ADDED).write_text(json.dumps({"a" * n: 5}))
    with at_most(600 * MB):
        assert Tokenizer.from_folder(tmp_path).encode("a a") == [4, 4]


def test_a_token_name_cannot_write_into_a_terminal(tmp_path):
    (tmp_path / VOCAB).write_text("[PAD]\n[CLS]\n[SEP]\n[UNK]\na")
    (tmp_path / ADDED).write_text(json.dumps({"\x1b[31m\n": 9}))
    refused(lambda: Tokenizer.from_folder(tmp_path), "has the id 9, but would get 5")


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/b", "..\\x"])
def test_a_list_of_digests_cannot_leave_its_folder(folder, name):
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
    refused(lambda: read_checkpoint(folder, integrity=True), "expected a sha256 and a file's name")


def test_digests_of_absurd_size_or_in_a_pipe_are_refused_unread(folder):
    with (folder / "SHA256SUMS").open("wb") as file:
        file.truncate(2**40)
    refused(lambda: read_checkpoint(folder, integrity=True), "expected at most 4,194,304")
    (folder / "SHA256SUMS").unlink()
    os.mkfifo(folder / "SHA256SUMS")
    refused(lambda: read_checkpoint(folder, integrity=True), "no SHA256SUMS")


@pytest.mark.parametrize(
    "step",
    [
        {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"},
        {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""},
        {"type": "Prepend", "prepend": "a" * 1000},
    ],
)
def test_a_step_of_a_tokenizer_that_could_run_away_is_refused(tmp_path, step):
    words = Tokenizer.from_vocab(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a"])
    table = json.loads(words.to_json()) | {
        "normalizer": {"type": "Sequence", "normalizers": [step] * 40}
    }
    (tmp_path / JSON).write_text(json.dumps(table))
    assert outcome(lambda: Tokenizer.from_folder(tmp_path)) is not None


@pytest.mark.parametrize(
    "table",
    [
        {"encoder": {"norm_eps": 10**400}},
        {"frames": 10**18},
        {"decoding": {"num_beams": 10**6}},
        {"decoding": {"max_length": 10**9}},
        {"eos_ids": list(range(1000))},
        {"preprocess": {"crop": [10**6, 10**6]}},
        {"encoder": {"image_size": 2**20, "patch_size": 2**20}},
    ],
)
def test_numbers_beyond_all_models_are_refused(table):
    refused(lambda: from_dict(GITConfig, table), "expected")


def test_a_picture_of_too_many_patches_is_refused():
    model = GIT(tiny_config(preprocess=PreprocessConfig(short_side=4096, crop=(4096, 4096))))
    refused(lambda: model.see(torch.zeros(1, 3, 4096, 2048)), "patches, expected at most")


# Pictures


def test_a_jpeg_that_is_drawn_thousands_of_times_is_refused(tmp_path):
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "JPEG", progressive=True)
    begin, scan = file.getvalue()[:-2], file.getvalue()[:-2].rpartition(b"\xff\xda")[2]
    (tmp_path / "a.jpg").write_bytes(begin + (b"\xff\xda" + scan) * 5000 + b"\xff\xd9")
    refused(lambda: open_image(tmp_path / "a.jpg"), "expected at most 100")


def test_a_program_is_no_picture(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    refused(lambda: open_image(tmp_path / "a.eps"), "a PostScript program")


def test_an_animation_that_would_take_hours_is_refused(tmp_path, monkeypatch):
    frames = [Image.effect_noise((20, 20), number) for number in range(50)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20 * 20)
    refused(lambda: read_media(tmp_path / "a.gif", 3), "50 frames of 20 x 20 pixels")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2 * 20 * 20)
    refused(lambda: read_media(tmp_path / "a.gif", 10), "10 frames of 20 x 20 pixels")
    assert len(read_media(tmp_path / "a.gif", 8).frames) == 8


# Tars and manifests


def member(size, kind=b"0", *, sparse=0):
    """The header of a file in a tar, of any size."""
    info = tarfile.TarInfo("x.png")
    info.type = kind
    data = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    data[124:136] = b"\xff" * 4 + struct.pack(">q", size) if size < 0 else tarfile.itn(size, 12, 1)
    if sparse:
        data[386:410] = b"00000000000\0" * 2
        data[483:495] = b"%011o\0" % sparse
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    return bytes(data)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (member(2**60), "claims"),
        (member(2**60, b"5"), "the shard is damaged"),
        (member(-1024), "claims"),
        (member(0, b"S", sparse=2**32), "claims"),
        (b"\x1f\x8b\x08", "it is compressed"),
    ],
    ids=["huge", "huge folder", "backwards", "sparse", "gzip"],
)
def test_a_tar_that_claims_what_it_has_not_is_refused(tmp_path, header, words):
    (tmp_path / "a.tar").write_bytes(header + b"\0" * 2048)
    made = WebDatasetData(shards=str(tmp_path / "a.tar")).open()
    with at_most(100 * MB):
        messages = [outcome(sealed) for sealed in made.stream(0, 0, 0, 1)]
    assert all(message is None or words in message for message in messages)
    assert messages or b"5" in header


def test_names_in_a_tar_are_never_written(tmp_path):
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "a.tar", "w") as made:
        for name in ("../../out.txt", "/tmp/out.txt"):
            made.addfile(tarfile.TarInfo(name))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        made.addfile(link)
    with nothing_else_touched(tmp_path):
        for sealed in (
            WebDatasetData(shards=str(tmp_path / "in" / "a.tar")).open().stream(0, 0, 0, 1)
        ):
            outcome(sealed)


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "x/../../a.png", "C:\\a.png", "a\0b"])
def test_a_manifest_cannot_leave_its_folder(tmp_path, name):
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": name, "text": "x"}))

    def opened() -> Source:
        return FolderData(path=str(tmp_path)).open()

    refused(opened, "leaves its folder")


@pytest.mark.parametrize("number", ["Infinity", "NaN", "1e999"])
def test_a_prediction_of_infinite_probability_is_refused(tmp_path, number):
    (tmp_path / "said.jsonl").write_text(f'{{"key": "a", "text": "b", "logprob": {number}}}')
    refused(lambda: read_predictions(tmp_path / "said.jsonl"), "logprob is")


@pytest.mark.parametrize("record", [None, 3, [], "a", {}])
def test_a_picture_that_is_no_object_is_refused(tmp_path, record):
    (tmp_path / "list.json").write_text(json.dumps({"images": [record]}))
    made = KarpathyData(annotations=str(tmp_path / "list.json"), images=str(tmp_path))
    refused(made.open, "filename")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory: 9 GB")])
def test_too_little_memory_is_one_line(monkeypatch, tmp_path, error):
    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr(Captioner, "from_pretrained", fail)
    (tmp_path / "a.png").touch()
    run = CliRunner().invoke(main, ["caption", str(tmp_path / "a.png")])
    assert run.exit_code == 1
    assert "there is not enough memory: use a smaller --batch-size" in run.output
