"""The text decoder: BERT's layers, used as a prefix language model. Settings give its usual
variants: pre-norm blocks, RMSNorm, another mask among image tokens.

Image tokens never attend to text, so their keys and values do not depend on it. `prefill` runs the
image tokens through the layers once and keeps each layer's keys and values (the image prefix);
`forward` runs text tokens, which attend to the image prefix and to the text before them. Together
the two equal one pass under `prefix_mask`, which `one_pass` computes as the reference.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from git_model.config import DecoderConfig, NormPosition
from git_model.model.attention import Attention, KeyValue, KVCache, LayerCache, prefix_mask
from git_model.model.layers import MLP, NORMS, Linear
from git_model.utils.errors import GITError
from git_model.utils.kernels import drop_stale_copies


class DecoderBlock(nn.Module):
    """A post-norm transformer block, as in BERT: sublayer, residual connection, norm.

    A block of another kind may replace it in `TextDecoder.blocks`, because the decoder only calls
    it. Such a block needs the same signature, and returns keys and values (R, H, T, d).
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        norm = NORMS[config.norm_kind]
        self.attn = Attention(config.width, config.heads, config.attention_dropout)
        self.attn_norm = norm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, config.activation)
        self.mlp_norm = norm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        past: Sequence[KeyValue] = (),
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
        *,
        need_output: bool = True,
    ) -> tuple[Tensor | None, KeyValue]:
        """(R, T, D) -> (R, T, D), and the keys and values of x.

        Args:
            need_output: False to compute only the keys and values; the decoder then ignores the
                output, which may be None.
            past, mask, cache: as in `Attention`.
        """
        mixed, key_value = self.attn(x, past, mask, cache, need_output=need_output)
        if mixed is None:
            return None, key_value
        x = self.attn_norm(x + self.dropout(mixed))
        return self.mlp_norm(x + self.dropout(self.mlp(x))), key_value


class PreNormBlock(DecoderBlock):
    """A pre-norm block, as in GPT-2: norm, sublayer, residual connection."""

    def forward(
        self,
        x: Tensor,
        past: Sequence[KeyValue] = (),
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
        *,
        need_output: bool = True,
    ) -> tuple[Tensor | None, KeyValue]:
        """As `DecoderBlock.forward`."""
        normed = self.attn_norm(x)
        mixed, key_value = self.attn(normed, past, mask, cache, need_output=need_output)
        if mixed is None:
            return None, key_value
        x = x + self.dropout(mixed)
        return x + self.dropout(self.mlp(self.mlp_norm(x))), key_value


BLOCKS: dict[NormPosition, type[DecoderBlock]] = {"post": DecoderBlock, "pre": PreNormBlock}


