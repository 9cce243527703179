"""The core compiles without a graph break and exports with dynamic shapes; both equal eager."""

import pytest
import torch
from tiny import bite, tiny_config
from torch import Tensor, nn
from torch.export import Dim

from git_model import GIT
from git_model.model.attention import KeyValue, KVCache, LayerCache

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


class See(nn.Module):
    """Encoder, projector and prefill, with the keys and values stacked: (layers, 2, B, H, I, d)."""

    def __init__(self, model: GIT) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        layers = self.model.see(pixels).layers
        return torch.stack([torch.stack([layer.key, layer.value]) for layer in layers])


class PureLayerCache(LayerCache):
    """A cache that returns a new tensor at each step, where the usual one writes in place."""

    def __init__(self, past: KeyValue) -> None:
        super().__init__()
        self.past, self.length = past, past.key.shape[2]

    def extend(self, new: KeyValue) -> KeyValue:
        self.past = KeyValue(
            torch.cat([self.past.key, new.key], dim=2),
            torch.cat([self.past.value, new.value], dim=2),
        )
        return self.past


class Step(nn.Module):
    """One step of the decoder for n texts of each of B images.

    tokens (B, n), image (layers, 2, B, H, I, d), text (layers, 2, B, n, H, T, d) -> logits
    (B, n, V) and the text's keys and values, one token longer.
    """

    def __init__(self, model: GIT) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        cache = KVCache(0)
        rows = text.flatten(2, 3)  # (layers, 2, R, H, T, d)
        cache.layers = [PureLayerCache(KeyValue(*layer.unbind(0))) for layer in rows.unbind(0)]
        prefix = [KeyValue(*layer.unbind(0)) for layer in image.unbind(0)]
        hidden = self.model.decoder(tokens.reshape(-1, 1), prefix, cache)
        logits = self.model.decoder.lm_head(hidden[:, -1])
        grown = torch.stack(
            [torch.stack([layer.past.key, layer.past.value]) for layer in cache.layers]
        )
        shape = tokens.shape
        return logits.unflatten(0, shape), grown.unflatten(2, shape)


def test_encoder_and_prefill_export_for_any_number_of_images(model: GIT) -> None:
    see = See(model)
    exported = torch.export.export(
        see, (pixels_of(2),), dynamic_shapes=({0: Dim("images", min=1, max=64)},)
    ).module()
    for n_images in (1, 2, 5):
        pixels = pixels_of(n_images)
        torch.testing.assert_close(exported(pixels), see(pixels), **CLOSE)


@pytest.mark.slow  # tests/export runs the step that `git-model export` writes
def test_a_decoder_step_exports_for_any_number_of_images_texts_and_tokens(model: GIT) -> None:
    step, see, config = Step(model), See(model), model.config.decoder

    def inputs(n_images: int, n_texts: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
        head = (config.heads, length, config.width // config.heads)
        generator = torch.Generator().manual_seed(length)
        text = torch.randn(config.layers, 2, n_images, n_texts, *head, generator=generator)
        return torch.full((n_images, n_texts), 7), see(pixels_of(n_images)), text

    images, texts = Dim("images", min=1, max=64), Dim("texts", min=1, max=64)
    exported = torch.export.export(
        step,
        inputs(2, 3, 4),
        dynamic_shapes=(
            {0: images, 1: texts},
            {2: images},
            {2: images, 3: texts, 5: Dim("length", min=0, max=20)},
        ),
    ).module(check_guards=False)  # they note which way a view was made, not what is right
    for case in ((2, 3, 4), (1, 1, 1), (3, 2, 9), (1, 4, 0), (4, 1, 2)):
        logits, text = exported(*inputs(*case))
        expected_logits, expected_text = step(*inputs(*case))
        torch.testing.assert_close(logits, expected_logits, **CLOSE)
        torch.testing.assert_close(text, expected_text, **CLOSE)
