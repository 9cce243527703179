"""The image encoder's shapes, sizes and positions."""

import pytest
import torch
from tiny import tiny_model

from git_model.utils.errors import GITError


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 16), (24, 40), (23, 47)])
def test_there_is_a_class_token_and_one_token_per_whole_patch(height: int, width: int) -> None:
    tokens = tiny_model().encoder(torch.randn(2, 3, height, width, dtype=torch.float64))
    assert tokens.shape == (2, 1 + (height // 8) * (width // 8), 16)


def test_pixels_beyond_the_last_whole_patch_are_cut_off() -> None:
    encoder, pixels = tiny_model().encoder, torch.randn(1, 3, 23, 17, dtype=torch.float64)
    torch.testing.assert_close(encoder(pixels), encoder(pixels[..., :16, :16]))


def test_pixels_smaller_than_a_patch_are_refused() -> None:
    with pytest.raises(GITError, match="pixels are 7 x 16, expected at least one patch of 8 x 8"):
        tiny_model().encoder(torch.zeros(1, 3, 7, 16, dtype=torch.float64))


def test_positions_of_the_trained_grid_are_used_as_they_are() -> None:
    encoder = tiny_model().encoder
    assert encoder.positions(2, 2) is encoder.position_embedding


def test_stretched_positions_keep_the_class_token_and_the_mean() -> None:
    encoder = tiny_model().encoder
    stretched = encoder.positions(4, 4)
    assert stretched.shape == (17, 16)
    assert torch.equal(stretched[0], encoder.position_embedding[0])
    torch.testing.assert_close(stretched[1:].mean(0), encoder.position_embedding[1:].mean(0))


def test_patches_are_numbered_row_by_row() -> None:
    encoder = tiny_model().encoder
    with torch.no_grad():
        encoder.position_embedding.zero_()
    pixels = torch.zeros(1, 3, 16, 24, dtype=torch.float64)
    pixels[..., 8:, :8] = 1.0  # second row, first column: patch 3 of 2 x 3
    seen = encoder.patch_embedding(pixels).flatten(2).mT[0].abs().sum(-1)
    assert (seen > 0).tolist() == [False, False, False, True, False, False]
