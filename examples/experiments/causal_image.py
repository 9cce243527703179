"""Do image tokens need to look at the image tokens after them?

    python examples/experiments/causal_image.py

In GIT they look at each other freely, in the encoder and in the decoder. Here the decoder's half of
that is taken away: each image token looks only at those before it, as text tokens do. The encoder
may have mixed them well enough before; so both ways are tried without its layers, too.
"""

import torch
from lab import Variant, experiment
from torch import Tensor, nn

from git_model import GIT
from git_model.model.attention import KeyValue
from git_model.model.decoder import TextDecoder
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.initialization import start_of
from git_model.training.loop import Start
from git_model.training.recipe import Recipe


class CausalReader(TextDecoder):
    """A decoder whose image tokens look only at those before them, and at themselves."""

    def read(self, visual: Tensor) -> tuple[KeyValue, ...]:
        """As `TextDecoder.read`, under a causal mask."""
        n_image = visual.shape[1]
        mask = torch.ones(n_image, n_image, dtype=torch.bool, device=visual.device).tril()
        layers = []
        for block in self.blocks:
            visual, key_value = block(visual, mask=mask)
            layers.append(key_value)
        return tuple(layers)


def start(*, causal: bool, mixed: bool) -> Start:
    """The same random weights for all variants, of which some parts are left out."""

    def made(recipe: Recipe) -> tuple[GIT, Tokenizer]:
        model, words = start_of(recipe)
        if causal:
            reader = CausalReader(model.config.decoder)
            reader.load_state_dict(model.decoder.state_dict())
            model.decoder = reader
        if not mixed:
            model.encoder.blocks = nn.ModuleList()
        return model, words

    return made


VARIANTS = [
    Variant("bidirectional", start(causal=False, mixed=True)),
    Variant("causal", start(causal=True, mixed=True)),
    Variant("bidirectional, no encoder layers", start(causal=False, mixed=False)),
    Variant("causal, no encoder layers", start(causal=True, mixed=False)),
]
main = experiment(__file__, VARIANTS)

if __name__ == "__main__":
    main()
