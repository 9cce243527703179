"""Adapters: trained by a recipe, resumed, opened with their base, merged, refused elsewhere."""

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from runs import losses_of, recipe_of, recipe_table, start_folder
from safetensors.torch import load_file, save_file
from tiny import tiny_config
from torch import Tensor, nn
from torch.distributed.checkpoint import FileSystemReader

from git_model import GIT, Captioner, GITError
from git_model.checkpoints.adapters import (
    AdapterConfig,
    adapter_tensors,
    add_adapter,
    merge_adapter,
    target_names,
)
from git_model.checkpoints.native import write_checkpoint
from git_model.cli.main import main
from git_model.training.loop import CHECKPOINT, Trainer, train
from git_model.training.recipe import Recipe
from git_model.utils.errors import ConfigError
from git_model.utils.serialize import from_dict

if find_spec("peft") is None:  # not imported: it takes a second, even where no test of these runs
    pytest.skip("peft is not installed", allow_module_level=True)

TOKENS = torch.tensor([[2, 7, 9, 5]])
PIXELS = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
DORA = {"kind": "dora", "rank": 2, "targets": ["decoder.*.qkv", "*.mlp.up", "projector.linear"]}
RATES = {"encoder_lr": 0.05, "decoder_lr": 0.05}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start_folder(tmp_path_factory.mktemp("base") / "start", dropout=0.1)


@pytest.fixture(scope="module", params=["lora", "dora"])
def run(request: pytest.FixtureRequest, start: Path, tmp_path_factory) -> Path:
    """The folder of a run that trained an adapter."""
    adapter = {"rank": 4, "dropout": 0.1} if request.param == "lora" else DORA
    out = tmp_path_factory.mktemp(request.param) / "run"
    train(recipe_of(start, adapter=adapter, steps=4, learning=RATES), out)
    return out


def logits(captioner: Captioner) -> Tensor:
    with torch.inference_mode():
        return captioner.model(PIXELS.to(captioner.model.dtype), TOKENS)


def test_a_live_adapter_equals_the_merged_one(run: Path, start: Path) -> None:
    captioner = Captioner.from_pretrained(start, adapter=run / CHECKPOINT, dtype="float64")
    plain, live = logits(Captioner.from_pretrained(start, dtype="float64")), logits(captioner)
    assert (live - plain).abs().max() > 1e-2, "the adapter has no effect"
    merge_adapter(captioner.model)
    torch.testing.assert_close(logits(captioner), live, rtol=1e-10, atol=1e-10)
    assert captioner.model.tensors().keys() == GIT.from_pretrained(start).tensors().keys()


def test_convert_merges_and_the_folder_needs_no_adapter(
    run: Path, start: Path, tmp_path: Path
) -> None:
    command = ["convert", str(start), str(tmp_path / "new"), "--merge", str(run / CHECKPOINT)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    merged = Captioner.from_pretrained(tmp_path / "new")
    live = Captioner.from_pretrained(start, adapter=run / CHECKPOINT)
    torch.testing.assert_close(logits(merged), logits(live), rtol=1e-5, atol=1e-4)
    assert merged.model.config == live.model.config
    assert merged.tokenizer.to_json() == live.tokenizer.to_json()


def test_the_folder_is_small_and_peft_opens_it(run: Path, start: Path) -> None:
    import peft

    folder = run / CHECKPOINT
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "base.json", "SHA256SUMS",
    }  # fmt: skip
    theirs = peft.PeftModel.from_pretrained(GIT.from_pretrained(start), str(folder)).eval()
    live = Captioner.from_pretrained(start, adapter=folder)
    with torch.inference_mode():
        expected = theirs.base_model.model(PIXELS, TOKENS)
    torch.testing.assert_close(logits(live), expected)


