"""open_clip's vision towers as our encoder."""

import json
from pathlib import Path
from typing import Any

import open_clip as library
import pytest
import torch
from safetensors.torch import save_file
from small_clip import TEXT, VISION, build, save
from tiny import tiny_config

from git_model import GIT, GITError
from git_model.config import style_preprocess
from git_model.model.encoder import Encoder
from weights_convert.open_clip import read_file, read_named
from weights_convert.towers import untrained


def assert_same_tokens(encoder: Encoder, model: Any) -> None:
    """Every patch token, and the class token as the library projects it."""
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    model.double().visual.output_tokens = True
    with torch.no_grad():
        pooled, tokens = model.visual(pixels)
        ours = encoder.double().eval()(pixels)
    torch.testing.assert_close(ours[:, 1:], tokens, rtol=1e-10, atol=1e-10)
    projected = ours[:, 0] @ model.visual.proj
    torch.testing.assert_close(projected, pooled, rtol=1e-10, atol=1e-10)


def encoder_of(config: Any, state: Any) -> Encoder:
    encoder = Encoder(config)
    encoder.load_state_dict(state)
    return encoder


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_a_file_gives_the_same_tokens(quick_gelu: bool, tmp_path: Path) -> None:
    model = build(quick_gelu=quick_gelu)
    activation = "quick_gelu" if quick_gelu else "gelu"
    config, state = read_file(save(tmp_path, model), activation=activation, heads=2)
    assert (config.width, config.layers, config.heads, config.grid) == (64, 2, 2, 4)
    assert_same_tokens(encoder_of(config, state), model)


def test_a_wrong_activation_or_number_of_heads_would_show(tmp_path: Path) -> None:
    model = build(quick_gelu=True)
    path = save(tmp_path, model)
    for wrong in ({"activation": "gelu", "heads": 2}, {"heads": 1}):
        with pytest.raises(AssertionError):
            assert_same_tokens(encoder_of(*read_file(path, **wrong)), model)


def test_heads_are_64_wide_and_activation_is_quick_gelu_unless_said(tmp_path: Path) -> None:
    config, _ = read_file(save(tmp_path, build()))
    assert (config.heads, config.activation) == (1, "quick_gelu")


@pytest.mark.parametrize("suffix", [".pt", ".bin"])
def test_a_training_checkpoint_is_read_from_its_pickle(suffix: str, tmp_path: Path) -> None:
    model = build()
    state = {f"module.{name}": part for name, part in model.half().state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / f"clip{suffix}")
    config, tensors = read_file(tmp_path / f"clip{suffix}", heads=2, activation="gelu")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert_same_tokens(encoder_of(config, tensors), model.float())


def test_a_tower_without_its_first_norm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GITError, match=r"tensor visual\.ln_pre\.\w+ is missing"):
        read_file(save(tmp_path, build(no_ln_pre=True)))


@pytest.mark.parametrize(
    ("vision", "kind"),
    [
        ({"ls_init_value": 0.1}, "LayerScale"),
        ({"attentional_pool": True, "attn_pooler_heads": 2}, "attentional pooling"),
        ({"layers": [1, 1, 1, 1]}, "ResNet"),
    ],
)
def test_another_kind_of_tower_is_refused(vision: dict, kind: str, tmp_path: Path) -> None:
    with pytest.raises(GITError, match=kind):
        read_file(save(tmp_path, build(**vision)))


def test_a_timm_tower_is_refused(tmp_path: Path) -> None:
    save_file({"visual.trunk.pos_embed": torch.zeros(1)}, tmp_path / "siglip.safetensors")
    with pytest.raises(GITError, match="timm"):
        read_file(tmp_path / "siglip.safetensors")


