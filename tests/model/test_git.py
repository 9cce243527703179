"""What the model is given, what it gives, and what it refuses."""

import pytest
import torch
from tiny import tiny_config, tiny_model

from git_model import GIT
from git_model.config import DecoderConfig
from git_model.generation.session import Session
from git_model.utils.errors import GITError

PIXELS = torch.randn(2, 3, 16, 16, dtype=torch.float64)
TOKENS = torch.tensor([[1, 5, 7], [1, 9, 4]])


def test_a_scene_and_its_pixels_give_the_same_logits() -> None:
    model = tiny_model()
    assert torch.equal(model(PIXELS, TOKENS), model(model.see(PIXELS), TOKENS))


def test_logits_stand_at_text_positions_only() -> None:
    assert tiny_model()(PIXELS, TOKENS).shape == (2, 3, 40)
    assert tiny_model()(None, TOKENS).shape == (2, 3, 40)


def test_several_texts_of_one_image_share_its_prefix() -> None:
    model = tiny_model()
    texts = torch.randint(3, 40, (6, 4))
    together = model(PIXELS, texts)
    apart = model(PIXELS.repeat_interleave(3, dim=0), texts)
    torch.testing.assert_close(together, apart)


def test_the_prefill_skips_the_last_layers_mlp() -> None:
    model = tiny_model()
    with torch.no_grad():
        for parameter in model.decoder.blocks[-1].mlp.parameters():
            parameter.fill_(float("nan"))
    for layer in model.see(PIXELS).layers:
        assert torch.isfinite(layer.key + layer.value).all()


def test_a_scene_knows_its_size_and_can_be_narrowed() -> None:
    scene = tiny_model().see(PIXELS)
    assert (len(scene), scene.n_tokens) == (2, 5)
    assert len(scene.select([1])) == 1


@pytest.mark.parametrize(("frames", "tokens"), [(1, 5), (3, 15)])
def test_a_clip_has_the_tokens_of_its_frames(frames: int, tokens: int) -> None:
    clip = torch.randn(2, frames, 3, 16, 16, dtype=torch.float64)
    assert tiny_model(frames=3).see(clip).n_tokens == tokens


@pytest.mark.parametrize(
    ("trained", "given", "message"),
    [
        (3, 4, "a clip of 4 frames, but this model has 3 temporal embeddings"),
        (0, 2, "a clip of 2 frames, but this model has 0 temporal embeddings"),
        (3, 0, "a clip of 0 frames"),
    ],
)
def test_a_clip_with_a_wrong_number_of_frames_is_refused(trained, given, message) -> None:
    clip = torch.zeros(1, given, 3, 16, 16, dtype=torch.float64)
    with pytest.raises(GITError, match=message):
        tiny_model(frames=trained).see(clip)


def test_pixels_of_another_rank_are_refused() -> None:
    with pytest.raises(GITError, match=r"shape \(3, 16, 16\), expected \(B, 3, height, width\)"):
        tiny_model().see(PIXELS[0])


def test_texts_that_do_not_divide_among_the_images_are_refused() -> None:
    with pytest.raises(GITError, match="3 texts for 2 images"):
        tiny_model()(PIXELS, TOKENS[[0, 1, 1]])


def test_a_text_longer_than_the_positions_is_refused() -> None:
    with pytest.raises(GITError, match="text of 25 tokens is longer than the 24 positions"):
        tiny_model()(None, torch.zeros(1, 25, dtype=torch.long))


def test_a_tied_output_layer_shares_the_token_embeddings_weight() -> None:
    decoder = DecoderConfig(vocab_size=40, width=24, layers=1, heads=3, mlp_width=8, tied=True)
    model = GIT(tiny_config(decoder=decoder))
    assert "decoder.lm_head.weight" not in model.tensors()
    assert model.decoder.lm_head.weight is model.decoder.token_embedding.weight
    hidden = torch.randn(5, 24)
    expected = hidden @ model.decoder.token_embedding.weight.T + model.decoder.lm_head.bias
    torch.testing.assert_close(model.decoder.lm_head(hidden), expected)


def test_the_start_is_berts() -> None:
    model = tiny_model(frames=2)
    weight = torch.cat([p.flatten() for n, p in model.named_parameters() if "qkv.weight" in n])
    assert 0.018 < weight.std() < 0.022
    assert torch.equal(model.temporal_embedding, torch.zeros_like(model.temporal_embedding))
    assert torch.equal(model.projector.norm.weight, torch.ones(24, dtype=torch.float64))


def test_training_runs_through_the_same_path_and_reaches_every_parameter() -> None:
    model = tiny_model(frames=2).train()
    clip = torch.randn(2, 2, 3, 16, 16, dtype=torch.float64)
    model(clip, TOKENS).logsumexp(-1).sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []


def test_rows_may_end_at_different_times_and_images_are_dropped() -> None:
    model = tiny_model()
    texts = torch.randint(3, 40, (6, 5))  # three per image
    session = Session(model, model.see(PIXELS))
    session.step(texts[:, :2])
    whole = model(PIXELS, texts)
    rows = [0, 1, 2, 3, 4, 5]
    for position, kept in enumerate(([0, 2, 3, 5], [1, 0, 3], [1, 2, 2]), start=2):
        session.select(kept)
        rows = [rows[row] for row in kept]
        logits = session.step(texts[rows, position : position + 1])
        torch.testing.assert_close(logits, whole[rows, position])
