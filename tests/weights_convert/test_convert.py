"""Any format in, any format out, and the command line around it."""

import json
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip as library
import pytest
import torch
from click.testing import CliRunner, Result
from forked import program
from forked import run as run_forked
from parity_models import config_of
from safetensors.torch import load_file, save_file
from tiny import bite, tiny_model
from transformers import GitForCausalLM

from git_model import GIT, GITError
from git_model.checkpoints.native import DIGESTS, read_checkpoint
from git_model.cli.main import main
from git_model.preprocessing.tokenizer import Tokenizer
from weights_convert import convert, read_foreign
from weights_convert.__main__ import command_line
from weights_convert.hub import find_folder

ORIGINAL = Path(__file__).parents[1] / "fixtures" / "microsoft" / "image"
IDS = ["--bos-id", "1", "--eos-id", "2"]
TOKENS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "cat"]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, command_line([str(argument) for argument in arguments]))


def failure(*arguments: str | Path, code: int = 1) -> str:
    """The one line on stderr of a command that fails."""
    result = run(*arguments)
    assert result.exit_code == code
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit)
    lines = result.stderr.splitlines()
    assert lines[-1].startswith("Error: ")
    if code == 1:
        assert len(lines) == 1
    return lines[-1]


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    bite(GitForCausalLM(config_of(0)), 0).save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "vocab.txt").write_text("\n".join(TOKENS))
    return tmp_path / "words"


def same_tensors(*folders: Path) -> bool:
    a, b = (GIT.from_pretrained(folder).tensors() for folder in folders)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Formats


def test_hf_and_the_way_back(theirs: Path, tmp_path: Path) -> None:
    result = run("hf", theirs, tmp_path / "ours")
    assert result.exit_code == 0
    n_tensors = len(load_file(tmp_path / "ours" / "model.safetensors"))
    n_parameters = GitForCausalLM.from_pretrained(theirs).num_parameters()
    summary = f"{tmp_path / 'ours'}: {n_tensors} tensors, {n_parameters:,} parameters"
    assert result.stdout.startswith(summary)
    for name, arguments in {
        "a": ["hf", tmp_path / "ours", tmp_path / "a", "--to", "hf"],
        "b": ["hf", "--to", "hf", tmp_path / "ours", tmp_path / "b"],
        "c": ["--to", "hf", tmp_path / "ours", tmp_path / "c"],
    }.items():
        assert run(*arguments).exit_code == 0
        assert run(tmp_path / name, tmp_path / f"{name} again").exit_code == 0
        assert same_tensors(tmp_path / "ours", tmp_path / f"{name} again")


def test_the_original_with_its_ids_and_a_vocabulary(tmp_path: Path, vocabulary: Path) -> None:
    assert run("microsoft", ORIGINAL, tmp_path / "bare", *IDS).exit_code == 0
    assert not (tmp_path / "bare" / "tokenizer.json").exists()
    result = run("microsoft", ORIGINAL, tmp_path / "ours", *IDS, "--tokenizer", vocabulary)
    assert result.exit_code == 0
    assert "microsoft style, with a vocabulary" in result.stdout
    assert Tokenizer.from_folder(tmp_path / "ours").encode("A cat") == [4, 5]
    config, _ = read_checkpoint(tmp_path / "ours")
    assert (config.bos_id, config.eos_id, config.pad_id) == (1, 2, 0)


def test_an_original_in_hugging_faces_format_takes_its_style(tmp_path: Path) -> None:
    result = run("microsoft", ORIGINAL, tmp_path / "theirs", *IDS, "--to", "hf")
    assert result.exit_code == 0
    assert "huggingface style, without a vocabulary\n" in result.stdout
    model, report = GitForCausalLM.from_pretrained(
        tmp_path / "theirs", output_loading_info=True, attn_implementation="eager"
    )
    assert not any(report.values())
    assert model.config.layer_norm_eps == 1e-12


def test_the_files_show_their_format(theirs: Path, tmp_path: Path) -> None:
    assert read_foreign(str(theirs)).config.style == "huggingface"
    spoilt = tmp_path / "original"
    shutil.copytree(ORIGINAL, spoilt)
    with pytest.raises(GITError, match="bos_id is 101"):
        read_foreign(str(spoilt))
    (tmp_path / "empty").mkdir()
    with pytest.raises(GITError, match=r"not a checkpoint, expected config\.json or snapshot"):
        read_foreign(str(tmp_path / "empty"))


def test_a_damaged_folder_of_ours_is_not_written_in_another_format(tmp_path: Path) -> None:
    tiny_model().float().save_pretrained(tmp_path / "ours")
    tensors = GIT.from_pretrained(tmp_path / "ours").tensors()
    del tensors["decoder.embedding_norm.bias"]
    save_file(tensors, tmp_path / "ours" / "model.safetensors")
    message = failure("--to", "hf", tmp_path / "ours", tmp_path / "new" / "theirs")
    assert "decoder.embedding_norm.bias is missing" in message
    assert not (tmp_path / "new").exists()


