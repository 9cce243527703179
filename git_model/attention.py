"""Who may look at whom (`prefix_mask`), and how they look (`Attention`).

Every attention in GIT is the same act: queries look at one or more *sources*, and a source is the
keys and values of some tokens. The encoder's tokens look at themselves. A text token looks at the
image, at the text before it, and at itself. A source may serve several rows at once: beams,
questions and class names all look at the one copy of their image.
"""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from git_model.linear import Linear


class Places(NamedTuple):
    """Where R rows of queries stand among the `room` equal places that a source's rows have for
    them, when some of these are empty: the texts of one image may end at different times."""

    at: Tensor  # (R,)
    room: int


class KeyValue(NamedTuple):
    """What one layer lets others look at: keys and values of some tokens."""

    key: Tensor  # (B, H, S, d)
    value: Tensor  # (B, H, S, d)
    places: Places | None = None  # None: R is a multiple of B, and every place is taken


def prefix_mask(
    n_image: int, n_text: int, *, first_query: int = 0, device: torch.device | None = None
) -> Tensor:
    """(queries, keys): True where a token may look. Text reads the image and its own past.

    >>> prefix_mask(2, 2).int().tolist()
    [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]

    Args:
        first_query: leave out the queries before this one (their answers are already known).

    Source: paper, section 3.1 and figure 2; `BertEncoderAsDecoder` in the original's decoder.py.
    """
    key = torch.arange(n_image + n_text, device=device)
    query = key[first_query:, None]
    return (key < n_image) | (key <= query)


def attend(
    query: Tensor, sources: Sequence[KeyValue], mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V over the tokens of all sources together.

    Args:
        query: (R, H, T, d).
        sources: B may differ from source to source. R is a multiple of it, and rows 0 to R/B - 1
            look at the source's row 0, and so on; or the source's `places` say where they stand.
        mask: True where a query may look; broadcasts to (R, H, T, S of all sources).
        dropout: probability that a weight is dropped.

    Returns:
        (R, H, T, d)
    """
    if len(sources) == 1 and len(sources[0].key) == len(query) and _fused_is_faster(query):
        return F.scaled_dot_product_attention(
            query, sources[0].key, sources[0].value, mask, dropout
        )
    query = query * query.shape[-1] ** -0.5
    each = [_matmul(query, one.key.mT, one.places) for one in sources]
    scores = each[0] if len(each) == 1 else torch.cat(each, dim=-1)  # cat would copy even one
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = F.dropout(scores.softmax(-1), dropout)
    parts = weights.split([one.key.shape[2] for one in sources], dim=-1)
    mixed = [_matmul(part, one.value, one.places) for part, one in zip(parts, sources, strict=True)]
    return reduce(torch.add, mixed)


def _fused_is_faster(query: Tensor) -> bool:
    """Whether torch's one kernel beats the same formula in steps. On a CPU that is so only for
    several images in float32; for one image, or in bfloat16, it takes twice as long."""
    return query.device.type != "cpu" or (query.dtype == torch.float32 and len(query) > 1)


def _matmul(rows: Tensor, shared: Tensor, places: Places | None) -> Tensor:
    """rows (R, H, T, x) @ shared (B, H, x, y), without repeating `shared` for its rows."""
    if places is not None:
        room = rows.new_zeros(places.room, *rows.shape[1:]).index_copy(0, places.at, rows)
        return _matmul(room, shared, None)[places.at]
    n = rows.shape[0] // shared.shape[0]
    if n == 1:
        return rows @ shared
    _, heads, length, _ = rows.shape
    together = rows.unflatten(0, (-1, n)).transpose(1, 2).flatten(2, 3)  # (B, H, n T, x)
    product = (together @ shared).unflatten(2, (n, length))  # (B, H, n, T, y)
    return product.transpose(1, 2).reshape(-1, heads, length, shared.shape[-1])


class Attention(nn.Module):
    """Multi-head attention, one class for both towers."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)

    def forward(
        self,
        x: Tensor,
        past: Sequence[KeyValue] = (),
        mask: Tensor | None = None,
        cache: "LayerCache | None" = None,
    ) -> tuple[Tensor, KeyValue]:
        """x looks at the sources in `past`, then at itself.

        Args:
            x: (R, T, D).
            past: keys and values from before, as in `attend`.
            mask: as in `attend`, over the keys of `past` and then of x.
            cache: the text before x, which x continues; it counts as part of x as a source.

        Returns:
            what x saw (R, T, D), and x's own keys and values for those who come later.
        """
        query, key, value = self._by_head(self.qkv(x), 3)
        present = KeyValue(key, value)
        itself = present if cache is None else cache.extend(present)
        seen = attend(query, [*past, itself], mask, self.dropout if self.training else 0.0)
        return self.out(seen.transpose(1, 2).flatten(2)), present

    def key_value(self, x: Tensor) -> KeyValue:
        """Keys and values only, for tokens whose own output nobody reads."""
        width = x.shape[-1]
        joined = F.linear(x, self.qkv.weight[width:], self.qkv.bias[width:])
        key, value = self._by_head(joined, 2)
        return KeyValue(key, value)

    def _by_head(self, joined: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(R, T, parts D) -> `parts` tensors of (R, H, T, d)"""
        return joined.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


class LayerCache:
    """The keys and values of a growing text in one layer.

    Its room doubles when it is full, so that a step copies little but its own token. It is for
    inference: it is written in place.
    """

    def __init__(self) -> None:
        self.length = 0
        self._room: tuple[Tensor, ...] = ()  # keys and values, each (R, H, room, d)

    def extend(self, new: KeyValue) -> KeyValue:
        """Write keys and values behind those already there, and return all of them."""
        end = self.length + new.key.shape[2]
        parts = (new.key, new.value)
        room = self._room or tuple(part[:, :, :0] for part in parts)
        if end > room[0].shape[2]:
            room = tuple(self._enlarged(part, 2 * end) for part in room)
        for whole, part in zip(room, parts, strict=True):
            whole[:, :, self.length : end] = part
        self._room, self.length = room, end
        key, value = (whole[:, :, :end] for whole in room)
        return KeyValue(key, value)

    def select(self, rows: Tensor) -> None:
        """Keep these rows (R',), in this order; a row may be taken twice."""
        self._room = tuple(whole[rows] for whole in self._room)

    def _enlarged(self, part: Tensor, size: int) -> Tensor:
        larger = part.new_empty(*part.shape[:2], size, part.shape[3])
        larger[:, :, : self.length] = part[:, :, : self.length]
        return larger


class KVCache:
    """A `LayerCache` for every layer; passed in, never kept in a module."""

    def __init__(self, n_layers: int) -> None:
        self.layers = [LayerCache() for _ in range(n_layers)]

    @property
    def length(self) -> int:
        """Tokens of the text so far."""
        return self.layers[0].length

    def select(self, rows: Tensor) -> None:
        """Keep these rows (R',), in this order; a row may be taken twice."""
        for layer in self.layers:
            layer.select(rows)
