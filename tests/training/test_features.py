"""Cached features of a frozen encoder: the same run, with fewer passes of the encoder."""

import dataclasses

import pytest
import torch
from runs import losses_of, recipe_of, same_weights, start_folder
from tiny import tiny_model

from git_model.data.collation import Batch
from git_model.model.encoder import Encoder
from git_model.training.features import FEATURES, FeatureCache, require_cachable
from git_model.training.loop import train
from git_model.training.loss import batch_loss, visual_of
from git_model.utils.errors import GITError


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return start_folder(tmp_path_factory.mktemp("start") / "start")


def recipe_with(start, *, tasks=("captions",), frames=0, **compute):
    return recipe_of(
        start,
        steps=6,  # three epochs
        frames=frames,
        data={"tasks": list(tasks), "size": 4},
        loader={"batch_size": 2},
        learning={"frozen": ["encoder"]},
        compute=compute,
        reports={"save_every": 2},
    )


def batch_of(n: int, indices: tuple[int, ...]) -> Batch:
    torch.manual_seed(n)
    tokens = torch.tensor([[1, 5, 6, 2]] * len(indices))
    pixels = torch.randn(9, 3, 16, 16)[list(indices)]
    return Batch(pixels, tokens, tokens != 1, indices)


def test_a_run_is_the_same_up_to_rounding_and_encodes_each_image_once(tmp_path, start, monkeypatch):
    n_images, real = [], Encoder.forward

    def forward(self, pixels):
        n_images.append(len(pixels))
        return real(self, pixels)

    monkeypatch.setattr(Encoder, "forward", forward)
    train(recipe_with(start), tmp_path / "plain")
    assert sum(n_images) == 12
    n_images.clear()
    train(recipe_with(start, cache_features=True), tmp_path / "cached")
    assert n_images == [1] * 4
    losses = losses_of(tmp_path / "cached")
    assert losses == pytest.approx(losses_of(tmp_path / "plain"), rel=1e-4)
    assert not (tmp_path / "cached" / FEATURES).exists()  # removed at the end


def test_a_resumed_run_has_the_same_bits(tmp_path, start):
    recipe = recipe_with(start, cache_features=True)
    train(recipe, tmp_path / "whole")

    class StopError(RuntimeError):
        pass

    def loss(model, batch):
        value = batch_loss(model, batch)
        loss.calls += 1
        if loss.calls == 4:
            raise StopError
        return value

    loss.calls = 0
    with pytest.raises(StopError):
        train(recipe, tmp_path / "killed", loss=loss)
    assert (tmp_path / "killed" / FEATURES / "tokens.bin").stat().st_size > 0
    train(recipe, tmp_path / "killed", resume=True, loss=loss)
    assert same_weights(tmp_path / "whole", tmp_path / "killed")


def test_a_record_that_is_damaged_is_computed_again(tmp_path):
    model = tiny_model().float()
    cache = FeatureCache(tmp_path / FEATURES)
    first = cache.with_features(model, batch_of(0, (4, 1))).features
    assert first is not None
    assert torch.allclose(first, model.encode(batch_of(0, (4, 1)).pixels), atol=1e-5)
    path = tmp_path / FEATURES / "tokens.bin"
    data = bytearray(path.read_bytes())
    record = len(data) // 5
    data[4 * record + 7] ^= 1
    path.write_bytes(bytes(data))
    again = FeatureCache(tmp_path / FEATURES)
    again.with_features(model, batch_of(0, (1,)))
    other = batch_of(9, (4, 1))  # other pixels: only what is stored comes back as it was
    mixed = again.with_features(model, other).features
    assert mixed is not None
    assert torch.equal(mixed[1], first[1])
    assert not torch.allclose(mixed[0], first[0], atol=1e-3)
    again.close(remove=True)
    assert not (tmp_path / FEATURES).exists()


def test_clips_of_several_lengths_and_images_share_a_cache(tmp_path):
    """The temporal embeddings are added to what is cached, so they can be trained."""
    model = tiny_model(frames=3).float()
    cache = FeatureCache(tmp_path / FEATURES)
    clips = [
        dataclasses.replace(batch_of(0, (index,)), pixels=torch.randn(1, n_frames, 3, 16, 16))
        for index, n_frames in enumerate((2, 3, 1))
    ]
    for _ in range(2):
        torch.nn.init.normal_(model.temporal_embedding)
        for batch in (batch_of(0, (5,)), *clips):
            tokens = visual_of(model, cache.with_features(model, batch))
            assert torch.allclose(tokens, visual_of(model, batch), atol=1e-5)


def test_a_run_on_clips_and_images_is_the_same_and_encodes_them_once(tmp_path, start, monkeypatch):
    n_passes, real = [], Encoder.forward
    settings = {"tasks": ("clips", "captions"), "frames": 6}
    train(recipe_with(start, **settings), tmp_path / "plain")
    monkeypatch.setattr(Encoder, "forward", lambda *given: n_passes.append(1) or real(*given))
    train(recipe_with(start, **settings, cache_features=True), tmp_path / "cached")
    assert len(n_passes) == 4
    losses = losses_of(tmp_path / "cached")
    assert losses == pytest.approx(losses_of(tmp_path / "plain"), rel=1e-4)


def test_images_of_another_size_are_refused(tmp_path):
    model = tiny_model().float()
    cache = FeatureCache(tmp_path / FEATURES)
    cache.with_features(model, batch_of(0, (0, 1)))
    wide = dataclasses.replace(batch_of(0, (2,)), pixels=torch.randn(1, 3, 16, 32))
    with pytest.raises(GITError, match=r"example 2 has \(9, 16\) image tokens, expected \(5, 16\)"):
        cache.with_features(model, wide)


def test_models_whose_tokens_change_are_refused():
    require_cachable(tiny_model(frames=2))
    model = tiny_model(frames=2)
    model.interpolate_frames = True
    with pytest.raises(GITError, match="clips of a bounded length"):
        require_cachable(model)
    model = tiny_model()
    model.encoder.blocks[0].attn.dropout = 0.1
    with pytest.raises(GITError, match="encoders without dropout"):
        require_cachable(model)
