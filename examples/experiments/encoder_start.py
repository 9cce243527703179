"""Does the image encoder need to learn, if it has learned before?

    python examples/experiments/encoder_start.py

The encoder that has learned is the built-in model's; projector and decoder start from random
weights each time.
"""

from lab import Variant, experiment

from git_model import GIT
from git_model.checkpoints.loading import open_model
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.initialization import start_of
from git_model.training.recipe import Recipe


def learned(recipe: Recipe) -> tuple[GIT, Tokenizer]:
    """Random weights, but for the encoder."""
    model, words = start_of(recipe)
    model.encoder.load_state_dict(open_model("demo")[0].encoder.state_dict())
    return model, words


VARIANTS = [
    Variant("from scratch"),
    Variant("learned before, frozen", learned, {"frozen": ("encoder",)}),
    Variant("learned before, learns on", learned),
    Variant("learned before, learns on at a fifth of the rate", learned, {"encoder_lr": 2e-4}),
]
main = experiment(__file__, VARIANTS)

if __name__ == "__main__":
    main()
