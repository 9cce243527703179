"""Does a model need to be told which frame of a clip is which?

    python examples/experiments/temporal_embeddings.py

Attention does not know in which order its keys stand. Without temporal embeddings a clip is a bag
of frames: "moves left" and "moves right" are the same pictures.
"""

from lab import Variant, experiment
from torch import nn

from git_model import GIT
from git_model.recipe import Recipe
from git_model.start import start_of
from git_model.tokenizer import Tokenizer


def zeros(recipe: Recipe) -> tuple[GIT, Tokenizer]:
    """Random weights, but for the temporal embeddings."""
    model, words = start_of(recipe)
    nn.init.zeros_(model.temporal)
    return model, words


VARIANTS = [
    Variant("none (0 and frozen)", zeros, {"frozen": ("temporal",)}),
    Variant("learned from 0", zeros),
    Variant("learned from random numbers"),
]
main = experiment(__file__, VARIANTS)

if __name__ == "__main__":
    main()
