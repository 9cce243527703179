"""Attention recorded from outside."""

import pytest
import torch
from test_captioner import exact_captioner
from tiny import tiny_model
from torch import Tensor, nn

from git_model.explain.attention_maps import Look, head_average, rollout, states, watch
from git_model.model.attention import Attention, KVCache, prefix_mask
from git_model.model.git import GIT
from git_model.utils.errors import GITError

PIXELS = torch.randn(1, 3, 16, 16, dtype=torch.float64)
TEXT = torch.tensor([[1, 7, 9, 30, 8]])


def strange_model() -> GIT:
    """In float64, with weights so large that a wrong one shows."""
    return exact_captioner().model


def outputs_of(tower: nn.Module) -> tuple[list[tuple], list[tuple]]:
    """Hooks of the test's own: what every attention layer is given, and what it returns."""
    given, returned = [], []

    def remember(_layer: nn.Module, args: tuple, result: tuple) -> None:
        given.append(args)
        returned.append(result)

    for layer in tower.modules():
        if isinstance(layer, Attention):
            layer.register_forward_hook(remember)
    return given, returned


def values_of(args: tuple, result: tuple) -> Tensor:
    """(R, H, keys, d): the values that a layer mixed."""
    past = args[1] if len(args) > 1 else []
    return torch.cat([one.value for one in (*past, result[1])], dim=2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tower", ["encoder", "decoder"])
def test_recorded_weights_reproduce_what_each_layer_returned(
    tower: str, dtype: torch.dtype
) -> None:
    model = strange_model().to(dtype)
    module = getattr(model, tower)
    layers = [layer for layer in module.modules() if isinstance(layer, Attention)]
    with torch.inference_mode(), watch(module, lambda look: look) as looks:
        given, returned = outputs_of(module)
        model(PIXELS.to(dtype), TEXT)
    # the last decoder layer runs for the text alone, the others also for the image
    assert len(looks) == len(given) == {"encoder": 2, "decoder": 3}[tower]
    order = [0, 1] if tower == "encoder" else [0, 0, 1]
    for look, args, result, layer in zip(looks, given, returned, order, strict=True):
        mixed = (look.weights @ values_of(args, result)).transpose(1, 2).flatten(2)
        again = layers[layer].out(mixed)
        assert again.abs().max() > 0.1
        tolerance = 1e-10 if dtype == torch.float64 else 2e-6
        torch.testing.assert_close(again, result[0], atol=tolerance, rtol=tolerance)


def test_every_row_of_recorded_weights_sums_to_one() -> None:
    model = strange_model()
    with torch.inference_mode(), watch(model, lambda look: look.weights) as looks:
        model(PIXELS, TEXT)
    assert len(looks) == 5
    for weights in looks:
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


def test_watching_changes_no_bit_of_the_result_and_leaves_no_hook() -> None:
    model = strange_model()
    with torch.inference_mode():
        before = model(PIXELS, TEXT)
        with watch(model, head_average), states(model.decoder.blocks):
            during = model(PIXELS, TEXT)
    assert torch.equal(before, during)
    assert not any(module._forward_hooks for module in model.modules())


def test_hooks_are_removed_when_the_pass_fails() -> None:
    model = strange_model()
    with pytest.raises(GITError), watch(model, head_average), states(model.decoder.blocks):
        model(PIXELS, torch.ones(1, 99, dtype=torch.long))
    assert not any(module._forward_hooks for module in model.modules())


def test_text_rows_are_recorded_under_the_rows_of_the_prefix_mask() -> None:
    model = strange_model()
    with torch.inference_mode():
        scene = model.see(PIXELS)
        with watch(model.decoder, lambda look: look) as looks:
            model(scene, TEXT)
    expected = prefix_mask(scene.n_tokens, 5, first_query=scene.n_tokens)
    for look in looks:
        assert torch.equal(look.mask, expected)
        assert torch.equal(look.weights > 0, expected.expand_as(look.weights))


def test_rows_that_share_an_image_are_recorded_as_if_each_had_its_own() -> None:
    model, texts = strange_model(), torch.tensor([[1, 7, 9], [1, 8, 30]])
    with torch.inference_mode():
        scene = model.see(PIXELS)
        with watch(model.decoder, lambda look: look.weights) as together:
            model(scene, texts)
        for row, text in enumerate(texts):
            with watch(model.decoder, lambda look: look.weights) as alone:
                model(scene, text[None])
            for one, both in zip(alone, together, strict=True):
                torch.testing.assert_close(one[0], both[row])


def test_weights_of_a_bfloat16_model_are_recorded_in_float32() -> None:
    model = tiny_model().bfloat16()
    with torch.inference_mode(), watch(model, lambda look: look.weights) as looks:
        model(PIXELS.bfloat16(), TEXT)
    assert {weights.dtype for weights in looks} == {torch.float32}


def test_a_pass_with_a_cache_is_refused() -> None:
    model = strange_model()
    with torch.inference_mode():
        image = model.see(PIXELS).layers
        with pytest.raises(GITError, match="no cache"), watch(model.decoder, head_average):
            model.decoder(TEXT, image, KVCache(2))


def test_states_are_what_each_block_hands_on() -> None:
    model = strange_model()
    with torch.inference_mode():
        scene = model.see(PIXELS)
        with states(model.decoder.blocks) as found:
            logits = model(scene, TEXT)
        read_off = [model.decoder.lm_head(state) for state in found]
    assert [state.shape for state in found] == [(1, 5, 24)] * 2
    assert torch.equal(read_off[-1], logits)
    assert not torch.allclose(read_off[0], logits)


def test_rollout_of_one_layer_keeps_half() -> None:
    weights = torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    assert rollout([weights]).tolist() == [[0.5, 0.5], [0.25, 0.75]]


def test_rollout_follows_the_layers_from_the_top_down() -> None:
    to_the_left = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    from_the_last = torch.tensor([[0.0, 0.0, 1.0]])  # a last layer with one query
    # half of token 2 stays through both layers, half of what it keeps came from token 1
    assert rollout([to_the_left, from_the_last]).tolist() == [[0.0, 0.5, 0.5]]


def test_rollout_rows_sum_to_one() -> None:
    layers = [torch.rand(4, 6, 6).softmax(-1) for _ in range(3)]
    torch.testing.assert_close(rollout(layers).sum(-1), torch.ones(4, 6))


def test_the_head_average_is_over_heads() -> None:
    weights = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(head_average(Look(weights, None)), weights.sum(1) / 3)
