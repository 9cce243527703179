"""From examples to batches: images and texts in, tensors out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from git_model.config import GITConfig
from git_model.preprocess import preprocess_batch
from git_model.shapes import describe, draw, make_world
from git_model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Example:
    """An image and the text that belongs to it."""

    image: Image.Image
    text: str


@dataclass(frozen=True)
class Batch:
    """What the model is trained on in one step."""

    pixels: Tensor  # (B, 3, H, W)
    tokens: Tensor  # (B, T): start, text, end, padding
    mask: Tensor  # (B, T): True for the tokens to predict, which are text and end

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        return Batch(self.pixels.to(device), self.tokens.to(device), self.mask.to(device))


def collate(examples: Sequence[Example], tokenizer: Tokenizer, config: GITConfig) -> Batch:
    """Examples as one batch, as long as its longest text.

    Padding stands on the right, where no real token looks, so the model needs no mask for it.
    """
    texts = [tokenizer.encode(example.text) for example in examples]
    length = 2 + max(map(len, texts))
    rows = [
        [config.bos_id, *text, config.eos_id] + [config.pad_id] * (length - 2 - len(text))
        for text in texts
    ]
    ends = torch.tensor([[2 + len(text)] for text in texts])
    position = torch.arange(length)
    return Batch(
        pixels=preprocess_batch([example.image for example in examples], config.preprocess),
        tokens=torch.tensor(rows),
        mask=(position > 0) & (position < ends),
    )


def world_batch(
    numbers: Iterable[int], tokenizer: Tokenizer, config: GITConfig, *, held_out: bool = False
) -> Batch:
    """The worlds of these numbers, drawn and described."""
    worlds = [make_world(number, held_out=held_out) for number in numbers]
    return collate([Example(draw(w), describe(w)) for w in worlds], tokenizer, config)
