"""How many layers does the decoder need?

    python examples/experiments/decoder_depth.py

In each layer text tokens attend to the image, and image tokens to each other, once more.
"""

from dataclasses import replace

from lab import Variant, experiment, resized_model

from git_model.config import GITConfig
from git_model.training.loop import Initializer


def with_layers(layers: int) -> Initializer:
    """A decoder of this many layers; all else as in the recipe's model."""

    def change(config: GITConfig) -> GITConfig:
        return replace(config, decoder=replace(config.decoder, layers=layers))

    return resized_model(change)


VARIANTS = [
    Variant("1 layer", with_layers(1)),
    *(Variant(f"{layers} layers", with_layers(layers)) for layers in (2, 6)),
]
main = experiment(__file__, VARIANTS)

if __name__ == "__main__":
    main()