def test_a_vocabulary_can_be_given_with_any_format(theirs: Path, vocabulary: Path) -> None:
    report = convert(str(theirs), theirs.parent / "ours", tokenizer=vocabulary)
    assert report.splitlines()[0].endswith("with a vocabulary")
    assert len(Tokenizer.from_folder(theirs.parent / "ours")) == len(TOKENS)


def test_an_unknown_format_is_refused(theirs: Path) -> None:
    with pytest.raises(GITError, match="no format 'onnx', expected native or hf"):
        convert(str(theirs), theirs.parent / "x", to="onnx")


def test_a_vocabulary_too_large_for_the_model_is_refused(tmp_path: Path, vocabulary: Path) -> None:
    words = [*TOKENS, *(f"w{i}" for i in range(100))]
    (vocabulary / "vocab.txt").write_text("\n".join(words))
    message = failure("microsoft", ORIGINAL, tmp_path / "x", *IDS, "--tokenizer", vocabulary)
    assert "106 tokens, but the model's vocab_size is 97" in message
    assert not (tmp_path / "x").exists()


# open_clip


@pytest.fixture
def clip_file(tmp_path: Path) -> Path:
    vision = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 1, "head_width": 32}
    text = {"context_length": 5, "vocab_size": 9, "width": 8, "heads": 1, "layers": 1}
    torch.save(library.CLIP(8, vision, text).state_dict(), tmp_path / "clip.pt")
    return tmp_path / "clip.pt"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base.toml").write_text(
        "bos_id = 1\neos_ids = [2]\n"
        "[decoder]\nvocab_size = 30\nwidth = 24\nheads = 3\nlayers = 1\nmlp_width = 8\n"
    )
    return tmp_path / "base.toml"


def test_a_start_from_a_clip_file(clip_file: Path, base: Path, vocabulary: Path) -> None:
    destination = base.parent / "start"
    options = ["--config", base, "--activation", "gelu", "--heads", "2", "--tokenizer", vocabulary]
    result = run("open_clip", clip_file, destination, *options, "--seed", "4")
    assert result.exit_code == 0
    model = GIT.from_pretrained(destination)
    assert (model.config.encoder.activation, model.config.encoder.heads) == ("gelu", 2)
    assert model.config.decoder.vocab_size == 30
    expected = torch.load(clip_file, weights_only=True)["visual.conv1.weight"]
    assert torch.equal(model.encoder.patch_embedding.weight, expected)
    assert model(torch.zeros(1, 3, 32, 32), torch.tensor([[1]])).shape == (1, 1, 30)


def test_a_named_model_does_not_take_what_is_for_files(tmp_path: Path) -> None:
    arguments = ["open_clip", "ViT-B-16", tmp_path / "x", "--pretrained", "openai", "--heads", "2"]
    assert "--heads is for files" in failure(*arguments, code=2)
    failure("open_clip", "ViT-B-16", tmp_path / "x", "--pretrained", "none")
    assert "ViT-B-16: no such file" in failure("open_clip", "ViT-B-16", tmp_path / "x")


# The hub


