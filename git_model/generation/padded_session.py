"""Texts in progress on a step that is a pure function of tensors: a graph in another engine, or
compiled code. Every image has equally many texts in it, so that its inputs are plain tensors.

Letters in shapes: B images, N texts of each image, T new tokens, S tokens before, I image tokens,
L layers, H heads, d = width / H, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from git_model.generation.session import slots_of
from git_model.model.attention import KeyValue, KVCache, PureLayerCache
from git_model.model.decoder import TextDecoder
from git_model.model.git import Scene
from git_model.utils.errors import GITError


class StepFunction(Protocol):
    """Appends tokens to N texts of each of B images."""

    def __call__(
        self, tokens: Tensor, token_mask: Tensor, image: Sequence[KeyValue], past: Tensor
    ) -> tuple[Tensor, Tensor]:
        """tokens (B, N, T) int64; token_mask (B, N, S + T) bool, False for padding, in the past and
        in `tokens`; image, the layers of a scene; past, the texts' keys and values so far, (L, 2,
        B, N, H, 0, d) at first and then what the last call returned -> logits (B, N, V) of the
        token after the last, and the past of the next call."""


class PaddedSession:
    """Texts in progress: a `TextSession`. An image with fewer rows left than another gets idle
    texts, whose results are left out.

    Args:
        scene: the images.
        check_length: refuses a number of tokens that is more than the model's positions.
        keeps_shape: keep idle texts and images until half of them are idle. Then a step has few
            different shapes, and texts that end cost no copy.
    """

    def __init__(
        self,
        step: StepFunction,
        scene: Scene,
        check_length: Callable[[int], None],
        *,
        keeps_shape: bool = False,
    ) -> None:
        self._step = step
        self._scene = scene
        self._check_length = check_length
        self._keeps_shape = keeps_shape
        key = scene.layers[0].key[:, None, :, :0]  # (B, 1, H, 0, d)
        self._past = key.expand(len(scene.layers), 2, *key.shape)  # (L, 2, B, N, H, S, d)
        self._mask = torch.zeros(0, 0, dtype=torch.bool)  # (B N, S)
        self._slots: list[int] = []  # of each row, among the B N texts of the step
        self._lengths: list[int] = []  # of each row's text, without padding

    def step(self, tokens: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """Append tokens (R, T) and return the logits (R, V) of the token after the last of them.

        Args:
            token_mask: (R, T), False for padding; for the first step only.

        Raises:
            GITError: the text is longer than the model's positions, or a later step has a mask.
        """
        if not self._slots:
            self._start(len(tokens))
        elif token_mask is not None:
            raise GITError("a token mask came after the first step, expected it at the first")
        mask = torch.ones_like(tokens, dtype=torch.bool) if token_mask is None else token_mask
        new = [tokens.shape[1]] * len(tokens) if token_mask is None else mask.sum(1).tolist()
        self._lengths = [n + more for n, more in zip(self._lengths, new, strict=True)]
        self._check_length(max(self._lengths))
        shape = self._past.shape[2:4]
        self._mask = torch.cat([self._mask, self._filled(mask)], dim=1)
        logits, self._past = self._step(
            self._filled(tokens).unflatten(0, shape),
            self._mask.unflatten(0, shape),
            self._scene.layers,
            self._past,
        )
        return logits.flatten(0, 1)[self._slots]

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be taken twice. An image without a row is
        dropped."""
        if list(rows) == list(range(len(self._slots))):
            return
        n_images, n_texts = self._past.shape[2:4]
        old_slots = [self._slots[row] for row in rows]
        images = sorted({slot // n_texts for slot in old_slots})
        if self._keeps_shape and 2 * len(images) > n_images:
            images = list(range(n_images))
        image_of = [images.index(slot // n_texts) for slot in old_slots]
        self._slots, width = slots_of(image_of, n_texts if self._keeps_shape else 1)
        source = [  # idle: any text of the image
            image * n_texts + min(text, n_texts - 1) for image in images for text in range(width)
        ]
        for slot, old_slot in zip(self._slots, old_slots, strict=True):
            source[slot] = old_slot
        self._lengths = [self._lengths[row] for row in rows]
        if source == list(range(n_images * n_texts)):
            return
        self._mask = self._mask[source]
        self._past = self._past.flatten(2, 3)[:, :, source].unflatten(2, (len(images), width))
        self._scene = self._scene.select(images)

    def _start(self, n_rows: int) -> None:
        self._scene.layers_for(n_rows)  # an error if an image had more texts than another
        n_texts = n_rows // len(self._scene)
        self._past = self._past.expand(-1, -1, -1, n_texts, -1, -1, -1)
        self._mask = torch.zeros(n_rows, 0, dtype=torch.bool, device=self._past.device)
        self._slots, self._lengths = list(range(n_rows)), [0] * n_rows

    def _filled(self, rows: Tensor) -> Tensor:
        """Values of the rows (R, T) for all texts of the step. Idle texts get 0, or padding."""
        n_slots = len(self._mask)
        if self._slots == list(range(n_slots)):
            return rows
        index = torch.tensor(self._slots, device=rows.device)
        return rows.new_zeros(n_slots, rows.shape[1]).index_copy(0, index, rows)


def pure_step(
    decoder: TextDecoder,
    tokens: Tensor,
    token_mask: Tensor,
    image: Sequence[KeyValue],
    past: Tensor,
) -> tuple[Tensor, Tensor]:
    """A `StepFunction` on a decoder: the logits (B, N, V) of the next token, and the past with the
    keys and values of `tokens`, (L, 2, B, N, H, S + T, d). No tensor is written to."""
    n_images, n_texts, _ = tokens.shape
    pairs = past.flatten(2, 3).unbind(0)
    layers = [PureLayerCache(KeyValue(pair[0], pair[1])) for pair in pairs]
    cache = KVCache(0)
    cache.layers = [*layers]
    prefix = [layer._replace(rows_per_image=n_texts) for layer in image]
    hidden = decoder(tokens.flatten(0, 1), prefix, cache, token_mask.flatten(0, 1))
    logits = decoder.lm_head(hidden[:, -1])
    present = torch.stack([torch.stack(layer.text[:2]) for layer in layers])
    return logits.unflatten(0, (n_images, n_texts)), present.unflatten(2, (n_images, n_texts))


def flat(layers: Sequence[KeyValue]) -> list[Tensor]:
    """The keys and the values (B, H, I, d) of each layer, one after the other."""
    return [tensor for layer in layers for tensor in layer[:2]]


def layers_of(tensors: Sequence[Tensor]) -> tuple[KeyValue, ...]:
    """The layers of `flat`."""
    return tuple(map(KeyValue, tensors[::2], tensors[1::2]))
