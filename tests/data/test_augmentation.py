"""Random crops: torchvision's rules, the same crop for all frames, the model's aspect ratio."""

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from git_model.config import PreprocessConfig
from git_model.data.augmentation import AugmentConfig, crop_box, random_crop, training_preprocess
from git_model.preprocessing.image import preprocess
from git_model.utils.errors import ConfigError

ORIGINAL = AugmentConfig()
TORCHVISION = AugmentConfig(scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
SQUARE = PreprocessConfig(short_side=16, crop=(16, 16))
WHOLE = PreprocessConfig(short_side=16, long_side_max=24, crop=None)
sides = st.integers(1, 700)
seeds = st.integers(0, 2**32)


def sides_of(box):
    left, top, right, bottom = box
    return right - left, bottom - top


@given(width=sides, height=sides, seed=seeds, config=st.sampled_from([ORIGINAL, TORCHVISION]))
def test_a_crop_lies_within_the_image(width, height, seed, config):
    left, top, right, bottom = crop_box((width, height), config, 1.0, Random(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


@given(width=st.integers(100, 700), height=st.integers(100, 700), seed=seeds)
def test_a_crop_keeps_its_share_of_the_area_and_its_ratio(width, height, seed):
    w, h = sides_of(crop_box((width, height), TORCHVISION, 1.0, Random(seed)))
    assert 3 / 4 * 0.95 < w / h < 4 / 3 * 1.05
    assert w * h > 0.07 * width * height


def test_a_crop_of_a_square_has_from_eighty_to_a_hundred_percent_of_it():
    boxes = [crop_box((200, 200), ORIGINAL, 1.0, Random(seed)) for seed in range(500)]
    shares = [math.prod(sides_of(box)) / 200**2 for box in boxes]
    assert 0.795 < min(shares) < 0.81
    assert 0.99 < max(shares) <= 1
    assert all(w == h for w, h in map(sides_of, boxes))
    assert len({box[:2] for box in boxes}) > 100


@pytest.mark.parametrize(
    ("size", "box"), [((640, 480), (80, 0, 560, 480)), ((30, 90), (0, 30, 30, 60))]
)
def test_where_no_crop_fits_the_centre_is_taken_as_in_torchvision(size, box):
    assert {crop_box(size, ORIGINAL, 1.0, Random(seed)) for seed in range(50)} == {box}


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (3, 1)])
def test_a_sliver_keeps_at_least_one_pixel(size):
    assert min(sides_of(crop_box(size, TORCHVISION, 1.0, Random(0)))) >= 1


def test_a_model_that_keeps_the_aspect_ratio_gets_crops_of_the_images_aspect_ratio():
    image = Image.new("RGB", (600, 300))
    sizes = {random_crop(image, ORIGINAL, WHOLE, Random(seed)).size for seed in range(50)}
    assert len(sizes) > 10
    assert all(abs(width / height - 2) < 0.02 for width, height in sizes)
    assert training_preprocess(WHOLE) == WHOLE


def test_all_frames_of_a_clip_get_the_same_crop():
    values = np.arange(90 * 100, dtype=np.uint32).reshape(90, 100)
    frame = Image.fromarray(np.stack([values % 251, values // 251, 0 * values], 2).astype("u1"))
    clips = [random_crop([frame] * 3, ORIGINAL, SQUARE, Random(seed)) for seed in range(9)]
    assert all(len({frame.tobytes() for frame in clip}) == 1 for clip in clips)
    assert len({clip[0].tobytes() for clip in clips}) == 9


def test_a_crop_is_resized_to_the_models_input_without_a_second_crop():
    image = Image.new("RGB", (60, 20))
    image.paste("white", (0, 0, 30, 20))
    pixels = preprocess(image, training_preprocess(SQUARE))
    assert pixels.shape == (3, 16, 16)
    assert pixels[0, :, 0].min() > pixels[0, :, -1].max()  # both ends are in it


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": (0.0, 1.0)}, "scale is"),
        ({"scale": (0.9, 0.8)}, "scale is"),
        ({"scale": (0.8, 1.1)}, "scale is"),
        ({"ratio": (0.0, 1.0)}, "ratio is"),
        ({"ratio": (2.0, 1.0)}, "ratio is"),
        ({"ratio": (1.0, math.inf)}, "ratio is"),
        ({"flip": 1.5}, "flip is 1.5, expected a share from 0 to 1"),
        ({"flip": math.nan}, "flip is nan"),
    ],
)
def test_wrong_shares_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        AugmentConfig(**changes)
