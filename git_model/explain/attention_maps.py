"""Attention weights recorded by hooks, from outside the model, and attention rollout.

A layer returns its output, not its attention weights. A hook gets the layer's input and its keys,
and computes the weights from these a second time, through the layer's own modules. The forward pass
is not changed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from git_model.model.attention import Attention, KeyValue, LayerCache
from git_model.utils.errors import GITError

T = TypeVar("T")


class AttentionMap(NamedTuple):
    """The attention of one layer in one pass."""

    weights: Tensor  # (R, H, queries, keys), float32 or float64; each row sums to 1
    mask: Tensor | None  # True where a query may attend; None: everywhere


@contextmanager
def record_attention(tower: nn.Module, keep: Callable[[AttentionMap], T]) -> Iterator[list[T]]:
    """Record the attention of the `Attention` layers in a module while the `with` block runs, in
    order.

    Args:
        keep: returns the part of a map to keep. All weights of a large image can fill the memory.
    """
    records: list[T] = []

    def hook(layer: Any, args: Any, kwargs: Any, output: tuple[Tensor, KeyValue]) -> None:
        if kwargs.get("need_output", True):  # else the layer only gives its keys and values
            kwargs = {name: value for name, value in kwargs.items() if name != "need_output"}
            records.append(keep(attention_map(layer, output[1], *args, **kwargs)))

    layers = [layer for layer in tower.modules() if isinstance(layer, Attention)]
    hooks = [layer.register_forward_hook(hook, with_kwargs=True) for layer in layers]
    with _removed_at_the_end(hooks):
        yield records


@contextmanager
def record_hidden_states(blocks: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Record the output (R, T, D) of each of these decoder blocks while the `with` block runs."""
    states: list[Tensor] = []

    def hook(_block: Any, _args: Any, output: tuple[Tensor, KeyValue]) -> None:
        states.append(output[0])

    hooks = [block.register_forward_hook(hook) for block in blocks]
    with _removed_at_the_end(hooks):
        yield states


@contextmanager
def _removed_at_the_end(hooks: Sequence[RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def attention_map(
    layer: Attention,
    present: KeyValue,
    x: Tensor,
    past: Sequence[KeyValue] = (),
    mask: Tensor | None = None,
    cache: LayerCache | None = None,
) -> AttentionMap:
    """The weights of a layer, from its arguments and the keys of `x` that it returned.

    They are the softmax of `attend`, in float32 at least.

    Raises:
        GITError: the pass had a cache, so that it computed only a part of the text.
    """
    if cache is not None:
        raise GITError("attention is recorded in a pass over the whole text, expected no cache")
    query, _, _ = layer.split(layer.qkv(x))  # (R, H, queries, d)
    n_rows = x.shape[0]
    keys = [kv.key.repeat_interleave(n_rows // kv.key.shape[0], 0) for kv in (*past, present)]
    key = torch.cat(keys, dim=2)  # (R, H, keys, d)
    exact = torch.promote_types(x.dtype, torch.float32)
    scores = query.to(exact) @ key.to(exact).mT * query.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return AttentionMap(scores.softmax(-1), mask)


def head_average(attention: AttentionMap) -> Tensor:
    """(R, queries, keys): the weights, averaged over heads."""
    return attention.weights.mean(1)


def rollout(layers: Sequence[Tensor]) -> Tensor:
    """Attention rollout: the share of each input token in each output token, if the layers did
    nothing but attend.

    Half of each token comes through the residual connection, the other half from the tokens that it
    attends to. Over the layers this is a product of matrices.

    Args:
        layers: each layer's weights (..., N, N), first layer first. The last layer may have fewer
            rows; its queries are then the last tokens.

    Returns:
        (..., queries of the last layer, N), each row with the sum 1.

    Source: Abnar and Zuidema 2020, Quantifying Attention Flow in Transformers, section 3.
    """
    mixed = [_with_residual(weights) for weights in layers]
    product = mixed[-1]
    for weights in reversed(mixed[:-1]):
        product = product @ weights
    return product


def _with_residual(weights: Tensor) -> Tensor:
    rows, columns = weights.shape[-2:]
    identity = torch.eye(columns, dtype=weights.dtype, device=weights.device)[columns - rows :]
    return (weights + identity) / 2
