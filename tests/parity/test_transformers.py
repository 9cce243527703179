"""Equal to Transformers' GitForCausalLM, stage by stage, where it is right.

Theirs returns logits for image positions too; ours only for text, so theirs are cut.
"""

import pytest
import torch
from biting import Twins, twins
from torch import Tensor
from torch.nn import functional as F

from git_model.loss import caption_loss
from weights_convert.huggingface import read_state

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def their_logits(twin: Twins, pixels: Tensor | None, tokens: Tensor, **more: object) -> Tensor:
    with torch.no_grad():
        out = twin.theirs(input_ids=tokens, pixel_values=pixels, use_cache=False, **more)
    return out.logits[:, -tokens.shape[1] :]


@torch.no_grad()
def relative_distance(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


def test_logits_of_an_image_are_equal() -> None:
    twin = twins(1, num_image_with_embedding=None)
    ours = twin.ours(twin.pixels, twin.tokens)
    torch.testing.assert_close(ours, their_logits(twin, twin.pixels, twin.tokens), **EXACT)


@pytest.mark.parametrize("frames", [1, 2, 5, 6])
def test_logits_of_a_clip_are_equal_with_six_temporal_embeddings(frames: int) -> None:
    twin = twins(2, num_image_with_embedding=6)
    pixels = twin.pixels[:, :frames]
    ours = twin.ours(pixels, twin.tokens)
    torch.testing.assert_close(ours, their_logits(twin, pixels, twin.tokens), **EXACT)


def test_a_still_image_on_a_video_model_has_no_temporal_embedding() -> None:
    twin = twins(3, num_image_with_embedding=6)
    still = twin.pixels[:, 0]
    ours = twin.ours(still, twin.tokens)
    torch.testing.assert_close(ours, their_logits(twin, still, twin.tokens), **EXACT)


@pytest.mark.parametrize("size", [(24, 24), (32, 48), (40, 16), (37, 50), (8, 8)])
def test_logits_are_equal_where_positions_are_interpolated(size: tuple[int, int]) -> None:
    twin = twins(4, vision_patch_size=8, vision_image_size=32, num_image_with_embedding=None)
    pixels = torch.randn(2, 3, *size, dtype=torch.float64)
    theirs = their_logits(twin, pixels, twin.tokens, interpolate_pos_encoding=True)
    torch.testing.assert_close(twin.ours(pixels, twin.tokens), theirs, **EXACT)


def test_logits_of_text_alone_are_equal() -> None:
    twin = twins(5)
    ours = twin.ours(None, twin.tokens)
    torch.testing.assert_close(ours, their_logits(twin, None, twin.tokens), **EXACT)


def test_logits_of_a_right_padded_batch_are_equal_at_real_tokens() -> None:
    twin = twins(6, rows=3, length=9)
    real = torch.arange(9) < torch.tensor([[9], [4], [6]])
    theirs = their_logits(twin, twin.pixels, twin.tokens, attention_mask=real.long())
    ours = twin.ours(twin.pixels, twin.tokens, real)
    torch.testing.assert_close(ours[real], theirs[real], **EXACT)


@pytest.mark.parametrize("seed", range(60))
def test_sixty_random_configurations_give_equal_logits(seed: int) -> None:
    twin = twins(1000 + seed)
    ours = twin.ours(twin.pixels, twin.tokens)
    torch.testing.assert_close(ours, their_logits(twin, twin.pixels, twin.tokens), **EXACT)


@pytest.mark.parametrize("seed", range(10))
def test_float32_logits_are_within_a_ten_thousandth(seed: int) -> None:
    twin = twins(2000 + seed)
    theirs = their_logits(twin, twin.pixels, twin.tokens)
    ours = twin.ours.float()(twin.pixels.float(), twin.tokens)
    assert relative_distance(ours.double(), theirs) < 1e-4


@pytest.mark.parametrize("frames", [None, 6])
def test_every_stage_is_equal_on_the_way(frames: int | None) -> None:
    twin = twins(7, num_hidden_layers=4, num_image_with_embedding=frames)
    theirs, ours = {}, {}

    def keep(into: dict[str, list[Tensor]], name: str):
        def hook(_module: object, _inputs: object, output: object) -> None:
            tensor = output if isinstance(output, Tensor) else output[0]
            into.setdefault(name, []).append(tensor.detach())

        return hook

    git = twin.theirs.git
    git.visual_projection.register_forward_hook(keep(theirs, "projected"))
    git.visual_projection.register_forward_pre_hook(
        lambda _module, inputs: keep(theirs, "encoded")(None, None, inputs[0])
    )
    for index, layer in enumerate(git.encoder.layer):
        layer.register_forward_hook(keep(theirs, f"layer {index}"))
    twin.ours.projector.register_forward_hook(keep(ours, "projected"))
    twin.ours.projector.register_forward_pre_hook(
        lambda _module, inputs: keep(ours, "encoded")(None, None, inputs[0])
    )
    for index, block in enumerate(twin.ours.decoder.blocks):
        block.register_forward_hook(keep(ours, f"layer {index}"))
    their_logits(twin, twin.pixels, twin.tokens)
    twin.ours(twin.pixels, twin.tokens)

    for name in ("encoded", "projected"):
        torch.testing.assert_close(ours[name][0], theirs[name][0], **EXACT)
    n_image = ours["projected"][0].shape[1]
    for index in range(3):  # the image passes once, then the text
        image, text = ours[f"layer {index}"]
        both = torch.cat([image, text], dim=1)
        torch.testing.assert_close(both, theirs[f"layer {index}"][0], **EXACT)
    (text,) = ours["layer 3"]  # nobody reads the image's output of the last layer
    torch.testing.assert_close(text, theirs["layer 3"][0][:, n_image:], **EXACT)


def our_loss(twin: Twins) -> Tensor:
    logits = twin.ours(twin.pixels, twin.tokens)
    return caption_loss(logits, twin.tokens, torch.ones_like(twin.tokens).bool())


def test_the_loss_of_a_caption_is_equal() -> None:
    twin = twins(8)
    theirs = twin.theirs(input_ids=twin.tokens, pixel_values=twin.pixels, labels=twin.tokens).loss
    # Theirs rounds the logits to float32 first.
    torch.testing.assert_close(our_loss(twin), theirs.double(), rtol=1e-6, atol=1e-6)


def test_gradients_of_the_loss_are_equal() -> None:
    twin = twins(9, num_image_with_embedding=2)
    out = twin.theirs(input_ids=twin.tokens, pixel_values=twin.pixels, use_cache=False)
    theirs = out.logits[:, -twin.tokens.shape[1] : -1].flatten(0, 1)
    F.cross_entropy(theirs, twin.tokens[:, 1:].flatten()).backward()
    our_loss(twin).backward()
    config = twin.ours.config
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in twin.theirs.named_parameters()
    }
    expected = read_state(gradients, config)
    for name, parameter in twin.ours.named_parameters():
        if config.decoder.tied and name == "decoder.token.weight":
            continue  # theirs is the sum of two uses, under two names
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected[name], **EXACT)
