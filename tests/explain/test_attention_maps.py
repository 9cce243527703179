"""Attention recorded by hooks."""

import pytest
import torch
from test_captioner import exact_captioner
from tiny import tiny_model
from torch import Tensor, nn

from git_model.explain.attention_maps import (
    AttentionMap,
    head_average,
    record_attention,
    record_hidden_states,
    rollout,
)
from git_model.model.attention import Attention, KVCache, prefix_mask
from git_model.model.git import GIT
from git_model.utils.errors import GITError

PIXELS = torch.randn(1, 3, 16, 16, dtype=torch.float64)
TEXT = torch.tensor([[1, 7, 9, 30, 8]])


def bold_model() -> GIT:
    """In float64, with weights so large that a mistake shows."""
    return exact_captioner().model


def record_calls(tower: nn.Module) -> tuple[list[tuple], list[tuple]]:
    """The test's own hooks: the arguments and the result of every call of an attention layer that
    computes an output."""
    inputs, outputs = [], []

    def hook(_layer: nn.Module, args: tuple, options: dict, result: tuple) -> None:
        if options.get("need_output", True):
            inputs.append(args)
            outputs.append(result)

    for layer in tower.modules():
        if isinstance(layer, Attention):
            layer.register_forward_hook(hook, with_kwargs=True)
    return inputs, outputs


def values_of(args: tuple, result: tuple) -> Tensor:
    """(R, H, keys, d): the values that a layer averaged."""
    past = args[1] if len(args) > 1 else []
    return torch.cat([kv.value for kv in (*past, result[1])], dim=2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tower", ["encoder", "decoder"])
def test_recorded_weights_reproduce_what_each_layer_returned(
    tower: str, dtype: torch.dtype
) -> None:
    model = bold_model().to(dtype)
    module = getattr(model, tower)
    layers = [layer for layer in module.modules() if isinstance(layer, Attention)]
    with torch.inference_mode(), record_attention(module, lambda attention: attention) as maps:
        inputs, outputs = record_calls(module)
        model(PIXELS.to(dtype), TEXT)
    # the last decoder layer runs for the text alone, the others also for the image
    assert len(maps) == len(inputs) == {"encoder": 2, "decoder": 3}[tower]
    order = [0, 1] if tower == "encoder" else [0, 0, 1]
    for attention, args, result, layer in zip(maps, inputs, outputs, order, strict=True):
        mixed = (attention.weights @ values_of(args, result)).transpose(1, 2).flatten(2)
        rebuilt = layers[layer].out(mixed)
        assert rebuilt.abs().max() > 0.1
        tolerance = 1e-10 if dtype == torch.float64 else 2e-6
        torch.testing.assert_close(rebuilt, result[0], atol=tolerance, rtol=tolerance)


def test_every_row_of_recorded_weights_sums_to_one() -> None:
    model = bold_model()
    with (
        torch.inference_mode(),
        record_attention(model, lambda attention: attention.weights) as maps,
    ):
        model(PIXELS, TEXT)
    assert len(maps) == 5
    for weights in maps:
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


def test_recording_changes_no_bit_of_the_result_and_leaves_no_hook() -> None:
    model = bold_model()
    with torch.inference_mode():
        before = model(PIXELS, TEXT)
        with record_attention(model, head_average), record_hidden_states(model.decoder.blocks):
            during = model(PIXELS, TEXT)
    assert torch.equal(before, during)
    assert not any(module._forward_hooks for module in model.modules())


def test_hooks_are_removed_when_the_pass_fails() -> None:
    model = bold_model()
    with (
        pytest.raises(GITError),
        record_attention(model, head_average),
        record_hidden_states(model.decoder.blocks),
    ):
        model(PIXELS, torch.ones(1, 99, dtype=torch.long))
    assert not any(module._forward_hooks for module in model.modules())


def test_text_rows_are_recorded_under_the_rows_of_the_prefix_mask() -> None:
    model = bold_model()
    with torch.inference_mode():
        scene = model.see(PIXELS)
        with record_attention(model.decoder, lambda attention: attention) as maps:
            model(scene, TEXT)
    expected = prefix_mask(scene.n_tokens, 5, first_query=scene.n_tokens)
    for attention in maps:
        assert torch.equal(attention.mask, expected)
        assert torch.equal(attention.weights > 0, expected.expand_as(attention.weights))


def test_rows_that_share_an_image_are_recorded_as_if_each_had_its_own() -> None:
    model, texts = bold_model(), torch.tensor([[1, 7, 9], [1, 8, 30]])
    with torch.inference_mode():
        scene = model.see(PIXELS)
        with record_attention(model.decoder, lambda attention: attention.weights) as together:
            model(scene, texts)
        for row, text in enumerate(texts):
            with record_attention(model.decoder, lambda attention: attention.weights) as alone:
                model(scene, text[None])
            for own, shared in zip(alone, together, strict=True):
                torch.testing.assert_close(own[0], shared[row])


def test_weights_of_a_bfloat16_model_are_recorded_in_float32() -> None:
    model = tiny_model().bfloat16()
    with (
        torch.inference_mode(),
        record_attention(model, lambda attention: attention.weights) as maps,
    ):
        model(PIXELS.bfloat16(), TEXT)
    assert {weights.dtype for weights in maps} == {torch.float32}


def test_a_pass_with_a_cache_is_refused() -> None:
    model = bold_model()
    with torch.inference_mode():
        image = model.see(PIXELS).layers
        with (
            pytest.raises(GITError, match="no cache"),
            record_attention(model.decoder, head_average),
        ):
            model.decoder(TEXT, image, KVCache(2))


def test_hidden_states_are_the_outputs_of_the_blocks() -> None:
    model = bold_model()
    with torch.inference_mode():
        scene = model.see(PIXELS)
        with record_hidden_states(model.decoder.blocks) as hidden:
            logits = model(scene, TEXT)
        lens = [model.decoder.lm_head(state) for state in hidden]
    assert [state.shape for state in hidden] == [(1, 5, 24)] * 2
    assert torch.equal(lens[-1], logits)
    assert not torch.allclose(lens[0], logits)


def test_rollout_of_one_layer_keeps_half() -> None:
    weights = torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    assert rollout([weights]).tolist() == [[0.5, 0.5], [0.25, 0.75]]


def test_rollout_multiplies_the_layers_from_the_last_to_the_first() -> None:
    from_left = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    from_last = torch.tensor([[0.0, 0.0, 1.0]])  # a last layer with one query
    # half of token 2 stays through both layers, half of that comes from token 1
    assert rollout([from_left, from_last]).tolist() == [[0.0, 0.5, 0.5]]


def test_rollout_rows_sum_to_one() -> None:
    layers = [torch.rand(4, 6, 6).softmax(-1) for _ in range(3)]
    torch.testing.assert_close(rollout(layers).sum(-1), torch.ones(4, 6))


def test_the_head_average_is_the_mean_over_heads() -> None:
    weights = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(head_average(AttentionMap(weights, None)), weights.sum(1) / 3)
