"""Image encoders by name: timm's, registered ones, and what is said of those that do not fit."""

import dataclasses
import json
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from runs import recipe_of, start_folder
from safetensors.torch import save_file
from tiny import bite, tiny_config
from torch import Tensor, nn

from git_model import GIT, Captioner, GITConfig, GITError
from git_model.checkpoints.native import TOKENIZER, write_checkpoint
from git_model.cli.main import main
from git_model.config import EncoderConfig, PreprocessConfig, TowerConfig
from git_model.explain.explanation import explain
from git_model.model.towers import TimmEncoder, register_encoder
from git_model.training.initialization import initialize_by_width, named_tokenizer, with_frames
from git_model.training.loop import CHECKPOINT, train
from git_model.utils.errors import ConfigError
from git_model.utils.serialize import from_dict, to_dict
from weights_convert import timm_models
from weights_convert.folders import convert

timm = pytest.importorskip("timm")
ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "examples" / "images" / "two_shapes.png"
# Small models of four families, and their tokens before the patches: a vision transformer, two
# networks of convolutions (one with batch norms), one with buffers that are computed, not stored.
SMALL = {"test_vit": 1, "test_convnext": 0, "test_byobnet": 0, "test_maxvit": 0}


token_width = cache(timm_models.token_width)  # of each model once


def timm_config(name: str, size: int = 160, **changes: object) -> GITConfig:
    encoder = TowerConfig(kind="timm", name=name, image_size=size, width=token_width(name, size))
    images = PreprocessConfig(short_side=size, crop=(size, size))
    return tiny_config(encoder=encoder, preprocess=images, **changes)


def with_vocabulary(folder: Path, encoder: TowerConfig | EncoderConfig, size: int) -> Path:
    """A checkpoint of the tiny model with this encoder and the vocabulary of the shapes world."""
    start_folder(folder.with_name("plain"))
    plain = GIT.from_pretrained(folder.with_name("plain")).config
    images = PreprocessConfig(short_side=size, crop=(size, size))
    config = dataclasses.replace(plain, encoder=encoder, preprocess=images)
    model = bite(GIT(config), 0)
    tokenizer = named_tokenizer("shapes").to_json()
    write_checkpoint(folder, config, model.tensors(), {TOKENIZER: tokenizer})
    return folder


def siglip_config() -> EncoderConfig:
    return EncoderConfig(
        kind="siglip", image_size=16, patch_size=8, width=16, layers=2, heads=2, mlp_width=32,
        activation="gelu_tanh", norm_eps=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", [*list(SMALL)[:3], pytest.param("test_maxvit", marks=pytest.mark.slow)]
)
def test_a_model_of_timm_is_saved_and_opens_with_the_same_logits(name: str, tmp_path: Path) -> None:
    model = GIT(timm_config(name)).eval()
    model.save_pretrained(tmp_path / "model")
    again = GIT.from_pretrained(tmp_path / "model")
    pixels, tokens = torch.randn(2, 3, 160, 160), torch.tensor([[1, 5, 7], [1, 9, 4]])
    with torch.no_grad():
        torch.testing.assert_close(again(pixels, tokens), model(pixels, tokens))
        width = model.config.encoder.width
        expected = model.encoder.trunk.forward_features(pixels)
        assert again.encode(pixels).shape == (2, expected.numel() // 2 // width, width)
    assert again.encoder.n_prefix == SMALL[name]
    assert again.config == model.config


def test_tokens_of_a_feature_map_are_its_positions_row_by_row() -> None:
    encoder = TimmEncoder(timm_config("test_convnext").encoder).eval()
    pixels = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        tokens, features = encoder(pixels), encoder.trunk.forward_features(pixels)
    rows, columns = features.shape[2:]
    for row in range(rows):
        for column in range(columns):
            assert torch.equal(tokens[0, row * columns + column], features[0, :, row, column])


def test_a_token_does_not_depend_on_the_rest_of_its_batch_in_training() -> None:
    encoder = TimmEncoder(timm_config("test_byobnet").encoder).train()
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    pixels = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(encoder(pixels)[:1], encoder(pixels[:1]))


def test_an_encoder_of_timm_keeps_its_own_initial_weights() -> None:
    config = timm_config("test_convnext", frames=2)
    torch.manual_seed(4)
    model = GIT(config)
    torch.manual_seed(4)
    alone = TimmEncoder(config.encoder)
    initialize_by_width(model)
    for (name, part), expected in zip(
        model.encoder.named_parameters(), alone.parameters(), strict=True
    ):
        assert torch.equal(part, expected), name
    assert with_frames(model, 3).temporal_embedding.shape == (3, config.encoder.width)


def test_pixels_of_another_size_are_one_line() -> None:
    model = GIT(timm_config("test_vit"))
    message = "pixels are 64 x 160, but timm's test_vit was built for 160 x 160 only"
    with pytest.raises(GITError, match=message):
        model.see(torch.zeros(1, 3, 64, 160))
    GIT(timm_config("test_convnext")).see(torch.zeros(1, 3, 64, 96))  # takes any


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_model", "timm has no model 'no_such_model'"),
        ("vit_tiny", "timm has no model 'vit_tiny', expected one such as .*vit_tiny"),
        ("hf-hub:timm/vit_tiny_patch16_224", "timm has no model 'hf-hub:timm/vit_tiny"),
        ("vit_tiny_patch16_224.augreg_in21k", "timm has no model 'vit_tiny_patch16_224.augreg"),
        ("", "timm has no model ''"),
    ],
)
def test_an_unknown_model_is_one_line_and_no_name_leads_to_the_network(
    name: str, message: str
) -> None:
    config = TowerConfig(kind="timm", name=name, image_size=64, width=8)
    with pytest.raises(ConfigError, match=message) as error:
        GIT(tiny_config(encoder=config))
    assert "\n" not in str(error.value)


