"""Who looked at whom, and how much: attention recorded by hooks, from outside.

A layer hands on what it saw, not how it looked. A hook gets the layer's input and its keys, and
computes the weights from these a second time. No forward pass knows of it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from git_model.attention import Attention, KeyValue, LayerCache
from git_model.settings import GITError

T = TypeVar("T")


class Look(NamedTuple):
    """What one layer did in one pass."""

    weights: Tensor  # (R, H, queries, keys), float32 or float64; each row sums to 1
    mask: Tensor | None  # True where a query may look; None: everywhere


@contextmanager
def watch(tower: nn.Module, keep: Callable[[Look], T]) -> Iterator[list[T]]:
    """Record each look of the `Attention` layers in a module while the block runs, in order.

    Args:
        keep: what to keep of a look. All weights of a large picture can fill a memory.
    """
    found: list[T] = []

    def remember(layer: Any, args: Any, kwargs: Any, result: tuple[Tensor, KeyValue]) -> None:
        found.append(keep(look_of(layer, result[1], *args, **kwargs)))

    layers = [layer for layer in tower.modules() if isinstance(layer, Attention)]
    hooks = [layer.register_forward_hook(remember, with_kwargs=True) for layer in layers]
    with _removed_at_the_end(hooks):
        yield found


@contextmanager
def states(blocks: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Record what each of these decoder blocks hands on, (R, T, D), while the block runs."""
    found: list[Tensor] = []

    def remember(_block: Any, _args: Any, result: tuple[Tensor, KeyValue]) -> None:
        found.append(result[0])

    hooks = [block.register_forward_hook(remember) for block in blocks]
    with _removed_at_the_end(hooks):
        yield found


@contextmanager
def _removed_at_the_end(hooks: Sequence[RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def look_of(
    layer: Attention,
    present: KeyValue,
    x: Tensor,
    past: Sequence[KeyValue] = (),
    mask: Tensor | None = None,
    cache: LayerCache | None = None,
) -> Look:
    """The weights of a layer, from its arguments and the keys of `x` that it returned.

    They are the softmax of `attend`, in float32 at least.

    Raises:
        GITError: the pass had a cache, which is one row of the text at a time.
    """
    if cache is not None:
        raise GITError("looks are recorded in a pass over the whole text, expected no cache")
    width, rows = x.shape[-1], len(x)
    query = F.linear(x, layer.qkv.weight[:width], layer.qkv.bias[:width])
    query = query.unflatten(-1, (layer.heads, -1)).transpose(1, 2)  # (R, H, queries, d)
    keys = [one.key.repeat_interleave(rows // len(one.key), 0) for one in (*past, present)]
    key = torch.cat(keys, dim=2)  # (R, H, keys, d)
    exact = torch.promote_types(x.dtype, torch.float32)
    scores = query.to(exact) @ key.to(exact).mT * query.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return Look(scores.softmax(-1), mask)


def head_average(look: Look) -> Tensor:
    """(R, queries, keys): the weights, averaged over heads."""
    return look.weights.mean(1)


def rollout(layers: Sequence[Tensor]) -> Tensor:
    """How much of each input token is in each output token, were attention all that happens.

    A layer adds what it sees to what is there, so half of a token stays and half is looked up;
    layer after layer, that is a product of matrices.

    Args:
        layers: each layer's weights (..., N, N), first layer first. The last may have fewer rows,
            its queries being the last ones.

    Returns:
        (..., queries of the last layer, N), each row with the sum 1.

    Source: Abnar and Zuidema 2020, Quantifying Attention Flow in Transformers, section 3.
    """
    mixed = [_half_kept(weights) for weights in layers]
    found = mixed[-1]
    for weights in reversed(mixed[:-1]):
        found = found @ weights
    return found


def _half_kept(weights: Tensor) -> Tensor:
    rows, columns = weights.shape[-2:]
    itself = torch.eye(columns, dtype=weights.dtype, device=weights.device)[columns - rows :]
    return (weights + itself) / 2
