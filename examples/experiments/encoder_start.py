"""Does a pretrained image encoder need to be trained?

    python examples/experiments/encoder_start.py

The pretrained encoder is the built-in model's; projector and decoder start from random weights in
every run.
"""

from lab import Variant, experiment

from git_model import GIT
from git_model.checkpoints.loading import open_model
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.initialization import initial_model
from git_model.training.loop import Initializer
from git_model.training.recipe import Recipe


def with_pretrained_encoder(initializer: Initializer = initial_model) -> Initializer:
    """An initializer's model with the built-in model's encoder."""

    def initialize(recipe: Recipe) -> tuple[GIT, Tokenizer]:
        model, tokenizer = initializer(recipe)
        model.encoder.load_state_dict(open_model("demo")[0].encoder.state_dict())
        return model, tokenizer

    return initialize


pretrained_encoder = with_pretrained_encoder()  # random weights, except for the encoder

VARIANTS = [
    Variant("from scratch"),
    Variant("pretrained, frozen", pretrained_encoder, {"frozen": ("encoder",)}),
    Variant("pretrained, fine-tuned", pretrained_encoder),
    Variant(
        "pretrained, fine-tuned at a fifth of the rate", pretrained_encoder, {"encoder_lr": 2e-4}
    ),
]
main = experiment(__file__, VARIANTS)

if __name__ == "__main__":
    main()
