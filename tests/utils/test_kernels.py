"""Every kernel gives the usual product."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from git_model.model.layers import Linear
from git_model.utils import kernels
from git_model.utils.kernels import (
    Kernel,
    blocked,
    drop_stale_copies,
    fastest,
    linear,
    onednn,
    pack_weights,
    transposed,
)


@settings(deadline=None, max_examples=100)
@given(
    kernel=st.sampled_from([linear, transposed, blocked, onednn]),
    rows=st.integers(1, 70),
    width=st.integers(1, 9),
    out=st.integers(1, 200),
)
def test_every_kernel_gives_the_usual_product(
    kernel: Kernel, rows: int, width: int, out: int
) -> None:
    x, weight, bias = torch.randn(rows, width), torch.randn(out, width), torch.randn(out)
    with torch.inference_mode():
        torch.testing.assert_close(kernel(x, weight, bias), F.linear(x, weight, bias))


@pytest.mark.parametrize("rows", [1, 2, 5, 70])
def test_a_part_of_a_larger_tensor_gives_the_usual_product(rows: int) -> None:
    x, weight, bias = torch.randn(rows, 3, 20)[:, -1], torch.randn(130, 20), torch.randn(130)
    with torch.inference_mode():
        for kernel in (linear, transposed, blocked, onednn):
            torch.testing.assert_close(kernel(x, weight, bias), F.linear(x, weight, bias))


def test_the_usual_kernel_is_taken_where_nothing_was_measured() -> None:
    for rows in (1, 4, 8, 1000):
        for maker in ("cuda", "mps", "Apple", ""):
            assert fastest(rows, torch.float32, maker) is F.linear
        for maker in ("Intel", "AMD"):
            assert fastest(rows, torch.float64, maker) is F.linear
    assert fastest(1000, torch.float32, "Intel") is F.linear


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5,), (1, 5), (2, 3, 5), (2, 1, 5)])
def test_shape_and_type_are_the_usual_ones(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    layer, x = Linear(5, 7).to(dtype), torch.randn(shape).to(dtype)
    usual = F.linear(x, layer.weight, layer.bias)
    with torch.no_grad():
        product = layer(x)
    assert (product.shape, product.dtype) == (usual.shape, usual.dtype)
    torch.testing.assert_close(product, usual)


def test_gradients_are_the_usual_ones() -> None:
    layer, x = Linear(5, 7), torch.randn(3, 5)
    product = torch.autograd.grad(layer(x).square().sum(), [*layer.parameters()])
    usual = torch.autograd.grad(
        F.linear(x, layer.weight, layer.bias).square().sum(), [*layer.parameters()]
    )
    for gradient, expected in zip(product, usual, strict=True):
        torch.testing.assert_close(gradient, expected)


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor on which weights are packed; where this one cannot, plain products stand in."""
    monkeypatch.setattr(kernels, "CPU_MAKER", "AMD")
    if not kernels.ONEDNN._is_mkldnn_bf16_supported():
        monkeypatch.setattr(kernels, "can_be_packed", lambda weight: weight.dtype == torch.bfloat16)
        monkeypatch.setattr(kernels, "reordered", torch.clone)
        monkeypatch.setattr(kernels, "onednn", F.linear)


def test_bfloat16_works_on_a_processor_that_cannot_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "CPU_MAKER", "AMD")
    layer = Linear(64, 64).bfloat16()
    pack_weights(layer)
    assert hasattr(layer.weight, "packed") == kernels.can_be_packed(layer.weight)
    with torch.inference_mode():
        assert layer(torch.ones(2, 64).bfloat16()).isfinite().all()


@pytest.mark.usefixtures("packs")
@pytest.mark.parametrize("rows", [1, 4, 200])
def test_a_packed_weight_gives_the_same_product_to_rounding(rows):
    layer = Linear(96, 130).bfloat16()
    x = torch.randn(2, rows, 96).bfloat16()
    with torch.inference_mode():
        usual = layer(x)
        pack_weights(layer)
        packed = layer(x)
    assert hasattr(layer.weight, "packed")
    torch.testing.assert_close(packed, usual, atol=2e-2, rtol=1e-2)


@pytest.mark.usefixtures("packs")
def test_a_packed_copy_is_not_used_once_the_weight_has_changed():
    layer = Linear(64, 64).bfloat16()
    pack_weights(layer)
    with torch.no_grad():
        layer.weight.mul_(2)
        layer.bias.zero_()
        x = torch.eye(64).bfloat16()
        assert torch.equal(layer(x), layer.weight.T)


@pytest.mark.usefixtures("packs")
def test_a_copy_is_dropped_once_the_weight_was_written_in_a_way_that_torch_does_not_count() -> None:
    layer = Linear(64, 64).bfloat16()
    pack_weights(layer)
    drop_stale_copies(layer)
    assert hasattr(layer.weight, "packed")
    layer.weight.data += 1.0
    drop_stale_copies(layer)
    assert not hasattr(layer.weight, "packed")


@pytest.mark.usefixtures("packs")
def test_a_packed_layer_learns_and_is_saved_as_it_is():
    layer = Linear(64, 64).bfloat16()
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    pack_weights(layer)
    layer(torch.randn(3, 64).bfloat16()).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().max() > 0
    for name, tensor in layer.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.usefixtures("packs")
def test_only_bfloat16_is_packed():
    layer = Linear(64, 64)
    pack_weights(layer)
    assert not hasattr(layer.weight, "packed")
