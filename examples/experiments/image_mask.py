"""Which image tokens an image token of the decoder attends to: all, those before it, or itself.

The mask may change after training, without a change of the weights: a model that was trained with
one can be tested with another.
"""

from typing import Literal, get_args

import torch
from lab import exact_texts, measure
from torch import Tensor

from git_model import GIT, Captioner
from git_model.data.example import Source
from git_model.model.attention import KeyValue
from git_model.model.decoder import TextDecoder
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.initialization import initial_model
from git_model.training.loop import Initializer
from git_model.training.recipe import Recipe

ImageMask = Literal["bidirectional", "causal", "self only"]
MASKS: tuple[ImageMask, ...] = get_args(ImageMask)


def image_mask(n_image: int, kind: ImageMask) -> Tensor:
    """(I, I), True where an image token may attend.

    >>> image_mask(2, "causal").int().tolist()
    [[1, 0], [1, 1]]
    """
    every = torch.ones(n_image, n_image, dtype=torch.bool)
    return {"bidirectional": every, "causal": every.tril(), "self only": every.tril().triu()}[kind]


class MaskedDecoder(TextDecoder):
    """A decoder whose image tokens attend to each other under `image_mask`."""

    kind: ImageMask = "bidirectional"

    def prefill(self, visual: Tensor) -> tuple[KeyValue, ...]:
        """As `TextDecoder.prefill`, under the mask."""
        mask = image_mask(visual.shape[1], self.kind).to(visual.device)
        layers = []
        for block in self.blocks:
            visual, key_value = block(visual, mask=mask)
            layers.append(key_value)
        return tuple(layers)


def with_mask(kind: ImageMask, initializer: Initializer = initial_model) -> Initializer:
    """An initializer's model with this mask; the same weights for every mask."""

    def initialize(recipe: Recipe) -> tuple[GIT, Tokenizer]:
        model, tokenizer = initializer(recipe)
        decoder = MaskedDecoder(model.config.decoder)
        decoder.load_state_dict(model.decoder.state_dict())
        decoder.kind = kind
        model.decoder = decoder
        return model, tokenizer

    return initialize


def scores_under_masks(captioner: Captioner, source: Source) -> dict[str, float]:
    """The scores under the mask of the training, and the texts exactly right under each mask."""
    decoder = captioner.model.decoder
    trained = decoder.kind
    scores = measure(captioner, source)
    for kind in MASKS:
        decoder.kind = kind
        exact = scores["exact"] if kind == trained else exact_texts(captioner, source)
        scores[f"exact, tested {kind}"] = exact
    decoder.kind = trained
    return scores
