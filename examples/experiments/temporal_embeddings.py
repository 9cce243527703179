"""Does a model need to be told which frame of a clip is which?

    python examples/experiments/temporal_embeddings.py

Attention does not know in which order its keys stand. Without temporal embeddings a clip is a bag
of frames: "moves left" and "moves right" are the same pictures. The encoder is the built-in
model's, frozen, so that the run is about how frames are read together.
"""

from encoder_start import learned
from lab import Variant, experiment
from torch import nn

from git_model import GIT
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.recipe import Recipe


def untold(recipe: Recipe) -> tuple[GIT, Tokenizer]:
    """Temporal embeddings that say nothing."""
    model, words = learned(recipe)
    nn.init.zeros_(model.temporal_embedding)
    return model, words


VARIANTS = [
    Variant("none", untold, {"frozen": ("encoder", "temporal_embedding")}),
    Variant("learned", learned),
]
main = experiment(__file__, VARIANTS)

if __name__ == "__main__":
    main()
