"""The text decoder: BERT's layers, used as a prefix language model.

Image tokens never look at text, so what they become does not depend on it. `read` runs them through
the layers once and keeps each layer's keys and values; `forward` runs text tokens, which look at
those and at the text before them. The two together are one pass under `prefix_mask`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from git_model.attention import Attention, KeyValue, KVCache, LayerCache, prefix_mask
from git_model.config import DecoderConfig
from git_model.linear import linear
from git_model.mlp import MLP
from git_model.settings import GITError


class DecoderBlock(nn.Module):
    """A post-norm transformer block, as in BERT: transform, add, normalise."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.attn = Attention(config.width, config.heads, config.attention_dropout)
        self.attn_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, config.activation)
        self.mlp_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        past: Sequence[KeyValue] = (),
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """(R, T, D) -> (R, T, D) and the keys and values of x; arguments as in `Attention`."""
        seen, key_value = self.attn(x, past, mask, cache)
        x = self.attn_norm(x + self.dropout(seen))
        return self.mlp_norm(x + self.dropout(self.mlp(x))), key_value


class TextDecoder(nn.Module):
    """Token embeddings, the blocks, and the output layer."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.token = _embedding(config.vocab_size, config.width)
        self.position = _embedding(config.positions, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.embedding_norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.layers))
        self.output_weight = (
            None if config.tied else nn.Parameter(torch.empty(config.vocab_size, config.width))
        )
        self.output_bias = nn.Parameter(torch.empty(config.vocab_size))

    def read(self, visual: Tensor) -> tuple[KeyValue, ...]:
        """Projected image tokens (B, I, D) -> each layer's keys and values of them.

        The last layer's attention and MLP are left out: only text is read off there.
        """
        layers = []
        for block in self.blocks[:-1]:
            visual, key_value = block(visual)
            layers.append(key_value)
        last: DecoderBlock = self.blocks[-1]  # type: ignore[assignment]
        layers.append(last.attn.key_value(visual))
        # They stand in one tensor with the queries, so each product to come would copy them first.
        return tuple(KeyValue(one.key.contiguous(), one.value.contiguous()) for one in layers)

    def forward(
        self,
        tokens: Tensor,
        image: Sequence[KeyValue] = (),
        cache: KVCache | None = None,
        token_mask: Tensor | None = None,
    ) -> Tensor:
        """Hidden states (R, T, D) of text tokens (R, T), R a multiple of the number of images.

        Args:
            image: from `read`; empty for text without an image.
            cache: the text before these tokens; they are added to it.
            token_mask: (R, past + T), False for padding, in the past and in `tokens`. Padding is
                seen by nobody and takes no position, so it changes nothing wherever it stands.
        """
        past_length = 0 if cache is None else cache.length
        n_image = image[0].key.shape[2] if image else 0
        x = self.embed(tokens, past_length, token_mask)
        mask = self._mask(n_image, past_length, tokens, token_mask)
        for layer, block in enumerate(self.blocks):
            x, _ = block(
                x,
                past=[image[layer]] if image else [],
                mask=mask,
                cache=cache and cache.layers[layer],
            )
        return x

    def predict(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) -> logits of the next token (..., V)."""
        return linear(hidden, self.words, self.output_bias)

    @property
    def words(self) -> Tensor:
        """The output layer's weight (V, D)."""
        return self.token.weight if self.output_weight is None else self.output_weight

    def embed(self, tokens: Tensor, past_length: int, token_mask: Tensor | None) -> Tensor:
        """Token and position embeddings, added and normalised: (R, T) -> (R, T, D)."""
        if token_mask is None:
            total = past_length + tokens.shape[1]
            self._check_length(total)
            position = torch.arange(past_length, total, device=tokens.device)
        else:
            if past_length == 0:  # later a search counts, so that no step waits for the device
                self._check_length(int(token_mask.sum(1).max()))
            position = (token_mask.cumsum(1) - 1).clamp(min=0)[:, past_length:]
        return self.dropout(self.norm(self.token(tokens) + self.position(position)))

    def _check_length(self, n_tokens: int) -> None:
        if n_tokens > self.config.positions:
            raise GITError(
                f"text of {n_tokens} tokens is longer than the {self.config.positions} positions "
                "of this model: shorten the prompt or ask for fewer new tokens"
            )

    def _mask(
        self, n_image: int, past_length: int, tokens: Tensor, token_mask: Tensor | None
    ) -> Tensor | None:
        """The rows of `prefix_mask` for these tokens, less the padding; None if all is visible."""
        length = tokens.shape[1]
        if length == 1 and token_mask is None:
            return None
        n_text = past_length + length
        visible = prefix_mask(
            n_image, n_text, first_query=n_image + past_length, device=tokens.device
        )
        if token_mask is None:
            return visible
        real = F.pad(token_mask, (n_image, 0), value=True)[:, None]  # (R, 1, I + past + T)
        # Padding sees itself: its own result is never read, and no softmax is left without a key.
        itself = torch.eye(n_text, dtype=torch.bool, device=tokens.device)[past_length:]
        return ((visible & real) | F.pad(itself, (n_image, 0)))[:, None]  # (R, 1, T, I + past + T)


def _embedding(size: int, width: int) -> nn.Embedding:
    """A table without numbers, which `GIT.initialize` draws; `nn.Embedding` would do so, too."""
    return nn.Embedding.from_pretrained(torch.empty(size, width), freeze=False)