def test_a_wrong_width_is_one_line() -> None:
    config = timm_config("test_vit")
    encoder = dataclasses.replace(config.encoder, width=48)
    model = GIT(dataclasses.replace(config, encoder=encoder))
    with pytest.raises(GITError, match=r"returned a tensor of shape \(1, 101, 64\), expected .*48"):
        model.see(torch.zeros(1, 3, 160, 160))


def test_a_model_without_tokens_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TimmEncoder(timm_config("test_vit").encoder)
    for features, kind in (((), "a tuple"), (torch.zeros(1, 8), r"a tensor of shape \(1, 8\)")):
        monkeypatch.setattr(encoder.trunk, "forward_features", lambda _, f=features: f)
        with pytest.raises(GITError, match=f"timm's test_vit gives {kind}, expected tokens"):
            encoder(torch.zeros(1, 3, 160, 160))


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    config = timm_config("test_vit")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(GITError, match=r"pip install 'git-model\[timm\]'"):
        GIT(config)


def test_an_unknown_kind_is_one_line(tmp_path: Path) -> None:
    expected = "expected one of clip, siglip, timm, or a kind that your code has registered"
    with pytest.raises(ConfigError, match=f"kind is 'resnet', {expected}"):
        TowerConfig(kind="resnet", image_size=8, width=8)
    GIT(tiny_config()).save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    settings = json.loads(path.read_text())
    settings["encoder"]["kind"] = "resnet"
    path.write_text(json.dumps(settings))
    with pytest.raises(GITError, match=f"encoder: kind is 'resnet', {expected}"):
        GIT.from_pretrained(tmp_path / "model")


def test_a_table_without_a_kind_is_clips() -> None:
    table = to_dict(tiny_config())
    del table["encoder"]["kind"]
    assert from_dict(GITConfig, table) == tiny_config()


def test_the_style_keeps_the_preprocessing_of_other_encoders() -> None:
    config = timm_config("test_vit")
    assert config.with_style("microsoft").preprocess == config.preprocess
    assert tiny_config().with_style("microsoft").preprocess != tiny_config().preprocess


# Registered encoders


@pytest.fixture
def registered(forget_encoders: None) -> str:
    """A kind of encoder: stripes of the image, as tokens with one more in front."""

    class Stripes(nn.Module):
        n_prefix = 1

        def __init__(self, config: TowerConfig) -> None:
            super().__init__()
            self.linear = nn.Linear(3, config.width)

        def forward(self, pixels: Tensor) -> Tensor:
            means = pixels.unfold(2, 8, 8).unfold(3, 8, 8).mean((-1, -2)).flatten(2).mT
            return self.linear(torch.cat([means.mean(1, keepdim=True), means], dim=1))

    register_encoder("stripes")(Stripes)
    return "stripes"


def test_a_registered_encoder_is_saved_and_opens_again(registered: str, tmp_path: Path) -> None:
    encoder = TowerConfig(kind=registered, image_size=16, width=10)
    model = GIT(tiny_config(encoder=encoder)).eval()
    model.save_pretrained(tmp_path / "model")
    again = GIT.from_pretrained(tmp_path / "model")
    pixels, tokens = torch.randn(2, 3, 16, 24), torch.tensor([[1, 5], [1, 9]])
    assert torch.equal(again(pixels, tokens), model(pixels, tokens))
    assert again.see(pixels).n_tokens == 1 + 2 * 3


def test_a_name_is_registered_once(registered: str) -> None:
    for name in (registered, "clip", "siglip", "timm"):
        with pytest.raises(ConfigError, match=f"there is an encoder of kind '{name}' already"):
            register_encoder(name)


def test_a_replaced_encoder_is_not_saved_as_if_it_could_be_loaded(tmp_path: Path) -> None:
    model = GIT(tiny_config())
    model.encoder = nn.Sequential(nn.Conv2d(3, 16, 8, 8), nn.Flatten(2))
    with pytest.raises(GITError, match="this model is not what its configuration says"):
        model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    message = r"the encoder returned a tensor of shape \(1, 16, 4\), expected tokens .*16\)"
    with pytest.raises(GITError, match=message):
        model.see(torch.zeros(1, 3, 16, 16))


