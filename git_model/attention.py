"""Who may look at whom (`prefix_mask`), and how they look (`Attention`).

Every attention in GIT is the same act: queries look at one or more *sources*, and a source is the
keys and values of some tokens. The encoder's tokens look at themselves. A text token looks at the
image, at the text before it, and at itself. A source may serve several rows at once: beams,
questions and class names all look at the one copy of their image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KeyValue = tuple[Tensor, Tensor]  # keys and values of one layer, each (B, H, S, D / H)


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
        sources: keys and values, each (B, H, S, d); B may differ from source to source, and R is
            a multiple of it: rows 0 to R/B - 1 look at the source's row 0, and so on.
        mask: True where a query may look; broadcasts to (R, H, T, S of all sources).
        dropout: probability that a weight is dropped.

    Returns:
        (R, H, T, d)
    """
    if len(sources) == 1 and sources[0][0].shape[0] == query.shape[0]:
        return F.scaled_dot_product_attention(query, *sources[0], mask, dropout)
    query = query * query.shape[-1] ** -0.5
    scores = torch.cat([_shared_matmul(query, key.mT) for key, _ in sources], dim=-1)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = F.dropout(scores.softmax(-1), dropout)
    parts = weights.split([key.shape[2] for key, _ in sources], dim=-1)
    mixed = [_shared_matmul(part, value) for part, (_, value) in zip(parts, sources, strict=True)]
    return torch.stack(mixed).sum(0)


def _shared_matmul(rows: Tensor, shared: Tensor) -> Tensor:
    """rows (R, H, T, x) @ shared (B, H, x, y) without repeating `shared` for its R / B rows."""
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
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, past: Sequence[KeyValue] = (), mask: Tensor | None = None
    ) -> tuple[Tensor, KeyValue]:
        """x looks at the sources in `past`, then at itself.

        Args:
            x: (R, T, D).
            past: keys and values from before, as in `attend`.
            mask: as in `attend`, over the keys of `past` and then of x.

        Returns:
            what x saw (R, T, D), and x's own keys and values for those who come later.
        """
        query, key, value = self._by_head(self.qkv(x), 3)
        dropout = self.dropout if self.training else 0.0
        seen = attend(query, [*past, (key, value)], mask, dropout)
        return self.out(seen.transpose(1, 2).flatten(2)), (key, value)

    def key_value(self, x: Tensor) -> KeyValue:
        """Keys and values only, for tokens whose own output nobody reads."""
        width = x.shape[-1]
        key, value = self._by_head(F.linear(x, self.qkv.weight[width:], self.qkv.bias[width:]), 2)
        return key, value

    def _by_head(self, joined: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(R, T, parts D) -> `parts` tensors of (R, H, T, d)"""
        return joined.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


class KVCache:
    """The keys and values of a growing text, for every layer; passed in, never kept in a module.

    Each layer takes room for `capacity` tokens at its first call, so that a step copies nothing but
    its own token. It is for inference: it is written in place.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0  # tokens that every layer has stored
        self._buffers: list[KeyValue] = []  # a layer's room: two of (R, H, capacity, d)

    def past(self, layer: int) -> list[KeyValue]:
        """What this layer remembers: a list of one source, or of none at the start."""
        if self.length == 0:
            return []
        key, value = self._buffers[layer]
        return [(key[:, :, : self.length], value[:, :, : self.length])]

    def store(self, layer: int, key_value: KeyValue) -> None:
        """Write this layer's keys and values (R, H, T, d) behind those already there."""
        end = self.length + key_value[0].shape[2]
        if end > self.capacity:
            raise ValueError(f"the cache has room for {self.capacity} tokens, {end} were given")
        if layer == len(self._buffers):
            key, value = (x.new_empty(*x.shape[:2], self.capacity, x.shape[3]) for x in key_value)
            self._buffers.append((key, value))
        for room, new in zip(self._buffers[layer], key_value, strict=True):
            room[:, :, self.length : end] = new

    def advance(self, n_tokens: int) -> None:
        """Count tokens that every layer has stored."""
        self.length += n_tokens

    def select(self, rows: Tensor) -> None:
        """Keep these rows (R',), in this order; a row may be taken twice."""
        self._buffers = [(key[rows], value[rows]) for key, value in self._buffers]
