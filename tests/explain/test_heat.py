"""Maps laid over pictures."""

import base64
import io

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from git_model.explain.heat import DARK, data_address, enlarged, sheet, spotlight

GREY = Image.new("RGB", (6, 4), (200, 100, 50))


def test_the_brightest_patch_keeps_its_colours_and_a_dark_one_some() -> None:
    lit = np.asarray(spotlight(GREY, torch.tensor([[0.0, 0.2, 0.4], [0.1, 0.0, 0.0]]), 0.4))
    assert lit.shape == (4, 6, 3)
    assert lit[0, 4].tolist() == [200, 100, 50]
    assert lit[0, 0].tolist() == [round(DARK * shade) for shade in (200, 100, 50)]
    assert lit[0, 2].tolist() == [round((1 + DARK) / 2 * shade) for shade in (200, 100, 50)]
    assert (lit[2:, 0] > lit[2:, 5]).all()


def test_a_patch_is_lit_as_a_whole() -> None:
    lit = np.asarray(spotlight(GREY, torch.tensor([[1.0, 0.5, 0.0]]), 1.0))
    for columns in (slice(0, 2), slice(2, 4), slice(4, 6)):
        assert len(np.unique(lit[:, columns].reshape(-1, 3), axis=0)) == 1


def test_a_map_of_nothing_is_dark_everywhere() -> None:
    assert np.asarray(spotlight(GREY, torch.zeros(2, 3), 0.0)).max() == round(200 * DARK)


@given(side=st.integers(1, 300))
def test_an_enlarged_frame_repeats_whole_pixels(side: int) -> None:
    frame = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    large = enlarged(frame, side)
    assert max(large.size) >= side
    assert large.width % 3 == large.height % 2 == 0
    assert large.resize(frame.size, Image.Resampling.NEAREST).tobytes() == frame.tobytes()


def test_a_sheet_has_three_frames_side_by_side_and_one_light_for_all() -> None:
    maps = torch.zeros(4, 2, 3)
    maps[3, 1, 2] = 0.5
    maps[0, 0, 0] = 0.25
    whole = np.asarray(sheet([GREY] * 4, maps, 12))
    assert whole.shape == (8 + 2 + 8, 3 * 12 + 4, 4)  # patches of 4 pixels, gaps of 2
    assert whole[17, 11].tolist() == [200, 100, 50, 255]
    assert whole[0, 0, :3].tolist() == [round((1 + DARK) / 2 * shade) for shade in (200, 100, 50)]
    assert whole[17, 20].tolist() == [0, 0, 0, 0]  # there is no fifth frame


def test_a_data_address_holds_the_picture() -> None:
    kind, data = data_address(GREY).split(",")
    assert kind == "data:image/png;base64"
    again = Image.open(io.BytesIO(base64.b64decode(data)))
    assert again.tobytes() == GREY.tobytes()
