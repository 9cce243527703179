"""The exported graphs of models with other image encoders and decoder settings equal the model."""

import dataclasses
from collections.abc import Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import bite, tiny_config
from torch import Tensor

from git_model import GIT, GITConfig
from git_model.config import EncoderConfig, PreprocessConfig, TowerConfig
from git_model.export.engines import open_engine
from git_model.export.folder import ExportInfo
from git_model.export.graphs import SEE, STEP, programs, signatures
from git_model.export.onnx_files import write_onnx
from git_model.generation.padded_session import flat, layers_of

pytest.importorskip("timm")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
SIGLIP = EncoderConfig(
    kind="siglip", image_size=16, patch_size=8, width=16, layers=1, heads=2, mlp_width=32,
    activation="gelu_tanh", norm_eps=1e-6,
)  # fmt: skip
TEST_VIT = TowerConfig(kind="timm", name="test_vit", image_size=32, width=64)
SLOW = [
    (TEST_VIT, "pre", "rms", "isolated"),
    (SIGLIP, "post", "layer", "causal"),
    (SIGLIP, "post", "rms", "isolated"),
    (SIGLIP, "pre", "layer", "prefix"),
]


def model_of(
    encoder: EncoderConfig | TowerConfig, norm: str, norm_kind: str, mask: str, **changes: Any
) -> GIT:
    """A model with weights that bite. Its second decoder layer sees what the mask did in the
    first."""
    size = encoder.image_size
    images = PreprocessConfig(short_side=size, crop=(size, size))
    config: GITConfig = tiny_config(encoder=encoder, preprocess=images, **changes)
    settings: Mapping[str, Any] = {"norm": norm, "norm_kind": norm_kind, "mask": mask}
    decoder = dataclasses.replace(config.decoder, norm_eps=0.02, **settings)
    model = GIT(dataclasses.replace(config, decoder=decoder))
    return bite(model.double(), seed=8).float().eval().requires_grad_(requires_grad=False)


def draw(model: GIT, n_images: int, n_texts: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Pixels, and tokens (images, texts, 4)."""
    generator = torch.Generator().manual_seed(n_images)
    pixels = torch.randn(n_images, 3, *size, generator=generator)
    return pixels, torch.randint(4, 40, (n_images, n_texts, 4), generator=generator)


def require_equal(
    model: GIT, see: Any, step: Any, n_images: int, n_texts: int, size: tuple[int, int]
) -> None:
    """The image prefix is that of the model, and the logits are those of one pass under the mask:
    after two tokens at once, after one more, and after the last."""
    pixels, tokens = draw(model, n_images, n_texts, size)
    image = see(pixels)
    for actual, expected in zip(image, flat(model.see(pixels).layers), strict=True):
        torch.testing.assert_close(actual, expected, **CLOSE)
    logits = model.one_pass(pixels.repeat_interleave(n_texts, 0), tokens.flatten(0, 1))
    config = model.config.decoder
    heads = config.heads, 0, config.width // config.heads
    past = torch.zeros(config.layers, 2, n_images, n_texts, *heads)
    for start, end in ((0, 2), (2, 3), (3, 4)):
        mask = torch.ones(n_images, n_texts, end).bool()
        actual, past = step(tokens[:, :, start:end], mask, image, past)
        expected = logits[:, end - 1].unflatten(0, (n_images, n_texts))
        torch.testing.assert_close(actual, expected, **CLOSE)


def require_equal_programs(model: GIT, *sizes: tuple[int, int]) -> None:
    """The graphs of torch.export, which are for any number of images and texts."""
    graphs = {name: item.module(check_guards=False) for name, item in programs(model)}
    for size in sizes:
        for n_images, n_texts in ((2, 3), (1, 1), (3, 2)):
            require_equal(model, graphs[SEE], graphs[STEP], n_images, n_texts, size)


@pytest.mark.parametrize(
    ("encoder", "norm", "norm_kind", "mask"),
    [
        pytest.param(SIGLIP, "pre", "rms", "causal", id="siglip"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW),
    ],
)
def test_the_graphs_of_a_tower_and_of_decoder_settings_equal_the_model(
    encoder: EncoderConfig | TowerConfig, norm: str, norm_kind: str, mask: str
) -> None:
    size = encoder.image_size, encoder.image_size
    require_equal_programs(model_of(encoder, norm, norm_kind, mask), size)


def test_the_image_prefix_of_a_tower_of_timm_equals_the_models() -> None:
    """The step, which takes longer to trace, knows no tower; a slow test above has both."""
    model = model_of(TEST_VIT, "post", "layer", "isolated")
    _, program = next(programs(model))
    see = program.module(check_guards=False)
    for n_images in (2, 1, 3):
        pixels, _ = draw(model, n_images, 1, (32, 32))
        for actual, expected in zip(see(pixels), flat(model.see(pixels).layers), strict=True):
            torch.testing.assert_close(actual, expected, **CLOSE)


def test_each_setting_changes_the_results_by_more_than_the_tolerance() -> None:
    """Or an export with a wrong mask or norm would pass."""
    pixels, tokens = draw(model_of(SIGLIP, "post", "layer", "prefix"), 1, 1, (16, 16))
    settings = list(product(("post", "pre"), ("layer", "rms"), ("prefix", "causal", "isolated")))
    logits = [model_of(SIGLIP, *item).one_pass(pixels, tokens[0]) for item in settings]
    tolerance = 10 * (CLOSE["atol"] + CLOSE["rtol"] * max(item.abs().max() for item in logits))
    for first, second in combinations(logits, 2):
        assert (first - second).abs().max() > tolerance


@pytest.mark.slow
def test_the_graphs_of_siglip_take_images_of_any_size() -> None:
    model = model_of(SIGLIP, "pre", "rms", "isolated")
    images = dataclasses.replace(model.config.preprocess, crop=None)
    model.config = dataclasses.replace(model.config, preprocess=images)
    require_equal_programs(model, (16, 16), (24, 16), (16, 40))


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [SIGLIP, TEST_VIT], ids=["siglip", "timm"])
def test_onnx_runtime_gives_the_results_of_the_model(
    tmp_path: Path, encoder: EncoderConfig | TowerConfig
) -> None:
    model = model_of(encoder, "pre", "rms", "causal")
    write_onnx(programs(model), signatures(model.config), tmp_path)
    info = ExportInfo(
        engine="onnx", dtype="float32", source="", source_digest="", settings_digest="", version=""
    )
    engine = open_engine(tmp_path, info, model.config, "cpu")

    def see(pixels: Tensor) -> list[Tensor]:
        return flat(engine.see(pixels))

    def step(tokens: Tensor, mask: Tensor, image: list[Tensor], past: Tensor) -> Any:
        return engine.step(tokens, mask, layers_of(image), past)

    require_equal(model, see, step, 2, 3, (encoder.image_size, encoder.image_size))
