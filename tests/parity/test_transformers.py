"""Equal to Transformers' GitForCausalLM, stage by stage, where it is right.

Theirs returns logits for image positions too; ours only for text, so theirs are cut.
"""

import pytest
import torch
from parity_models import ModelPair, make_pair
from torch import Tensor
from torch.nn import functional as F

from git_model.training.loss import caption_loss
from weights_convert.huggingface import read_state

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def their_logits(pair: ModelPair, pixels: Tensor | None, tokens: Tensor, **more: object) -> Tensor:
    with torch.no_grad():
        out = pair.theirs(input_ids=tokens, pixel_values=pixels, use_cache=False, **more)
    return out.logits[:, -tokens.shape[1] :]


@torch.no_grad()
def relative_distance(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


def test_logits_of_an_image_are_equal() -> None:
    pair = make_pair(1, num_image_with_embedding=None)
    ours = pair.ours(pair.pixels, pair.tokens)
    torch.testing.assert_close(ours, their_logits(pair, pair.pixels, pair.tokens), **EXACT)


@pytest.mark.parametrize("frames", [1, 2, 5, 6])
def test_logits_of_a_clip_are_equal_with_six_temporal_embeddings(frames: int) -> None:
    pair = make_pair(2, num_image_with_embedding=6)
    pixels = pair.pixels[:, :frames]
    ours = pair.ours(pixels, pair.tokens)
    torch.testing.assert_close(ours, their_logits(pair, pixels, pair.tokens), **EXACT)


def test_a_still_image_on_a_video_model_has_no_temporal_embedding() -> None:
    pair = make_pair(3, num_image_with_embedding=6)
    still = pair.pixels[:, 0]
    ours = pair.ours(still, pair.tokens)
    torch.testing.assert_close(ours, their_logits(pair, still, pair.tokens), **EXACT)


@pytest.mark.parametrize("size", [(24, 24), (32, 48), (40, 16), (37, 50), (8, 8)])
def test_logits_are_equal_where_positions_are_interpolated(size: tuple[int, int]) -> None:
    pair = make_pair(4, vision_patch_size=8, vision_image_size=32, num_image_with_embedding=None)
    pixels = torch.randn(2, 3, *size, dtype=torch.float64)
    theirs = their_logits(pair, pixels, pair.tokens, interpolate_pos_encoding=True)
    torch.testing.assert_close(pair.ours(pixels, pair.tokens), theirs, **EXACT)


def test_logits_of_text_alone_are_equal() -> None:
    pair = make_pair(5)
    ours = pair.ours(None, pair.tokens)
    torch.testing.assert_close(ours, their_logits(pair, None, pair.tokens), **EXACT)


def test_logits_of_a_right_padded_batch_are_equal_at_real_tokens() -> None:
    pair = make_pair(6, rows=3, length=9)
    real = torch.arange(9) < torch.tensor([[9], [4], [6]])
    theirs = their_logits(pair, pair.pixels, pair.tokens, attention_mask=real.long())
    ours = pair.ours(pair.pixels, pair.tokens, real)
    torch.testing.assert_close(ours[real], theirs[real], **EXACT)


@pytest.mark.parametrize("seed", range(60))
def test_sixty_random_configurations_give_equal_logits(seed: int) -> None:
    pair = make_pair(1000 + seed)
    ours = pair.ours(pair.pixels, pair.tokens)
    torch.testing.assert_close(ours, their_logits(pair, pair.pixels, pair.tokens), **EXACT)


@pytest.mark.parametrize("seed", range(10))
def test_float32_logits_are_within_a_ten_thousandth(seed: int) -> None:
    pair = make_pair(2000 + seed)
    theirs = their_logits(pair, pair.pixels, pair.tokens)
    ours = pair.ours.float()(pair.pixels.float(), pair.tokens)
    assert relative_distance(ours.double(), theirs) < 1e-4


@pytest.mark.parametrize("frames", [None, 6])
def test_every_stage_is_equal_on_the_way(frames: int | None) -> None:
    pair = make_pair(7, num_hidden_layers=4, num_image_with_embedding=frames)
    theirs, ours = {}, {}

    def keep(into: dict[str, list[Tensor]], name: str):
        def hook(_module: object, _inputs: object, output: object) -> None:
            tensor = output if isinstance(output, Tensor) else output[0]
            into.setdefault(name, []).append(None if tensor is None else tensor.detach())

        return hook

    git = pair.theirs.git
    git.visual_projection.register_forward_hook(keep(theirs, "projected"))
    git.visual_projection.register_forward_pre_hook(
        lambda _module, inputs: keep(theirs, "encoded")(None, None, inputs[0])
    )
    for index, layer in enumerate(git.encoder.layer):
        layer.register_forward_hook(keep(theirs, f"layer {index}"))
    pair.ours.projector.register_forward_hook(keep(ours, "projected"))
    pair.ours.projector.register_forward_pre_hook(
        lambda _module, inputs: keep(ours, "encoded")(None, None, inputs[0])
    )
    for index, block in enumerate(pair.ours.decoder.blocks):
        block.register_forward_hook(keep(ours, f"layer {index}"))
    their_logits(pair, pair.pixels, pair.tokens)
    pair.ours(pair.pixels, pair.tokens)

    for name in ("encoded", "projected"):
        torch.testing.assert_close(ours[name][0], theirs[name][0], **EXACT)
    n_image = ours["projected"][0].shape[1]
    for index in range(3):  # the image passes once, then the text
        image, text = ours[f"layer {index}"]
        both = torch.cat([image, text], dim=1)
        torch.testing.assert_close(both, theirs[f"layer {index}"][0], **EXACT)
    image, text = ours["layer 3"]
    assert image is None  # the image's output of the last layer is not computed
    torch.testing.assert_close(text, theirs["layer 3"][0][:, n_image:], **EXACT)


def our_loss(pair: ModelPair) -> Tensor:
    logits = pair.ours(pair.pixels, pair.tokens)
    return caption_loss(logits, pair.tokens, torch.ones_like(pair.tokens).bool())


def test_the_loss_of_a_caption_is_equal() -> None:
    pair = make_pair(8)
    theirs = pair.theirs(input_ids=pair.tokens, pixel_values=pair.pixels, labels=pair.tokens).loss
    # Theirs rounds the logits to float32 first.
    torch.testing.assert_close(our_loss(pair), theirs.double(), rtol=1e-6, atol=1e-6)


def test_gradients_of_the_loss_are_equal() -> None:
    pair = make_pair(9, num_image_with_embedding=2)
    out = pair.theirs(input_ids=pair.tokens, pixel_values=pair.pixels, use_cache=False)
    theirs = out.logits[:, -pair.tokens.shape[1] : -1].flatten(0, 1)
    F.cross_entropy(theirs, pair.tokens[:, 1:].flatten()).backward()
    our_loss(pair).backward()
    config = pair.ours.config
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in pair.theirs.named_parameters()
    }
    expected = read_state(gradients, config)
    for name, parameter in pair.ours.named_parameters():
        if config.decoder.tied and name == "decoder.token_embedding.weight":
            continue  # theirs is the sum of two uses, under two names
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected[name], **EXACT)