def test_an_unknown_tensor_in_the_tower_is_refused(tmp_path: Path) -> None:
    tensors = {**build().state_dict(), "visual.stranger": torch.zeros(1)}
    torch.save(tensors, tmp_path / "clip.pt")
    with pytest.raises(GITError, match=r"unexpected tensor visual\.stranger"):
        read_file(tmp_path / "clip.pt")


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_openais_own_torchscript_file_is_refused_in_one_line(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    traced = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    torch.jit.save(traced, tmp_path / "ViT-B-16.pt")
    recwarn.clear()
    with pytest.raises(GITError, match=r"TorchScript that could run code"):
        read_file(tmp_path / "ViT-B-16.pt")
    assert not recwarn.list


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(GITError, match=r"none\.pt: no such file"):
        read_file(tmp_path / "none.pt")


# Models that the library knows by name


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """A model "tiny" with weights "tag", which were trained with quick_gelu although the model's
    configuration does not say so; so it is with the library's ViT-B-16 and openai."""
    model = build(quick_gelu=True)
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps({"embed_dim": 8, "vision_cfg": VISION, "text_cfg": TEXT}))
    library.add_model_config(path)
    weights = str(save(tmp_path, model))
    settings = {"file": weights, "quick_gelu": True}
    monkeypatch.setattr(library, "get_pretrained_cfg", lambda *_: settings)
    create = library.create_model

    def create_from_file(name: str, *, pretrained: str, **options: Any) -> torch.nn.Module:
        assert pretrained == "tag"
        return create(name, pretrained=weights, **options)

    monkeypatch.setattr(library, "create_model", create_from_file)
    return model


def test_a_named_model_has_its_own_heads_and_activation(
    named: torch.nn.Module,
) -> None:
    config, state = read_named("tiny", "tag")
    assert (config.heads, config.activation, config.norm_eps) == (2, "quick_gelu", 1e-5)
    assert_same_tokens(encoder_of(config, state), named)


def test_the_library_knows_which_weights_want_quick_gelu() -> None:
    assert library.get_pretrained_cfg("ViT-B-16", "openai")["quick_gelu"] is True
    assert not library.get_pretrained_cfg("ViT-B-16", "laion2b_s34b_b88k").get("quick_gelu")


def test_a_name_or_tag_that_the_library_does_not_know_is_refused() -> None:
    for name, tag in (("ViT-none", "openai"), ("ViT-B-16", "none")):
        with pytest.raises(GITError, match=f"no model {name} with weights {tag}"):
            read_named(name, tag)


def test_weights_that_cannot_be_fetched_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no\nnetwork")

    monkeypatch.setattr(library, "create_model", fail)
    with pytest.raises(GITError, match="ViT-B-16, openai: open_clip cannot load it: no network"):
        read_named("ViT-B-16", "openai")


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "open_clip", None)
    with pytest.raises(GITError, match=r"git-model\[clip\]"):
        read_named("ViT-B-16", "openai")


# A point to start from


def test_a_start_has_the_encoder_and_a_fresh_decoder(tmp_path: Path) -> None:
    config, state = read_file(save(tmp_path, build()), heads=2, activation="gelu")
    base = tiny_config(frames=2)
    started = untrained(config, state, base, seed=3)
    assert started.config.encoder == config
    assert started.config.decoder == base.decoder
    assert started.config.preprocess == style_preprocess("huggingface", image_size=32, video=True)
    model = GIT.from_state(started.config, started.state, "test")
    for name, part in state.items():
        assert torch.equal(model.encoder.state_dict()[name], part)
    assert 0.01 < model.decoder.token_embedding.weight.std() < 0.03
    assert not model.temporal_embedding.any()


def test_the_seed_decides_the_fresh_weights_and_no_other_randomness(tmp_path: Path) -> None:
    config, state = read_file(save(tmp_path, build()), heads=2)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    words = [
        untrained(config, state, tiny_config(), seed=s).state["decoder.token_embedding.weight"]
        for s in (0, 0, 1)
    ]
    assert torch.rand(1) == expected
    assert torch.equal(words[0], words[1])
    assert not torch.equal(words[0], words[2])
