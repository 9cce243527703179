"""Does a model need temporal embeddings?

    python examples/experiments/temporal_embeddings.py

Attention ignores the order of its keys. Without temporal embeddings a clip is a bag of frames:
"moves left" and "moves right" have the same frames. The encoder is the built-in model's, frozen, so
that only the part that combines frames is trained.
"""

from encoder_start import pretrained_encoder
from lab import Variant, experiment
from torch import nn

from git_model import GIT
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.recipe import Recipe


def zero_temporal(recipe: Recipe) -> tuple[GIT, Tokenizer]:
    """Temporal embeddings of 0."""
    model, tokenizer = pretrained_encoder(recipe)
    nn.init.zeros_(model.temporal_embedding)
    return model, tokenizer


VARIANTS = [
    Variant("none", zero_temporal, {"frozen": ("encoder", "temporal_embedding")}),
    Variant("learned", pretrained_encoder),
]
main = experiment(__file__, VARIANTS)

if __name__ == "__main__":
    main()
