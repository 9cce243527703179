"""The core compiles without a graph break and exports with dynamic shapes; both equal eager."""

import pytest
import torch
from tiny import bite, tiny_config
from torch import Tensor

from git_model import GIT
from git_model.export.graphs import STEP, StepGraph, programs
from git_model.generation.padded_session import flat

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def model() -> GIT:
    model = bite(GIT(tiny_config()).double(), seed=8).float().eval()
    return model.requires_grad_(requires_grad=False)


def pixels_of(n_images: int) -> Tensor:
    return torch.randn(n_images, 3, 16, 16, generator=torch.Generator().manual_seed(n_images))


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [
        ("eager", torch.float32),  # not translated to C++, which takes a minute
        pytest.param("aot_eager", torch.float32, marks=pytest.mark.slow),
        pytest.param("inductor", torch.float32, marks=pytest.mark.slow),
        pytest.param("inductor", torch.bfloat16, marks=pytest.mark.slow),
    ],
)
def test_the_encoder_compiles_as_one_graph(model: GIT, backend: str, dtype: torch.dtype) -> None:
    encoder = GIT.from_state(model.config, model.tensors(), "copy").to(dtype).encoder
    compiled = torch.compile(encoder, fullgraph=True, backend=backend)
    with torch.inference_mode():
        for n_images in (1, 3, 2):
            pixels = pixels_of(n_images).to(dtype)
            tolerance = CLOSE if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.05}
            torch.testing.assert_close(compiled(pixels), encoder(pixels), **tolerance)


def test_encoder_and_prefill_export_for_any_number_of_images(model: GIT) -> None:
    _, program = next(programs(model))
    exported = program.module(check_guards=False)  # they note the sizes of the example
    for n_images in (1, 2, 5):
        pixels = pixels_of(n_images)
        torch.testing.assert_close(exported(pixels), flat(model.see(pixels).layers), **CLOSE)


@pytest.mark.slow  # the tests of engines run the step that `git-model export` writes
def test_a_decoder_step_exports_for_any_number_of_images_texts_and_tokens(model: GIT) -> None:
    step, config = StepGraph(model), model.config.decoder
    exported = dict(programs(model))[STEP].module(check_guards=False)
    for n_images, n_texts, n_past in ((2, 3, 4), (1, 1, 1), (3, 2, 9), (1, 4, 0), (4, 1, 2)):
        head = (config.heads, n_past, config.width // config.heads)
        past = torch.randn(config.layers, 2, n_images, n_texts, *head)
        tokens = torch.full((n_images, n_texts, 1), 7)
        mask = torch.ones(n_images, n_texts, n_past + 1, dtype=torch.bool)
        image = flat(model.see(pixels_of(n_images)).layers)
        inputs = tokens, mask, image, past
        torch.testing.assert_close(exported(*inputs), step(*inputs), **CLOSE)