@pytest.fixture
def hub(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A hub on which org/name is the folder `theirs`; the options of each request."""
    requests: list[dict[str, Any]] = []

    def download(name: str, **options: Any) -> str:
        assert name == "org/name"
        requests.append(options)
        return str(theirs)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return requests


def test_a_hub_id_is_downloaded_at_its_revision(hub: list, tmp_path: Path) -> None:
    assert run("hf", "org/name", tmp_path / "a", "--revision", "v1").exit_code == 0
    convert("org/name", tmp_path / "b", revision="v1")
    assert same_tensors(tmp_path / "a", tmp_path / "b")
    assert [request["revision"] for request in hub] == ["v1", "v1"]
    patterns = [pattern for request in hub for pattern in request["allow_patterns"]]
    assert not any("bin" in pattern for pattern in patterns)
    for name in ("generation_config.json", "added_tokens.json", "special_tokens_map.json"):
        assert name in patterns


def test_pickles_are_asked_for_only_where_there_is_nothing_safer(theirs: Path, hub: list) -> None:
    state = GitForCausalLM.from_pretrained(theirs).state_dict()
    (theirs / "model.safetensors").unlink()
    torch.save(state, theirs / "pytorch_model.bin")
    assert read_foreign("org/name").state
    patterns = [request["allow_patterns"] for request in hub]
    assert ["pytorch_model*.bin" in names for names in patterns] == [False, True]


def test_an_unknown_hub_id_offline_is_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    message = failure("hf", "nobody/nothing", tmp_path / "new" / "x")
    assert "nobody/nothing: the Hugging Face hub cannot be reached" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("RepositoryNotFoundError", "no such repository"),
        ("RevisionNotFoundError", "no revision v9"),
        ("HfHubHTTPError", "cannot be downloaded: a message"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    error: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = getattr(huggingface_hub.errors, error)
    failed = kind.__new__(kind, "a\nmessage")
    failed.args = ("a\nmessage",)

    def refuse(*_: Any, **__: Any) -> None:
        raise failed

    monkeypatch.setattr(kind, "__str__", lambda self: self.args[0])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(GITError, match=words):
        find_folder("org/name", "v9")


@pytest.mark.parametrize("name", ["/no/where", "./no/where", "nowhere", "a/b/c", "../x", "~/x"])
def test_what_is_neither_folder_nor_hub_id_is_not_asked_for(
    name: str, hub: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GITError, match="no such folder, and not a hub id"):
        find_folder(name)
    assert hub == []


def test_a_revision_of_a_folder_is_refused(theirs: Path) -> None:
    with pytest.raises(GITError, match="a revision is for hub ids"):
        convert(str(theirs), theirs.parent / "x", revision="v1")
    tiny_model().float().save_pretrained(theirs.parent / "ours")
    with pytest.raises(GITError, match="a revision is for hub ids"):
        convert(str(theirs.parent / "ours"), theirs.parent / "x", revision="v1")


# The command line


def test_wrong_usage_ends_with_code_2(tmp_path: Path) -> None:
    assert "'FOLDER'" in failure("hf", tmp_path, code=2)
    assert "--bogus" in failure("--bogus", "a", "b", code=2)
    assert "--bos-id" in failure("microsoft", "a", "b", "--bos-id", "x", code=2)
    assert "'onnx'" in failure("hf", "a", "b", "--to", "onnx", code=2)
    assert run().exit_code == 2


def test_a_failure_in_a_shell_is_one_line_and_code_1(tmp_path: Path) -> None:
    new = tmp_path / "new" / "x"
    code, output, errors = run_forked(program, "weights_convert", "microsoft", ORIGINAL, new)
    assert (code, output) == (1, "")
    assert errors.startswith("Error: ")
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from weights_convert.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "hf", "--help"], capture_output=True, text=True, check=True
    )
    assert "Convert a checkpoint to another format." in result.stdout
    assert result.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["microsoft", "a", "b", "--heads", "2"], "--heads goes with --from open_clip"),
        (["hf", "a", "b", "--bos-id", "2"], "--bos-id goes with --from microsoft"),
        (["a", "b", "--seed", "2"], "--seed goes with --from open_clip"),
        (["microsoft", "a", "b", "--revision", "v1"], "--revision is for hub ids"),
    ],
)
def test_an_option_of_another_format_is_wrong_usage(arguments: list[str], words: str) -> None:
    assert words in failure(*arguments, code=2)


@pytest.mark.parametrize("to", ["native", "hf"])
def test_the_sha256_of_every_file_is_printed(to: str, theirs: Path, tmp_path: Path) -> None:
    result = run("hf", theirs, tmp_path / "new", "--to", to)
    lines = result.stdout.splitlines()[1:]
    files = {path.name: path for path in (tmp_path / "new").iterdir() if path.name != DIGESTS}
    expected = [f"{sha256(files[name].read_bytes()).hexdigest()}  {name}" for name in sorted(files)]
    assert lines == expected
    assert len(lines) == {"native": 2, "hf": 4}[to]
    if to == "native":
        assert (tmp_path / "new" / DIGESTS).read_text().splitlines() == lines


def test_a_refused_configuration_writes_nothing(theirs: Path) -> None:
    settings = json.loads((theirs / "config.json").read_text()) | {"hidden_act": "mish"}
    (theirs / "config.json").write_text(json.dumps(settings))
    assert "mish" in failure("hf", theirs, theirs.parent / "new" / "x")
    assert [path.name for path in theirs.parent.iterdir()] == ["theirs"]


def test_numbers_are_stored_in_the_format_asked_for(tmp_path: Path) -> None:
    model = tiny_model().float()
    model.save_pretrained(tmp_path / "whole")
    convert(str(tmp_path / "whole"), tmp_path / "half", dtype="float16")
    _, state = read_checkpoint(tmp_path / "half", dtype=None)
    for name, tensor in model.tensors().items():
        assert torch.equal(state[name], tensor.half())


def test_a_number_too_large_for_the_format_is_refused_and_nothing_written(tmp_path: Path) -> None:
    model = tiny_model().float()
    with torch.no_grad():
        model.decoder.lm_head.bias[3] = 1e6
    model.save_pretrained(tmp_path / "whole")
    with pytest.raises(GITError, match=r"tensor decoder\.lm_head\.bias has numbers too large for"):
        convert(str(tmp_path / "whole"), tmp_path / "half", dtype="float16")
    assert not (tmp_path / "half").exists()
