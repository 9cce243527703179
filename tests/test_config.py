"""Settings are read strictly and written without loss."""

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_config

from git_model.config import (
    CLIP_MEAN,
    Activation,
    DecoderConfig,
    DecodingOptions,
    EncoderConfig,
    GITConfig,
    PreprocessConfig,
    config_folder,
    named_config,
    read_config,
    style_preprocess,
)
from git_model.utils.errors import ConfigError
from git_model.utils.serialize import from_dict, read_mapping, to_dict

NAMES = sorted(path.stem for path in (config_folder() / "model").glob("*.toml"))


def test_a_width_that_the_heads_do_not_divide_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"decoder: width 768 is not a multiple of heads 11"):
        DecoderConfig(heads=11)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EncoderConfig(layers=0), "encoder: layers is 0, expected at least 1"),
        (lambda: EncoderConfig(image_size=8), "image_size 8 is smaller than patch_size 16"),
        (lambda: DecoderConfig(dropout=1.0), "decoder: dropout is 1.0"),
        (lambda: GITConfig(frames=-1), "frames is -1"),
        (
            lambda: tiny_config(eos_ids=(2, 40)),
            "eos_ids has 40, expected an id below vocab_size 40",
        ),
        (lambda: tiny_config(eos_ids=()), r"eos_ids is \(\), expected distinct ids, at least one"),
        (lambda: tiny_config(eos_ids=(2, 2)), r"eos_ids is \(2, 2\), expected distinct ids"),
        (lambda: PreprocessConfig(exact=(2, 2)), "either exact or short_side"),
        (lambda: PreprocessConfig(short_side=None, long_side_max=5), "needs short_side"),
        (lambda: PreprocessConfig(crop=(0, 5)), "a size is 0, expected from 1 to 4096"),
        (lambda: PreprocessConfig(std=(1.0, 0.0, 1.0)), "expected numbers above 0"),
        (lambda: PreprocessConfig(rescale=float("inf")), "rescale is .*expected finite numbers"),
        (lambda: DecodingOptions(max_length=1), "decoding: max_length is 1, expected from 2"),
        (lambda: DecodingOptions(min_length=9, max_length=9), "min_length is 9, expected .*less"),
        (lambda: DecodingOptions(min_new_tokens=20), "min_new_tokens is 20, expected .*less than"),
        (lambda: DecodingOptions(early_stopping="soon"), "early_stopping is soon, expected one of"),
        (lambda: EncoderConfig(norm_eps=float("nan")), "encoder: norm_eps is nan"),
        (lambda: DecoderConfig(embedding_norm_eps=-1.0), "decoder: embedding_norm_eps is -1.0"),
        (lambda: EncoderConfig(width=10**12), "encoder: width is 1000000000000, expected at most"),
    ],
)
def test_impossible_values_are_refused_with_field_and_value(build, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"framez": 6}, "x: unknown key 'framez', expected one of encoder, decoder"),
        ({"encoder": {"width": "wide"}}, "x: encoder: width is 'wide', expected int"),
        ({"encoder": {"width": True}}, "x: encoder: width is True, expected int"),
        ({"encoder": 5}, "x: encoder is 5, expected a table"),
        (
            {"encoder": {"activation": "swish"}},
            "'swish', expected one of gelu, gelu_tanh, quick",
        ),
        ({"preprocess": {"mean": [1.0, 2.0]}}, "mean has 2 entries, expected 3"),
        ({"preprocess": {"mean": 0.5}}, "mean is 0.5, expected a list"),
        ({"encoder": {"heads": 7}}, "x: encoder: encoder: width 768 is not a multiple of heads 7"),
        ({"decoding": {"early_stopping": 1}}, "early_stopping is 1, expected one of False, True"),
        ({"eos_ids": 2}, "x: eos_ids is 2, expected a list"),
    ],
)
def test_a_wrong_entry_is_named_with_its_path(data: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(GITConfig, data, "x")


def test_an_entry_without_a_default_must_be_given() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Required:
        size: int

    with pytest.raises(ConfigError, match="table: size is missing"):
        from_dict(Required, {}, "table")


@given(
    config=st.builds(
        GITConfig,
        encoder=st.builds(
            EncoderConfig,
            width=st.just(64),
            heads=st.sampled_from([1, 2, 4]),
            norm_eps=st.floats(1e-12, 1e-3),
            activation=st.sampled_from(get_args(Activation)),
        ),
        decoding=st.builds(
            DecodingOptions,
            num_beams=st.integers(1, 9),
            max_length=st.none() | st.integers(2, 99),
            early_stopping=st.sampled_from([False, True, "never"]),
            suppress_tokens=st.lists(st.integers(0, 9)).map(tuple),
        ),
        eos_ids=st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True).map(tuple),
        preprocess=st.builds(
            PreprocessConfig,
            short_side=st.none() | st.integers(1, 999),
            crop=st.none() | st.tuples(st.integers(1, 99), st.integers(1, 99)),
            upright=st.booleans(),
        ),
        frames=st.integers(0, 9),
        style=st.sampled_from(["huggingface", "microsoft"]),
    )
)
def test_a_configuration_survives_json(config: GITConfig) -> None:
    assert from_dict(GITConfig, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize("name", NAMES)
def test_each_shipped_configuration_can_be_read(name: str) -> None:
    config = named_config(name)
    assert config.frames == (6 if "video" in name or name == "demo" else 0)
    if config.preprocess.crop is not None:
        assert config.preprocess.crop == (config.encoder.image_size,) * 2


def test_the_shipped_sizes_are_those_of_the_paper() -> None:
    base, large = named_config("git_base").encoder, named_config("git_large").encoder
    assert (base.patch_size, base.layers, base.width, base.heads) == (16, 12, 768, 12)
    assert (large.patch_size, large.layers, large.width, large.heads) == (14, 24, 1024, 16)
    assert named_config("git_base_vqa").encoder.image_size == 480
    assert named_config("git_large_vqa").encoder.image_size == 420


def test_an_unknown_name_lists_the_names_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"no configuration named 'git_huge'.*git_base"):
        named_config("git_huge")