class TextDecoder(nn.Module):
    """Token and position embeddings, the blocks, and the output layer `lm_head`."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = _embedding(config.vocab_size, config.width)
        self.position_embedding = _embedding(config.positions, config.width)
        norm, block = NORMS[config.norm_kind], BLOCKS[config.norm]
        self.embedding_norm = norm(config.width, eps=config.embedding_norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(block(config) for _ in range(config.layers))
        # Post-norm blocks end with a norm; pre-norm blocks need one more norm after the last block.
        self.final_norm = (
            norm(config.width, eps=config.norm_eps) if config.norm == "pre" else nn.Identity()
        )
        self.lm_head = Linear(config.width, config.vocab_size)  # hidden states -> logits
        self.tie_weights()

    def tie_weights(self) -> None:
        """Let the output layer of a tied model share the token embedding's weight."""
        if self.config.tied:
            self.lm_head.weight = self.token_embedding.weight

    def prefill(self, visual: Tensor) -> tuple[KeyValue, ...]:
        """Projected image tokens (B, I, D) -> the image prefix: keys and values of every layer.

        The last block computes only keys and values, because its output for image tokens is unused.
        """
        drop_stale_copies(self)
        layers, mask = [], self._image_mask(visual.shape[1], visual.device)
        for number, block in enumerate(self.blocks, 1):
            visual, key_value = block(visual, mask=mask, need_output=number < len(self.blocks))
            layers.append(key_value)
        # Keys and values are views of the fused projection: copied here once, not at every step.
        return tuple(KeyValue(kv.key.contiguous(), kv.value.contiguous()) for kv in layers)

    def forward(
        self,
        tokens: Tensor,
        image: Sequence[KeyValue] = (),
        cache: KVCache | None = None,
        token_mask: Tensor | None = None,
    ) -> Tensor:
        """Hidden states (R, T, D) of text tokens (R, T); R is a multiple of the number of images.

        Args:
            image: from `prefill`; empty for text without an image.
            cache: the text before these tokens; they are appended to it.
            token_mask: (R, past + T), False for padding, in the past and in `tokens`. No token
                attends to padding, and padding has no position, so it does not change a result.

        Raises:
            GITError: as in `embed`.
        """
        past_length = 0 if cache is None else cache.length
        if past_length == 0:
            drop_stale_copies(self)
        n_image = image[0].key.shape[2] if image else 0
        x = self.embed(tokens, past_length, token_mask)
        mask = self._mask(n_image, past_length, tokens, token_mask)
        for layer, block in enumerate(self.blocks):
            x, _ = block(
                x,
                past=[image[layer]] if image else [],
                mask=mask,
                cache=None if cache is None else cache.layers[layer],
            )
        return self.final_norm(x)

    def one_pass(self, visual: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """The hidden states (B, T, D) of `forward`, by the definition: image and text in one pass.

        Args:
            visual: projected image tokens (B, I, D).
            tokens: (B, T).
            mask: (I + T, I + T), True where a token may attend; by default `prefix_mask` of the
                configuration's kind.
        """
        n_image, n_text = visual.shape[1], tokens.shape[1]
        if mask is None:
            mask = prefix_mask(n_image, n_text, self.config.mask, device=visual.device)
        x = torch.cat([visual, self.embed(tokens)], dim=1)  # (B, I + T, D)
        for block in self.blocks:
            x, _ = block(x, mask=mask)
        return self.final_norm(x[:, n_image:])

    def embed(
        self, tokens: Tensor, past_length: int = 0, token_mask: Tensor | None = None
    ) -> Tensor:
        """Token and position embeddings, added and normalised: (R, T) -> (R, T, D).

        Raises:
            GITError: the text is longer than the model's positions.
        """
        if token_mask is None:
            total = past_length + tokens.shape[1]
            self.check_length(total)
            position = torch.arange(past_length, total, device=tokens.device)
        else:
            if past_length == 0:  # `Session` counts later steps: a check here would wait for a GPU
                self.check_length(int(token_mask.sum(1).max()))
            position = (token_mask.cumsum(1) - 1).clamp(min=0)[:, past_length:]
        embedded = self.token_embedding(tokens) + self.position_embedding(position)
        return self.dropout(self.embedding_norm(embedded))

    def check_length(self, n_tokens: int) -> None:
        """Refuse a text of `n_tokens` tokens if the model has fewer positions."""
        if n_tokens > self.config.positions:
            raise GITError(
                f"text of {n_tokens} tokens is longer than the {self.config.positions} positions "
                "of this model: shorten the prompt or ask for fewer new tokens"
            )

    def _image_mask(self, n_image: int, device: torch.device) -> Tensor | None:
        """(I, I), True where an image token may attend to another; None: everywhere."""
        kind = self.config.mask
        return None if kind == "prefix" else prefix_mask(n_image, 0, kind, device=device)

    def _mask(
        self, n_image: int, past_length: int, tokens: Tensor, token_mask: Tensor | None
    ) -> Tensor | None:
        """The rows of `prefix_mask` for these tokens, without the padding; None if nothing is
        masked."""
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
        # Padding attends to itself, so that its softmax has a key; its output is never used.
        itself = torch.eye(n_text, dtype=torch.bool, device=tokens.device)[past_length:]
        return ((visible & real) | F.pad(itself, (n_image, 0)))[:, None]  # (R, 1, T, I + past + T)


def _embedding(size: int, width: int) -> nn.Embedding:
    """An embedding without values: `GIT.initialize` draws them."""
    return nn.Embedding.from_pretrained(torch.empty(size, width), freeze=False)
