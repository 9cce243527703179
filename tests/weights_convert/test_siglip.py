"""SigLIP's towers as ours: folders of Transformers, files of open_clip, models by their name."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import open_clip as library
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

from git_model import GIT, GITError
from git_model.cli.main import main
from git_model.config import named_config, siglip_preprocess
from weights_convert import open_clip, siglip
from weights_convert.processor import find_settings, read_preprocess


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = SiglipVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        image_size=8, patch_size=4,
    )  # fmt: skip
    SiglipVisionModel(config).save_pretrained(tmp_path / "siglip")
    return tmp_path / "siglip"


def changed(folder: Path, **settings: Any) -> str:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return str(folder)


def test_the_command_makes_an_untrained_model_that_opens(folder: Path, tmp_path: Path) -> None:
    command = [
        "convert",
        "--from",
        "siglip",
        str(folder),
        str(tmp_path / "git"),
        "--config",
        "demo",
    ]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    model = GIT.from_pretrained(tmp_path / "git")
    assert (model.config.encoder.kind, model.config.encoder.width) == ("siglip", 16)
    assert model.config.decoder == named_config("demo").decoder
    assert model.config.preprocess == siglip_preprocess(8)
    assert model.see(torch.zeros(1, 3, 8, 8)).n_tokens == 4
    assert "encoder.class_token" not in model.tensors()


def test_the_folders_own_preprocessing_is_kept(folder: Path) -> None:
    SiglipImageProcessor(size={"height": 8, "width": 8}, resample=2).save_pretrained(folder)
    checkpoint = siglip.read(str(folder), config="demo")
    expected = dataclasses.replace(siglip_preprocess(8), resample="bilinear")
    assert checkpoint.config.preprocess == expected


def test_a_processor_of_siglip_is_read_as_it_means_it(tmp_path: Path) -> None:
    SiglipImageProcessor().save_pretrained(tmp_path)
    settings = find_settings(tmp_path)
    assert settings is not None
    assert read_preprocess(settings) == siglip_preprocess(224)
    assert read_preprocess({"image_processor_type": "SiglipImageProcessor"}) == (
        siglip_preprocess(224)
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "siglip2"}, "model_type is 'siglip2', expected siglip or .*a fixed size"),
        ({"model_type": "clip"}, "model_type is 'clip', expected siglip or siglip_vision_model"),
        ({"num_channels": 1}, "num_channels is 1, expected 3"),
        ({"hidden_act": "mish"}, "hidden_act is 'mish', expected one of gelu"),
        ({"patch_size": [4, 2]}, "patch_size is .*, expected a square"),
        ({"num_hidden_layers": 2}, r"tensor vision_model\.encoder\.layers\.1\..* is missing"),
        ({"intermediate_size": 25}, r"tensor .*fc1.* has shape \(24, 16\), expected \(25, 16\)"),
    ],
)
def test_another_model_is_one_line(folder: Path, settings: dict, message: str) -> None:
    with pytest.raises(GITError, match=message) as error:
        siglip.read(changed(folder, **settings), config="demo")
    assert "\n" not in str(error.value)


def test_an_unknown_tensor_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = SiglipVisionModel.from_pretrained(folder).state_dict()
    save_file({**tensors, "stranger": torch.zeros(1)}, path)
    with pytest.raises(GITError, match=r"unexpected tensor vision_model\.stranger"):
        siglip.read(str(folder), config="demo")


def test_other_options_do_not_go_with_it(folder: Path, tmp_path: Path) -> None:
    for option, formats in (("--heads", "open_clip"), ("--weights", "timm")):
        command = ["convert", "--from", "siglip", str(folder), str(tmp_path / "x"), option, "2"]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 2
        assert f"{option} goes with --from {formats}" in result.stderr


# open_clip


def test_heads_of_another_width_must_be_given(tmp_path: Path) -> None:
    tensors = {
        "patch_embed.proj.weight": torch.zeros(24, 3, 4, 4),
        "pos_embed": torch.zeros(1, 9, 24),
        "attn_pool.latent": torch.zeros(1, 1, 24),
    }
    path = tmp_path / "siglip.safetensors"
    save_file({f"visual.trunk.{name}": part for name, part in tensors.items()}, path)
    with pytest.raises(GITError, match="no released SigLIP has width 24: give its number of heads"):
        open_clip.read_file(path)


def test_a_named_model_has_its_own_heads_and_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    sizes = {"img_size": 12, "patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 3}
    trunk = timm.create_model("vit_base_patch16_siglip_224", num_classes=0, **sizes)
    visual = torch.nn.Module()
    visual.trunk = trunk
    model = torch.nn.Module()
    model.visual = visual
    monkeypatch.setattr(library, "create_model", lambda *_, **__: model)
    checkpoint = open_clip.read("ViT-B-16-SigLIP2", pretrained="webli", config="demo")
    encoder = checkpoint.config.encoder
    assert (encoder.kind, encoder.heads, encoder.activation) == ("siglip", 3, "gelu")
    assert encoder.norm_eps == 1e-6
    assert checkpoint.config.preprocess == siglip_preprocess(12)


def test_the_library_preprocesses_siglip_so() -> None:
    settings = library.get_pretrained_cfg("ViT-B-16-SigLIP2", "webli")
    assert (settings["mean"], settings["std"]) == ((0.5,) * 3, (0.5,) * 3)
    assert (settings["resize_mode"], settings["interpolation"]) == ("squash", "bicubic")
