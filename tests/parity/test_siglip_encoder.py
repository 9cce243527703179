"""The encoder of kind siglip equals Transformers' SiglipVisionModel and open_clip's towers."""

import copy
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny import bite
from transformers import SiglipConfig, SiglipModel, SiglipVisionConfig, SiglipVisionModel

from git_model.config import EncoderConfig
from git_model.model.encoder import Encoder
from git_model.model.git import GIT
from weights_convert import open_clip, siglip

EXACT = {"rtol": 1e-10, "atol": 1e-10}
TEXT = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def vision_config(seed: int) -> SiglipVisionConfig:
    """A small configuration with every setting away from its default."""
    heads, patch = (1, 2, 4)[seed % 3], (4, 7)[seed % 2]
    return SiglipVisionConfig(
        hidden_size=heads * (12, 16)[seed % 2],
        intermediate_size=(24, 40)[seed % 2],
        num_hidden_layers=1 + seed % 3,
        num_attention_heads=heads,
        image_size=patch * (2, 3, 4)[seed % 3] + 1,
        patch_size=patch,
        hidden_act=("gelu_pytorch_tanh", "gelu", "relu", "quick_gelu")[seed % 4],
        layer_norm_eps=(0.003, 0.02)[seed % 2],
        attention_dropout=0.2,
    )


def theirs_of(seed: int, *, whole: bool) -> torch.nn.Module:
    """Transformers' model with weights that bite, whole or its vision tower alone."""
    config = vision_config(seed)
    if whole:
        model = SiglipModel(SiglipConfig(vision_config=config.to_dict(), text_config=TEXT))
    else:
        model = SiglipVisionModel(config)
    bite(model, seed)
    return model.eval()


def ours_of(folder: Path) -> Encoder:
    checkpoint = siglip.read(str(folder), config="demo")
    return GIT.from_state(checkpoint.config, checkpoint.state, "test").encoder.double()


@torch.no_grad()
@pytest.mark.parametrize("seed", range(6))
def test_every_token_equals_transformers(seed: int, tmp_path: Path) -> None:
    theirs = theirs_of(seed, whole=seed % 2 == 0)
    theirs.save_pretrained(tmp_path)
    ours = ours_of(tmp_path)
    assert ours.n_prefix == 0
    tower = theirs.double().vision_model if seed % 2 == 0 else theirs.double()
    # Their eager attention rounds to float32 in between; this one does not.
    tower.config._attn_implementation = "sdpa"
    size, patch = tower.config.image_size, tower.config.patch_size
    pixels = torch.randn(2, 3, size, size, dtype=torch.float64)
    torch.testing.assert_close(ours(pixels), tower(pixels).last_hidden_state, **EXACT)
    wide = torch.randn(1, 3, 2 * patch, 5 * patch, dtype=torch.float64)
    expected = tower(wide, interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(ours(wide), expected, **EXACT)


MISTAKES = {
    "no patch bias": lambda encoder: encoder.patch_embedding.bias.zero_(),
    "the exact GELU": lambda encoder: [
        setattr(block.mlp, "activation", torch.nn.functional.gelu) for block in encoder.blocks
    ],
    "another eps": lambda encoder: [
        setattr(block.attn_norm, "eps", 1e-6) for block in encoder.blocks
    ],
    "no last norm": lambda encoder: setattr(encoder, "post_norm", torch.nn.Identity()),
    "query for key": lambda encoder: [
        block.attn.qkv.weight.copy_(block.attn.qkv.weight.roll(block.attn.qkv.in_features, 0))
        for block in encoder.blocks
    ],
    "positions by column": lambda encoder: encoder.position_embedding.copy_(
        encoder.position_embedding.unflatten(0, (2, 2)).transpose(0, 1).flatten(0, 1)
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_would_show(mistake: str, tmp_path: Path) -> None:
    theirs_of(0, whole=False).save_pretrained(tmp_path)
    right = ours_of(tmp_path)
    wrong = copy.deepcopy(right)
    MISTAKES[mistake](wrong)
    pixels = torch.randn(1, 3, 9, 9, dtype=torch.float64)
    difference = (right(pixels) - wrong(pixels)).abs()
    assert (difference > 10 * (EXACT["atol"] + EXACT["rtol"] * right(pixels).abs())).any()


def small_timm(**changes: object) -> torch.nn.Module:
    """timm's own SigLIP at a small size, as open_clip builds it."""
    sizes = {"img_size": 12, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}
    model = timm.create_model("vit_base_patch16_siglip_224", num_classes=0, **sizes | changes)
    return bite(model, seed=4).eval()


@torch.no_grad()
@pytest.mark.parametrize(
    ("layer", "activation"), [("gelu", "gelu"), ("gelu_tanh", "gelu_tanh"), ("gelu_tanh", None)]
)
def test_every_token_equals_open_clips_tower(layer: str, activation: str, tmp_path: Path) -> None:
    theirs = small_timm(act_layer=layer)
    tensors = {f"visual.trunk.{name}": part for name, part in theirs.state_dict().items()}
    tensors |= {"text.any": torch.zeros(1), "logit_scale": torch.zeros(1)}
    save_file(tensors | {"logit_bias": torch.zeros(1)}, tmp_path / "siglip.safetensors")
    config, state = open_clip.read_file(
        tmp_path / "siglip.safetensors", activation=activation, heads=3, dtype=torch.float64
    )
    assert config == EncoderConfig(
        kind="siglip", image_size=12, patch_size=4, width=24, layers=2, heads=3, mlp_width=96,
        activation=activation or "gelu_tanh", norm_eps=1e-6,
    )  # fmt: skip
    ours = Encoder(config).double()
    ours.load_state_dict(state)
    pixels = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    expected = theirs.double().forward_features(pixels)
    torch.testing.assert_close(ours(pixels), expected, **EXACT)
