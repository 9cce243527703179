"""Do more image tokens help? The same images, cut into smaller patches.

    python examples/experiments/image_tokens.py

An image has 64 x 64 pixels; patches of 21 and of 9 leave out the last row and column.
"""

from dataclasses import replace

from lab import Variant, experiment, resized_model

from git_model.config import GITConfig
from git_model.training.loop import Initializer


def with_patches(patch_size: int) -> Initializer:
    """Patches of this many pixels a side; all else as in the recipe's model."""

    def change(config: GITConfig) -> GITConfig:
        return replace(config, encoder=replace(config.encoder, patch_size=patch_size))

    return resized_model(change)


# 21 pixels are a cell of the world's 3 x 3 grid; every thing lies in a cell.
VARIANTS = [
    Variant("5 tokens (patches of 32 pixels)", with_patches(32)),
    Variant("10 tokens (21 pixels)", with_patches(21)),
    Variant("17 tokens (16 pixels)", with_patches(16)),
    Variant("50 tokens (9 pixels)", with_patches(9)),
]
main = experiment(__file__, VARIANTS)

if __name__ == "__main__":
    main()
