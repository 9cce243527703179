"""The quick product is the usual one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from git_model.linear import Linear, Way, in_blocks, linear, quickest, turned


@settings(deadline=None, max_examples=100)
@given(
    way=st.sampled_from([linear, turned, in_blocks]),
    rows=st.integers(1, 70),
    width=st.integers(1, 9),
    out=st.integers(1, 200),
)
def test_every_way_gives_the_usual_product(way: Way, rows: int, width: int, out: int) -> None:
    x, weight, bias = torch.randn(rows, width), torch.randn(out, width), torch.randn(out)
    torch.testing.assert_close(way(x, weight, bias), F.linear(x, weight, bias))


def test_the_usual_way_is_taken_where_nothing_was_measured() -> None:
    for rows in (1, 4, 8, 1000):
        for maker in ("cuda", "mps", "Apple", ""):
            assert quickest(rows, torch.float32, maker) is F.linear
        for maker in ("Intel", "AMD"):
            assert quickest(rows, torch.float64, maker) is F.linear
    assert quickest(1000, torch.float32, "Intel") is F.linear
    assert quickest(1000, torch.float32, "AMD") is F.linear


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5,), (1, 5), (2, 3, 5), (2, 1, 5)])
def test_shape_and_type_are_the_usual_ones(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    layer, x = Linear(5, 7).to(dtype), torch.randn(shape).to(dtype)
    usual = F.linear(x, layer.weight, layer.bias)
    assert (layer(x).shape, layer(x).dtype) == (usual.shape, usual.dtype)
    torch.testing.assert_close(layer(x), usual)


def test_gradients_are_the_usual_ones() -> None:
    layer, x = Linear(5, 7), torch.randn(3, 5)
    found = torch.autograd.grad(layer(x).square().sum(), [*layer.parameters()])
    usual = torch.autograd.grad(
        F.linear(x, layer.weight, layer.bias).square().sum(), [*layer.parameters()]
    )
    for one, other in zip(found, usual, strict=True):
        torch.testing.assert_close(one, other)
