"""Temporal embeddings beside a pretrained image encoder: random at first, or none.

Attention ignores the order of its keys. Without temporal embeddings a clip is a bag of frames:
"moves left" and "moves right" have the same frames.
"""

from encoder_start import pretrained_encoder
from torch import nn

from git_model import GIT
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.loop import Initializer
from git_model.training.recipe import Recipe

RANDOM = 0.3  # a size that is not negligible beside image tokens, see `initialize_by_width`


def temporal(std: float) -> Initializer:
    """A model with a pretrained encoder and temporal embeddings of this standard deviation. With 0
    there are none, if they are frozen."""

    def initializer(recipe: Recipe) -> tuple[GIT, Tokenizer]:
        model, tokenizer = pretrained_encoder(recipe)
        nn.init.normal_(model.temporal_embedding, std=std)
        return model, tokenizer

    return initializer
