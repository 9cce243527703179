"""Transformers' image processor settings as ours, and back."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPImageProcessor, VideoMAEImageProcessor

from git_model import GITError
from git_model.config import PreprocessConfig, style_preprocess
from weights_convert.processor import RESAMPLES, find_settings, read_preprocess, write_preprocess


def test_an_empty_file_means_the_defaults_of_its_kind() -> None:
    assert read_preprocess({}) == PreprocessConfig()
    video = style_preprocess("huggingface", image_size=224, video=True)
    for key in ("image_processor_type", "feature_extractor_type"):
        assert read_preprocess({key: "VideoMAEImageProcessor"}) == video
        assert read_preprocess({key: "CLIPFeatureExtractor"}) == PreprocessConfig()


def test_what_transformers_saves_is_read_as_it_means_it(tmp_path: Path) -> None:
    for kind, video in ((CLIPImageProcessor, False), (VideoMAEImageProcessor, True)):
        kind(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 36}).save_pretrained(
            tmp_path
        )
        settings = find_settings(tmp_path)
        assert settings is not None
        usual = style_preprocess("huggingface", image_size=224, video=video)
        expected = dataclasses.replace(usual, short_side=40, crop=(32, 36))
        assert read_preprocess(settings) == expected


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"size": 30}, {"short_side": 30}),
        ({"size": {"shortest_edge": 30}}, {"short_side": 30}),
        ({"size": {"shortest_edge": 30, "longest_edge": None}}, {"short_side": 30}),
        ({"size": {"height": 20, "width": 30}}, {"short_side": None, "exact": (20, 30)}),
        ({"crop_size": 30}, {"crop": (30, 30)}),
        ({"crop_size": {"height": 20, "width": 30}}, {"crop": (20, 30)}),
        ({"do_center_crop": False}, {"crop": None}),
        ({"do_resize": False}, {"short_side": None}),
        ({"do_rescale": False}, {"rescale": 1.0}),
        ({"do_normalize": False}, {"mean": (0, 0, 0), "std": (1, 1, 1)}),
        ({"do_normalize": None, "size": None, "do_pad": False}, {}),
        ({"rescale_factor": 1, "image_mean": [0, 0.5, 1]}, {"rescale": 1, "mean": (0, 0.5, 1)}),
        ({"processor_class": "GitProcessor", "data_format": "channels_first"}, {}),
        *(({"resample": i}, {"resample": name}) for i, name in enumerate(RESAMPLES)),
    ],
)
def test_each_setting_is_mapped(settings: dict[str, Any], changes: dict[str, Any]) -> None:
    assert read_preprocess(settings) == dataclasses.replace(PreprocessConfig(), **changes)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_processor_type": "ViTImageProcessor"}, ["ViTImageProcessor", "CLIP", "VideoMAE"]),
        ({"resample": 6}, ["resample is 6", "0 to 5"]),
        ({"resample": "bicubic"}, ["resample is 'bicubic'"]),
        ({"size": {"longest_edge": 30}}, ["size is", "longest_edge"]),
        ({"size": {"shortest_edge": 30, "longest_edge": 40}}, ["size is", "longest_edge"]),
        ({"crop_size": {"shortest_edge": 30}}, ["crop_size is"]),
        ({"do_pad": True}, ["do_pad is True"]),
        ({"image_mean": [0.5]}, ["mean has 1 entries"]),
        ({"image_std": [0, 1, 1]}, ["std"]),
        ({"size": 0}, ["a size is 0, expected from 1"]),
        ({"size": "large"}, ["short_side is 'large'"]),
    ],
)
def test_a_setting_that_we_do_not_have_is_named(settings: dict, words: list[str]) -> None:
    with pytest.raises(GITError) as error:
        read_preprocess(settings)
    assert all(word in str(error.value) for word in words)


def test_the_nested_settings_come_before_the_file_of_their_own(tmp_path: Path) -> None:
    assert find_settings(tmp_path) is None
    (tmp_path / "preprocessor_config.json").write_text('{"size": 30}')
    assert find_settings(tmp_path) == {"size": 30}
    nested = tmp_path / "processor_config.json"
    nested.write_text('{"processor_class": "GitProcessor"}')
    assert find_settings(tmp_path) == {"size": 30}
    nested.write_text(json.dumps({"image_processor": {"size": 40}}))
    assert find_settings(tmp_path) == {"size": 40}


sides = st.integers(1, 500)
numbers = st.tuples(*[st.floats(0.01, 2)] * 3)


@given(
    size=st.one_of(st.none(), sides, st.tuples(sides, sides)),
    crop=st.one_of(st.none(), st.tuples(sides, sides)),
    resample=st.sampled_from(RESAMPLES),
    rescale=st.floats(1e-4, 1),
    mean=numbers,
    std=numbers,
    video=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_there_and_back_changes_nothing(
    size: Any, crop: Any, resample: Any, rescale: float, mean: Any, std: Any, video: bool
) -> None:
    config = PreprocessConfig(
        short_side=size if isinstance(size, int) else None,
        exact=size if isinstance(size, tuple) else None,
        crop=crop,
        resample=resample,
        rescale=rescale,
        mean=mean,
        std=std,
    )
    written = json.loads(json.dumps(write_preprocess(config, video=video)))
    assert read_preprocess(written) == config
    kind = VideoMAEImageProcessor if video else CLIPImageProcessor
    theirs = kind.from_dict(written)
    assert (theirs.do_resize, theirs.do_center_crop) == (size is not None, crop is not None)
    assert (theirs.resample, tuple(theirs.image_mean)) == (RESAMPLES.index(resample), mean)


@pytest.mark.parametrize(
    "change",
    [
        {"long_side_max": 640},
        {"transparency": "drop"},
        {"crop_offset": "round"},
        {"upright": False},
        {"scale_16_bit": False},
    ],
)
def test_a_choice_that_they_have_no_word_for_is_named(change: dict[str, Any]) -> None:
    config = dataclasses.replace(PreprocessConfig(), **change)
    with pytest.raises(GITError, match=f"preprocess: {next(iter(change))} is"):
        write_preprocess(config, video=False)