def test_the_base_stays_as_it_is_and_states_hold_the_adapter_only(run: Path, start: Path) -> None:
    live = Captioner.from_pretrained(start, adapter=run / CHECKPOINT).model
    base = GIT.from_pretrained(start).tensors()
    frozen = {
        name.replace("base_layer.", ""): tensor
        for name, tensor in live.tensors().items()
        if ".lora_" not in name
    }
    assert frozen.keys() == base.keys()
    assert all(torch.equal(frozen[name], base[name]) for name in base)
    (folder,) = (run / "state").iterdir()
    stored = FileSystemReader(folder).read_metadata().state_dict_metadata
    names = {name.removeprefix("model.") for name in stored if name.startswith("model.")}
    assert names == adapter_tensors(live).keys()
    assert not [name for name in stored if "base_layer" in name]


@pytest.mark.parametrize("adapter", [{"rank": 4, "dropout": 0.1}, DORA], ids=["lora", "dora"])
def test_a_run_resumes_with_the_same_bits(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: dict
) -> None:
    table = {"steps": 6, "adapter": adapter, "learning": RATES | {"ema": 0.5}}
    recipe = recipe_of(start, reports={"save_every": 3}, **table)
    train(recipe, tmp_path / "whole")
    original = Trainer.step

    def until_four(trainer, number, batches):
        if number == 5:
            raise KeyboardInterrupt
        return original(trainer, number, batches)

    monkeypatch.setattr(Trainer, "step", until_four)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "part")
    monkeypatch.undo()
    train(recipe, tmp_path / "part", resume=True)
    weights = [
        load_file(tmp_path / run / CHECKPOINT / "adapter_model.safetensors")
        for run in ("whole", "part")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert losses_of(tmp_path / "whole") == losses_of(tmp_path / "part")


class OtherAttention(nn.Module):
    """An attention as timm's: with a bias of the queries the layer qkv is not called."""

    def __init__(self, q_bias: Tensor | None = None) -> None:
        super().__init__()
        self.qkv, self.proj, self.q_bias = nn.Linear(8, 24), nn.Linear(8, 8), q_bias
        self.position_mlp = nn.Sequential(nn.Linear(2, 1))


def test_the_default_targets_are_the_layers_of_every_attention_in_any_encoder() -> None:
    model = GIT(tiny_config())
    own = set(target_names(model, AdapterConfig()))
    assert own == {
        f"{part}.blocks.{n}.attn.{layer}"
        for part in ("encoder", "decoder") for n in range(2) for layer in ("qkv", "out")
    }  # fmt: skip
    model.encoder = nn.ModuleDict({"attn": OtherAttention(), "mlp": nn.Linear(8, 8)})
    others = set(target_names(model, AdapterConfig())) - own
    assert others == {"encoder.attn.qkv", "encoder.attn.proj"}
    model.encoder = nn.Conv2d(3, 16, 8)  # no attention: the decoder's only
    assert set(target_names(model, AdapterConfig())) < own


def test_a_layer_that_is_not_called_gets_no_adapter() -> None:
    model = GIT(tiny_config())
    model.encoder = nn.ModuleDict({"attn": OtherAttention(torch.zeros(8))})
    targets = target_names(model, AdapterConfig())
    assert "encoder.attn.proj" in targets
    assert "encoder.attn.qkv" not in targets
    with pytest.raises(ConfigError, match=r"targets has encoder\.attn\.qkv, whose weight this enc"):
        target_names(model, AdapterConfig(targets=("*.qkv",)))


def test_a_run_whose_base_has_changed_does_not_resume(start: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    model = GIT.from_pretrained(start)
    tokenizer = {"tokenizer.json": (start / "tokenizer.json").read_text()}
    write_checkpoint(base, model.config, model.tensors(), tokenizer)
    recipe = recipe_of(base, adapter={}, steps=2, reports={"save_every": 1})
    train(recipe, tmp_path / "run")
    tensors = model.tensors()
    tensors["decoder.lm_head.bias"] += 1
    write_checkpoint(base, model.config, tensors, tokenizer, overwrite=True)
    with pytest.raises(GITError, match=r"base: its weights are not those that this run's adapter"):
        train(recipe, tmp_path / "run", resume=True)


def test_validation_runs_with_the_adapter(start: Path, tmp_path: Path) -> None:
    table = recipe_table(start, adapter={"last": 1}, steps=1, reports={"check_examples": 2})
    table["validation"] = {"kind": "shapes", "size": 2, "split": "held_out"}
    table["reports"]["show"] = 0
    train(from_dict(Recipe, table), tmp_path / "run")
    assert "exact" in (tmp_path / "run" / "log.jsonl").read_text()


# What is refused


def test_an_adapter_of_another_base_is_refused(run: Path, start: Path, tmp_path: Path) -> None:
    model = GIT.from_pretrained(start)
    with torch.no_grad():
        model.decoder.lm_head.bias[3] += 0.5
    model.save_pretrained(tmp_path / "other")
    message = r"checkpoint: an adapter of .*start, whose weights are not those of .*other"
    with pytest.raises(GITError, match=message):
        Captioner.from_pretrained(tmp_path / "other", adapter=run / CHECKPOINT)
    with pytest.raises(GITError, match="whose weights are not those of demo: open it with"):
        Captioner.from_pretrained("demo", adapter=run / CHECKPOINT)


def test_the_base_may_be_stored_in_bfloat16(run: Path, start: Path, tmp_path: Path) -> None:
    command = ["convert", str(start), str(tmp_path / "half"), "--dtype", "bfloat16"]
    assert CliRunner().invoke(main, command).exit_code == 0
    half = Captioner.from_pretrained(
        tmp_path / "half", adapter=run / CHECKPOINT, dtype=torch.bfloat16
    )
    assert half.model.dtype == torch.bfloat16
    assert torch.isfinite(logits(half)).all()


def test_an_adapters_folder_as_a_model_says_what_to_do(run: Path, start: Path) -> None:
    folder = run / CHECKPOINT
    image = Path(__file__).parents[2] / "examples" / "images" / "two_shapes.png"
    result = CliRunner().invoke(main, ["caption", str(image), "-m", str(folder)])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert f"{folder}: an adapter of {start}, not a model: open it with its base (--model" in line
    assert f"git-model convert --merge {folder} {start} NEW" in line
    command = ["caption", str(image), "-m", str(start), "--adapter", str(folder)]
    assert CliRunner().invoke(main, command).exit_code == 0


def test_a_model_with_a_live_adapter_is_not_saved_as_if_it_were_whole(
    run: Path, start: Path, tmp_path: Path
) -> None:
    captioner = Captioner.from_pretrained(start, adapter=run / CHECKPOINT)
    with pytest.raises(GITError, match=r"not what its configuration says.*: tensor \S+ is missing"):
        captioner.model.save_pretrained(tmp_path / "model")
    merge_adapter(captioner.model)
    captioner.model.save_pretrained(tmp_path / "model")


def edited(folder: Path, copy: Path, **settings: object) -> Path:
    """A copy of an adapter's folder with other settings in adapter_config.json."""
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    path = copy / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return copy


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "IA3"}, "'peft_type' is 'IA3', not supported"),
        ({"r": 10**9}, "r is 1000000000, expected from 1 to 4096"),
        ({"r": 3}, r"tensor \S+lora_A\S* has shape .* expected"),
        ({"target_modules": "all-linear"}, "target_modules is 'all-linear', expected a list"),
        ({"target_modules": ["nowhere"]}, "does not fit .*start"),
        ({"target_modules": ["lm_head"]}, r"tensor \S+ is missing"),
        ({"bias": "all"}, "'bias' is 'all', not supported"),
        ({"modules_to_save": ["lm_head"]}, r"'modules_to_save' is \['lm_head'\], not supported"),
    ],
)
def test_a_strange_adapter_is_one_line(
    run: Path, start: Path, tmp_path: Path, settings: dict, message: str
) -> None:
    folder = edited(run / CHECKPOINT, tmp_path / "copy", **settings)
    with pytest.raises(GITError, match=message) as error:
        Captioner.from_pretrained(start, adapter=folder)
    assert "\n" not in str(error.value)


