"""Clips with more frames than there are temporal embeddings."""

import numpy as np
import pytest
import torch
from tiny import tiny_model

from git_model.utils.errors import GITError


def test_more_frames_than_embeddings_need_the_option() -> None:
    model = tiny_model(frames=3)
    pixels = torch.zeros(1, 5, 3, 16, 16, dtype=torch.float64)
    with pytest.raises(GITError, match="a clip of 5 frames, but this model has 3 temporal"):
        model.encode(pixels)
    model.interpolate_frames = True
    assert model.encode(pixels).shape == (1, 25, 16)


@pytest.mark.parametrize("n", [4, 5, 7, 12])
def test_embeddings_between_two_lie_on_the_line_between_them(n: int) -> None:
    """The expected values are NumPy's interp, dimension by dimension."""
    model = tiny_model(frames=3)
    assert model.temporal_embedding is not None
    torch.nn.init.normal_(model.temporal_embedding)
    model.interpolate_frames = True
    pixels = torch.randn(2, n, 3, 16, 16, dtype=torch.float64)
    trained = model.temporal_embedding.detach().numpy()
    times = np.linspace(0, 2, n)
    expected = np.stack([np.interp(times, range(3), trained[:, d]) for d in range(16)], axis=1)
    with torch.inference_mode():
        bare = model.encoder(pixels.flatten(0, 1)).unflatten(0, (2, n))
        added = model.encode(pixels).unflatten(1, (n, 5)) - bare
    assert np.abs(added.numpy() - expected[:, None]).max() < 1e-12


def test_shorter_clips_keep_the_trained_embeddings() -> None:
    model = tiny_model(frames=3)
    pixels = torch.randn(1, 3, 3, 16, 16, dtype=torch.float64)
    before = model.encode(pixels)
    model.interpolate_frames = True
    assert torch.equal(model.encode(pixels), before)
    assert (model.encode(pixels[:, :2]) - before[:, :10]).abs().max() < 1e-12