def test_a_name_may_be_that_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("frames = 3")
    assert named_config(str(path)).frames == 3
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        named_config(str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"frames = ", "not valid TOML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"width = 5", "unknown key 'width'"),
    ],
)
def test_a_damaged_file_is_one_line_that_names_it(
    tmp_path: Path, text: bytes, message: str
) -> None:
    path = tmp_path / "model.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=message) as error:
        read_config(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1]", "expected a table, found list"), ("{", "not valid JSON"), ("[" * 9999, "not valid")],
)
def test_json_that_is_no_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_mapping(tmp_path / "config.json")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: No such file"):
        read_config(Path("nowhere.toml"))


def test_the_style_that_a_model_has_leaves_its_settings_alone() -> None:
    config = named_config("demo")
    assert config.preprocess != named_config("git_base").preprocess
    assert config.with_style(config.style) == config


def test_the_microsoft_style_changes_what_the_references_do_differently() -> None:
    config = named_config("git_base").with_style("microsoft")
    assert config.decoder.embedding_norm_eps == 1e-8
    assert (config.preprocess.transparency, config.preprocess.crop_offset) == ("drop", "round")
    assert config.with_style("huggingface") == named_config("git_base")


@pytest.mark.parametrize(("size", "long_side"), [(480, 640), (420, 560)])
def test_question_checkpoints_keep_the_aspect_ratio_in_the_microsoft_style(
    size: int, long_side: int
) -> None:
    settings = style_preprocess("microsoft", image_size=size, video=False)
    assert (settings.short_side, settings.long_side_max, settings.crop) == (size, long_side, None)


def test_only_the_huggingface_style_has_other_numbers_for_video() -> None:
    huggingface = style_preprocess("huggingface", image_size=224, video=True)
    assert (huggingface.mean, huggingface.resample) == ((0.5, 0.5, 0.5), "bilinear")
    microsoft = style_preprocess("microsoft", image_size=224, video=True)
    assert (microsoft.mean, microsoft.resample) == (CLIP_MEAN, "bicubic")


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(ConfigError, match="style is 'meta', expected one of huggingface"):
        tiny_config().with_style("meta")  # type: ignore[arg-type]


def test_reading_settings_needs_no_torch() -> None:
    code = "import sys, git_model.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@dataclass(frozen=True, kw_only=True)
class Circle:
    kind: Literal["circle"] = "circle"
    radius: float


@dataclass(frozen=True, kw_only=True)
class Square:
    kind: Literal["square"] = "square"
    side: int = 1


@dataclass(frozen=True, kw_only=True)
class Drawing:
    shape: Circle | Square
    frame: Circle | Square | None = None


def test_a_table_says_by_its_kind_which_dataclass_it_is():
    drawing = from_dict(Drawing, {"shape": {"kind": "circle", "radius": 2}, "frame": None})
    assert drawing == Drawing(shape=Circle(radius=2.0))
    assert from_dict(Drawing, to_dict(drawing)) == drawing


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "star"}, "config: shape: kind is 'star', expected one of circle, square"),
        ({"side": 1}, "config: shape: kind is None, expected one of circle, square"),
        (3, "config: shape: kind is None, expected one of circle, square"),
        ({"kind": "square", "radius": 1}, "config: shape: unknown key 'radius'"),
    ],
)
def test_a_table_of_an_unknown_kind_is_refused(table, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(Drawing, {"shape": table})


@pytest.mark.parametrize(
    ("size", "share"),
    [((224, 224), 1.0), ((4000, 3000), 0.75), ((12000, 3000), 0.25), ((300, 1200), 0.25)],
)
def test_the_centre_crop_keeps_a_share_of_the_image(size: tuple[int, int], share: float) -> None:
    assert PreprocessConfig().visible_share(size) == pytest.approx(share)
    assert PreprocessConfig(short_side=None, exact=(224, 224)).visible_share(size) == 1.0
    assert PreprocessConfig(crop=None).visible_share(size) == 1.0
