"""Three ways for a text to see an image, with equally many weights.

- prefix: GIT's. Image tokens go through the decoder's layers, and text attends to them and to the
  text before it in one self-attention.
- cross-attention: image tokens stay as the projector made them. After its self-attention a layer of
  the text attends to them with weights of its own.
- pooled queries: a few learned queries attend to the image tokens once, and their outputs take the
  image tokens' place in the prefix.

The MLPs of the other two are narrower, by as many weights as they have more elsewhere.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from lab import resized_model
from torch import Tensor, nn

from git_model import GIT
from git_model.config import DecoderConfig, GITConfig
from git_model.model.attention import Attention, KeyValue, LayerCache, attend
from git_model.model.git import Projector
from git_model.model.layers import MLP
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.initialization import initialize_by_width
from git_model.training.loop import Initializer
from git_model.training.recipe import Recipe

N_QUERIES = 4


class CrossAttention(nn.Module):
    """Multi-head attention from queries to the keys and values of other tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def keys(self, visual: Tensor) -> KeyValue:
        """The keys and values (B, H, I, d) of image tokens (B, I, D)."""
        key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.key_value(visual).chunk(2, dim=-1)
        )
        return KeyValue(key, value)

    def forward(self, x: Tensor, image: KeyValue) -> Tensor:
        """(R, T, D) -> (R, T, D)"""
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return self.out(attend(query, [image]).transpose(1, 2).flatten(2))


class CrossBlock(nn.Module):
    """A post-norm block: self-attention of the text, cross-attention to the image, MLP."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.attn = Attention(config.width, config.heads)
        self.attn_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.cross = CrossAttention(config.width, config.heads)
        self.cross_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, config.activation)
        self.mlp_norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(
        self,
        x: Tensor,
        past: Sequence[KeyValue] = (),
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
        *,
        need_output: bool = True,  # noqa: ARG002  (the image tokens pass through unchanged)
    ) -> tuple[Tensor, KeyValue]:
        """As `DecoderBlock`; without a past x are image tokens, which only give keys and values."""
        if not past:
            return x, self.cross.keys(x)
        [image] = past
        text_mask = None if mask is None else mask[..., image.key.shape[2] :]
        mixed, key_value = self.attn(x, (), text_mask, cache)
        x = self.attn_norm(x + mixed)
        x = self.cross_norm(x + self.cross(x, image))
        return self.mlp_norm(x + self.mlp(x)), key_value


class PoolingProjector(nn.Module):
    """The projector, and learned queries that attend to its tokens."""

    def __init__(self, config: GITConfig) -> None:
        super().__init__()
        width = config.decoder.width
        self.projector = Projector(config.encoder.width, width, config.encoder.norm_eps)
        self.queries = nn.Parameter(torch.randn(N_QUERIES, width))
        self.cross = CrossAttention(width, config.decoder.heads)
        self.norm = nn.LayerNorm(width, eps=config.decoder.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, encoder width) -> (B, N_QUERIES, D)"""
        visual = self.projector(x)
        queries = self.queries.expand(len(x), -1, -1)
        return self.norm(queries + self.cross(queries, self.cross.keys(visual)))


def with_mlp_width(width: int) -> Initializer:
    """The recipe's model with another width of the decoder's MLPs."""

    def change(config: GITConfig) -> GITConfig:
        return replace(config, decoder=replace(config.decoder, mlp_width=width))

    return resized_model(change)


def n_weights(module: nn.Module) -> int:
    """The number of a module's weights."""
    return sum(weight.numel() for weight in module.parameters())


def matched_width(config: GITConfig, n_extra: int) -> int:
    """The width of the decoder's MLPs that takes back `n_extra` weights, to the nearest."""
    per_unit = config.decoder.layers * (2 * config.decoder.width + 1)
    return config.decoder.mlp_width - round(n_extra / per_unit)


def cross_attention(recipe: Recipe) -> tuple[GIT, Tokenizer]:
    """A model whose decoder has cross-attention."""
    model, _ = with_mlp_width(1)(recipe)
    n_extra = sum(
        n_weights(CrossBlock(model.config.decoder)) - n_weights(block)
        for block in model.decoder.blocks
    )
    model, tokenizer = resized_model(lambda config: _narrower(config, n_extra))(recipe)
    blocks = [CrossBlock(model.config.decoder) for _ in model.decoder.blocks]
    model.decoder.blocks = nn.ModuleList(blocks)
    return _initialized(model), tokenizer


def pooled_queries(recipe: Recipe) -> tuple[GIT, Tokenizer]:
    """A model with N_QUERIES image tokens, which are pooled."""
    model, _ = with_mlp_width(1)(recipe)
    n_extra = n_weights(PoolingProjector(model.config)) - n_weights(model.projector)
    model, tokenizer = resized_model(lambda config: _narrower(config, n_extra))(recipe)
    model.projector = PoolingProjector(model.config)
    return _initialized(model), tokenizer


def _narrower(config: GITConfig, n_extra: int) -> GITConfig:
    width = matched_width(config, n_extra)
    return replace(config, decoder=replace(config.decoder, mlp_width=width))


def _initialized(model: GIT) -> GIT:
    """Initial weights as in every other arm; the queries keep the size of normalised tokens."""
    queries = getattr(model.projector, "queries", None)
    size = None if queries is None else queries.detach().clone()
    model.initialize()
    initialize_by_width(model)
    if queries is not None and size is not None:
        queries.data.copy_(size)
    return model