# Through the commands


def test_timm_models_are_converted_with_their_own_mean_std_and_size(tmp_path: Path) -> None:
    trunk = timm.create_model("test_vit", pretrained=False)
    save_file(trunk.state_dict(), tmp_path / "vit.safetensors")
    command = [
        "convert", "--from", "timm", "test_vit.r160_in1k", str(tmp_path / "git"),
        "--weights", str(tmp_path / "vit.safetensors"), "--config", "demo",
    ]  # fmt: skip
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    model = GIT.from_pretrained(tmp_path / "git")
    settings = timm.get_pretrained_cfg("test_vit.r160_in1k")
    assert model.config.encoder == TowerConfig(
        kind="timm", name="test_vit", image_size=160, width=64
    )
    preprocess = model.config.preprocess
    assert (preprocess.mean, preprocess.std) == (settings.mean, settings.std)
    assert preprocess.crop == (160, 160)
    assert preprocess.short_side == int(160 / settings.crop_pct)
    pixels = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        expected = trunk.eval().forward_features(pixels)
        torch.testing.assert_close(model.encode(pixels), expected)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("vit_nothing", "timm has no model 'vit_nothing'"),
        ("test_vit.unknown", r"timm has no weights test_vit\.unknown, expected one of test_vit\."),
    ],
)
def test_an_unknown_source_is_one_line(source: str, message: str) -> None:
    with pytest.raises(GITError, match=message):
        timm_models.read(source, config="demo")


def test_files_that_are_no_weights_of_the_model_are_one_line(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    for name, message in (("x.bin", "expected a .safetensors file"),
                          ("none.safetensors", "no such file"),
                          ("x.safetensors", "timm cannot load the weights")):  # fmt: skip
        with pytest.raises(GITError, match=message) as error:
            timm_models.read("test_vit", weights=tmp_path / name, config="demo")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["siglip", pytest.param("timm", marks=pytest.mark.slow)])
def test_another_encoder_is_trained_resumed_captioned_and_explained(
    kind: str, tmp_path: Path
) -> None:
    if kind == "siglip":
        start = with_vocabulary(tmp_path / "start", siglip_config(), 16)
    else:
        start = with_vocabulary(tmp_path / "start", timm_config("test_vit", 64).encoder, 64)
    compute = {"activation_checkpointing": True}
    tasks = {"kind": "shapes", "size": 8, "tasks": ["captions"]}
    recipe = recipe_of(
        start, steps=2, data=tasks, loader={"batch_size": 2}, compute=compute, frames=0
    )
    train(recipe, tmp_path / "run")
    folder = tmp_path / "run" / CHECKPOINT
    before, after = (GIT.from_pretrained(path).tensors() for path in (start, folder))
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert any(name.startswith("encoder.") for name in moved)
    captioner = Captioner.from_pretrained(folder)
    explanation = explain(captioner, IMAGE)
    assert explanation.grid == ((2, 2) if kind == "siglip" else (4, 4))
    assert explanation.n_prefix == (0 if kind == "siglip" else 1)
    assert explanation.caption == captioner.caption(IMAGE)
    shares = explanation.patch_attention().flatten(1).sum(1)
    assert ((shares > 0) & (shares < 1)).all()
    total = explanation.image_attention.sum((-1, -2)) + explanation.text_attention.sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total))
    convert(str(folder), tmp_path / "copy", dtype="float16")
    Captioner.from_pretrained(tmp_path / "copy").caption(IMAGE)
    with pytest.raises(GITError, match=f"encoder: kind is {kind}, but Hugging Face's GIT has clip"):
        convert(str(folder), tmp_path / "hf", to="hf")


@pytest.mark.usefixtures("few_figures")
def test_a_report_of_an_encoder_without_a_class_token_says_so(tmp_path: Path) -> None:
    start = with_vocabulary(tmp_path / "start", siglip_config(), 16)
    page = tmp_path / "page"
    result = CliRunner().invoke(
        main, ["explain", str(IMAGE), "-m", str(start), "--out", str(page), "--max-new-tokens", "2"]
    )
    assert result.exit_code == 0, result.output
    text = next(page.rglob("*.html")).read_text()
    assert "These make 4 image tokens" in text
    assert "a class token" not in text


def test_verify_says_what_it_cannot_compare(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    GIT(tiny_config(encoder=siglip_config())).save_pretrained(tmp_path / "model")
    result = CliRunner().invoke(main, ["verify", str(tmp_path / "model")])
    assert result.exit_code == 0, result.output
    assert "not compared: encoder: kind is siglip, but Hugging Face's GIT has clip" in result.output
    assert "one uncached pass" in result.output
