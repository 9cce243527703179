"""Do more image tokens help? The same pictures, cut into smaller patches.

    python examples/experiments/image_tokens.py

Of 64 pixels a side, patches of 21 and of 9 leave the last one out.
"""

from dataclasses import replace

from lab import Variant, experiment, sized

from git_model.config import GITConfig
from git_model.training.loop import Start


def cut(patch_size: int) -> Start:
    """Patches of so many pixels a side; all else as in the recipe's model."""

    def change(config: GITConfig) -> GITConfig:
        return replace(config, encoder=replace(config.encoder, patch_size=patch_size))

    return sized(change)


# 21 pixels are a cell of the world's 3 x 3 grid, in which each thing stands.
VARIANTS = [
    Variant("5 tokens (patches of 32 pixels)", cut(32)),
    Variant("10 tokens (21 pixels)", cut(21)),
    Variant("17 tokens (16 pixels)", cut(16)),
    Variant("50 tokens (9 pixels)", cut(9)),
]
main = experiment(__file__, VARIANTS)

if __name__ == "__main__":
    main()
