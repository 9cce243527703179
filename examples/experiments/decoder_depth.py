"""How many layers does the decoder need?

    python examples/experiments/decoder_depth.py

In each layer text tokens look at the image, and image tokens at each other, once more.
"""

from dataclasses import replace

from lab import Variant, experiment, sized

from git_model.config import GITConfig
from git_model.training.loop import Start


def deep(layers: int) -> Start:
    """A decoder of so many layers; all else as in the recipe's model."""

    def change(config: GITConfig) -> GITConfig:
        return replace(config, decoder=replace(config.decoder, layers=layers))

    return sized(change)


VARIANTS = [
    Variant("1 layer", deep(1)),
    *(Variant(f"{layers} layers", deep(layers)) for layers in (2, 6)),
]
main = experiment(__file__, VARIANTS)

if __name__ == "__main__":
    main()
