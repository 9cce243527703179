"""The image encoder equals open_clip's vision transformer, whose last tokens GIT reads."""

from pathlib import Path

import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from tiny import bite

from git_model.model.encoder import Encoder
from weights_convert.open_clip import read_file

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def random_clip(seed: int, *, quick_gelu: bool) -> CLIP:
    """A small CLIP whose vision tower has weights that bite."""
    vision = CLIPVisionCfg(
        layers=1 + seed % 3,
        width=(32, 48, 64)[seed % 3],
        head_width=16,
        patch_size=(4, 8)[seed % 2],
        image_size=(16, 24, 32)[seed % 3],
    )
    text = CLIPTextCfg(context_length=8, vocab_size=20, width=16, heads=2, layers=1)
    model = CLIP(24, vision, text, quick_gelu=quick_gelu)
    bite(model.visual, seed)
    return model.double().eval()


@torch.no_grad()
@pytest.mark.parametrize("quick_gelu", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_every_token_after_the_last_norm_is_equal(
    seed: int, quick_gelu: bool, tmp_path: Path
) -> None:
    visual = random_clip(seed, quick_gelu=quick_gelu).visual
    path = tmp_path / "clip.pt"
    torch.save({f"visual.{name}": part for name, part in visual.state_dict().items()}, path)
    heads = visual.transformer.resblocks[0].attn.num_heads
    activation = "quick_gelu" if quick_gelu else "gelu"
    config, state = read_file(path, activation=activation, heads=heads, dtype=torch.float64)
    ours = Encoder(config).double()
    ours.load_state_dict(state)
    pixels = torch.randn(2, 3, config.image_size, config.image_size, dtype=torch.float64)
    visual.output_tokens = True
    pooled, patches = visual(pixels)  # the class token projected, and the rest as it is
    tokens = ours(pixels)
    torch.testing.assert_close(tokens[:, 1:], patches, **EXACT)
    torch.testing.assert_close(tokens[:, 0] @ visual.proj, pooled, **EXACT)
