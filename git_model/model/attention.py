"""Multi-head attention under the prefix mask, and the KV cache.

Self-attention in GIT reads keys and values from one or more *sources*: the image prefix, the text
before, the tokens themselves. Several rows may use one source: all beams, questions and class names
attend to the same copy of their image's keys and values.

Letters in shapes: B images (or clips), R rows of text, F frames, N patches, I image tokens, T text
tokens, S tokens of a source, H heads, D width, d = D / H, V vocabulary. R is a multiple of B.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from git_model.config import Mask
from git_model.model.layers import Linear


@dataclass(frozen=True)
class Slots:
    """The positions of R query rows in a batch that is padded to equally many rows per image.

    The texts of one image may end at different times, so images may have different numbers of rows
    left; a matrix product with the image prefix then runs over the padded batch.
    """

    index: Tensor  # (R,): the padded row of each row
    count: int  # padded rows of all images together


class KeyValue(NamedTuple):
    """The keys and values of some tokens in one layer."""

    key: Tensor  # (B, H, S, d)
    value: Tensor  # (B, H, S, d)
    slots: Slots | None = None  # None: R is a multiple of B, equally many rows per image
    # Query rows of each image. None: R / B; a number makes an export with free sizes much faster.
    rows_per_image: int | None = None


def prefix_mask(
    n_image: int,
    n_text: int,
    kind: Mask = "prefix",
    *,
    first_query: int = 0,
    device: torch.device | None = None,
) -> Tensor:
    """(queries, keys): True where a token may attend. Text attends to the image and its own past,
    image tokens attend to the image.

    >>> prefix_mask(2, 2).int().tolist()
    [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]

    Args:
        kind: what an image token attends to. `prefix`: all image tokens (GIT); for experiments also
            `causal`: itself and the image tokens before it; `isolated`: itself only.
        first_query: leave out the queries before this one, whose outputs are not needed.

    Source: paper, section 3.1 and its figure of the "seq2seq attention mask";
    `BertEncoderAsDecoder` in the original's decoder.py.
    """
    key = torch.arange(n_image + n_text, device=device)
    query = key[first_query:, None]
    past = key <= query
    if kind == "prefix":
        return (key < n_image) | past
    return past if kind == "causal" else past & ((query >= n_image) | (key == query))


def attend(
    query: Tensor, sources: Sequence[KeyValue], mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V over the tokens of all sources together.

    Args:
        query: (R, H, T, d).
        sources: B may differ from source to source. Without `slots`, R is a multiple of B, and each
            R/B consecutive query rows attend to one row of the source. With `slots`, these give the
            position of each query row in the padded batch.
        mask: True where a query may attend; broadcasts to (R, H, T, S of all sources).
        dropout: probability that an attention weight is dropped.

    Returns:
        (R, H, T, d)
    """
    if len(sources) == 1 and sources[0].slots is None and _prefers_fused(query, sources[0].key):
        key, value = sources[0][:2]
        return F.scaled_dot_product_attention(query, key, value, mask, dropout)
    query = query * query.shape[-1] ** -0.5
    parts = [_matmul(query, source.key.mT, source) for source in sources]
    scores = (
        parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
    )  # torch.cat copies even a single tensor
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1)  # (R, H, T, S of all sources)
    if dropout > 0:
        weights = F.dropout(weights, dropout)
    shares = weights.split([source.key.shape[2] for source in sources], dim=-1)
    mixed = [_matmul(w, source.value, source) for w, source in zip(shares, sources, strict=True)]
    return reduce(torch.add, mixed)


def _prefers_fused(query: Tensor, key: Tensor) -> bool:
    """Whether torch's fused kernel applies and is faster than the same formula step by step; the
    two differ by rounding. On a CPU it is faster only for several images in float32; for one image,
    or in bfloat16, it takes twice as long."""
    if torch.compiler.is_compiling():
        return False  # the formula in steps does not specialise a graph on the batch size
    if query.shape[0] != key.shape[0]:
        return False
    return query.device.type != "cpu" or (query.dtype == torch.float32 and query.shape[0] > 1)