def test_no_folder_damaged_weights_and_changed_files_are_one_line(
    run: Path, start: Path, tmp_path: Path
) -> None:
    with pytest.raises(GITError, match=r"none: no adapter, expected a folder with adapter_config"):
        Captioner.from_pretrained(start, adapter=tmp_path / "none")
    folder = edited(run / CHECKPOINT, tmp_path / "copy")
    with pytest.raises(GITError, match=r"adapter_config\.json: its sha256 is"):
        Captioner.from_pretrained(
            start, adapter=edited(folder, tmp_path / "b", x=1), integrity=True
        )
    save_file({"stranger": torch.zeros(1)}, folder / "adapter_model.safetensors")
    with pytest.raises(GITError, match=r"adapter_model\.safetensors: tensor \S+ is"):
        Captioner.from_pretrained(start, adapter=folder)


def test_without_the_library_the_extra_is_named(
    run: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(GITError, match=r"adapters need peft: pip install 'git-model\[peft\]'"):
        Captioner.from_pretrained(start, adapter=run / CHECKPOINT)


# The recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter": {"rank": 0}}, "adapter: rank is 0, expected from 1 to 4096"),
        ({"adapter": {"alpha": 0.0}}, "adapter: alpha is 0.0, expected more than 0"),
        ({"adapter": {"dropout": 1.0}}, "adapter: dropout is 1.0, expected 0 or more"),
        ({"adapter": {"kind": "qlora"}}, "kind is 'qlora', expected one of lora, dora"),
        ({"adapter": {"last": 1, "targets": ["x"]}}, "last is 1, expected none beside targets"),
        ({"adapter": {"last": 0}}, "last is 0, expected at least 1"),
        ({"adapter": {"ranks": 1}}, "unknown key 'ranks', expected one of kind, rank"),
        ({"adapter": {}, "frames": 2}, "the checkpoint stays as it is, so leave frames out"),
        ({"adapter": {}, "tokenizer": "shapes"}, "so leave tokenizer out"),
        (
            {"adapter": {}, "checkpoint": None, "model": "demo", "tokenizer": "shapes"},
            "adapter: needs a checkpoint",
        ),
    ],
)
def test_a_wrong_key_is_named(start: Path, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(Recipe, recipe_table(start) | changes)


def test_targets_are_patterns_of_names_or_the_last_blocks() -> None:
    model = GIT(tiny_config())
    towers = ("encoder.blocks.0", "encoder.blocks.1", "decoder.blocks.0", "decoder.blocks.1")
    assert set(target_names(model, AdapterConfig())) == {
        f"{block}.attn.{layer}" for block in towers for layer in ("qkv", "out")
    }
    assert set(target_names(model, AdapterConfig(last=1))) == {
        f"decoder.blocks.1.{layer}" for layer in ("attn.qkv", "attn.out", "mlp.up", "mlp.down")
    }
    patterns = AdapterConfig(targets=("encoder.*.down", "decoder.lm_head"))
    assert set(target_names(model, patterns)) == {
        "encoder.blocks.0.mlp.down", "encoder.blocks.1.mlp.down", "decoder.lm_head",
    }  # fmt: skip
    for wrong, message in (
        (AdapterConfig(targets=("*.qkv", "q_proj")), "targets has 'q_proj', which matches no"),
        (AdapterConfig(last=3), "last is 3, expected at most 2 blocks"),
    ):
        with pytest.raises(ConfigError, match=message):
            target_names(model, wrong)


def test_a_tied_output_layer_gets_no_adapter() -> None:
    config = tiny_config()
    model = GIT(replace(config, decoder=replace(config.decoder, tied=True)))
    with pytest.raises(ConfigError, match=r"targets has 'decoder\.lm_head', which matches no"):
        target_names(model, AdapterConfig(targets=("decoder.lm_head",)))


def test_a_new_adapter_changes_nothing_and_trains_alone() -> None:
    model = GIT(tiny_config()).eval()
    with torch.no_grad():
        before = model(PIXELS, TOKENS)
        add_adapter(model, AdapterConfig(rank=2))
        torch.testing.assert_close(model(PIXELS, TOKENS), before)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == adapter_tensors(model).keys()
    assert len(trained) == 2 * 8