def _matmul(rows: Tensor, shared: Tensor, source: KeyValue) -> Tensor:
    """rows (R, H, T, x) @ shared (B, H, x, y), without repeating `shared` for its rows.

    Args:
        source: where `shared` comes from.
    """
    if source.slots is not None:
        slots = source.slots
        filled = rows.new_zeros(slots.count, *rows.shape[1:]).index_copy(0, slots.index, rows)
        return _matmul(filled, shared, source._replace(slots=None))[slots.index]
    n_images, n_rows = shared.shape[0], source.rows_per_image
    if n_rows is None:
        n_rows = rows.shape[0] // n_images
    if isinstance(n_rows, int) and n_rows == 1:  # a free size of a graph is not an int
        return rows @ shared  # equal to the product below, without reshaping
    length = rows.shape[2]
    grouped = rows.unflatten(0, (n_images, n_rows))  # (B, n, H, T, x)
    grouped = grouped.transpose(1, 2).flatten(2, 3)  # (B, H, n T, x)
    product = (grouped @ shared).unflatten(2, (n_rows, length))  # (B, H, n, T, y)
    return product.transpose(1, 2).flatten(0, 1)  # (R, H, T, y)


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
        *,
        need_output: bool = True,
    ) -> tuple[Tensor | None, KeyValue]:
        """x attends to the sources in `past`, then to itself.

        Args:
            x: (R, T, D).
            past: keys and values from before, as in `attend`.
            mask: as in `attend`, over the keys of `past` and then of x.
            cache: the text before x; the keys and values of x are appended to it.
            need_output: False to compute only the keys and values; the output is then None, and
                `cache` stays as it is.

        Returns:
            the output (R, T, D) or None, and the keys and values of x.
        """
        query, key, value = self.split(self.qkv(x))
        present = KeyValue(key, value, rows_per_image=1)
        if not need_output:
            return None, present
        text = present if cache is None else cache.extend(present)
        mixed = attend(query, [*past, text], mask, self.dropout if self.training else 0.0)
        return self.out(mixed.transpose(1, 2).flatten(2)), present

    def split(self, qkv: Tensor) -> tuple[Tensor, ...]:
        """(R, T, 3 D) -> query, key and value by head, each (R, H, T, d)."""
        return qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


class LayerCache:
    """The keys and values of a growing text in one layer.

    The buffer doubles when it is full, so appending a token rarely copies the past. The class is
    for inference only, because it writes in place.
    """

    def __init__(self) -> None:
        self.length = 0
        self._buffer: tuple[Tensor, ...] = ()  # keys and values, each (R, H, capacity, d)

    def extend(self, new: KeyValue) -> KeyValue:
        """Append keys and values, and return all of them."""
        end = self.length + new.key.shape[2]
        parts = (new.key, new.value)
        buffer = self._buffer or tuple(part[:, :, :0] for part in parts)
        if end > buffer[0].shape[2]:
            buffer = tuple(self._enlarged(part, 2 * end) for part in buffer)
        for whole, part in zip(buffer, parts, strict=True):
            whole[:, :, self.length : end] = part
        self._buffer, self.length = buffer, end
        key, value = (whole[:, :, :end] for whole in buffer)
        return KeyValue(key, value, rows_per_image=1)

    def select(self, rows: Tensor) -> None:
        """Keep these rows (R',), in this order; a row may be taken twice."""
        self._buffer = tuple(whole[rows] for whole in self._buffer)

    def _enlarged(self, part: Tensor, capacity: int) -> Tensor:
        larger = part.new_empty(*part.shape[:2], capacity, part.shape[3])
        larger[:, :, : self.length] = part[:, :, : self.length]
        return larger


class PureLayerCache(LayerCache):
    """A cache that makes a new tensor at each step, for graphs; the usual one writes in place."""

    def __init__(self, past: KeyValue) -> None:
        super().__init__()
        self.text, self.length = past, past.key.shape[2]

    def extend(self, new: KeyValue) -> KeyValue:
        """Append keys and values, and return all of them."""
        self.text = KeyValue(
            torch.cat([self.text.key, new.key], dim=2),
            torch.cat([self.text.value, new.value], dim=2),
            rows_per_image=1,
        )
        return self.text


class KVCache:
    """A `LayerCache` for every layer. It is an argument of `forward`; no module keeps one."""

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
