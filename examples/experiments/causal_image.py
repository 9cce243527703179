"""Do image tokens need to attend to the image tokens after them?

    python examples/experiments/causal_image.py

In GIT image tokens attend to all image tokens, in the encoder and in the decoder. Here the mask of
the decoder is causal for them, too: an image token attends only to itself and those before it. The
encoder may have mixed the tokens well enough before; so both masks are also tried without its
layers.
"""

import torch
from lab import Variant, experiment
from torch import Tensor, nn

from git_model import GIT
from git_model.model.attention import KeyValue
from git_model.model.decoder import TextDecoder
from git_model.preprocessing.tokenizer import Tokenizer
from git_model.training.initialization import initial_model
from git_model.training.loop import Initializer
from git_model.training.recipe import Recipe


class CausalPrefillDecoder(TextDecoder):
    """A decoder whose image tokens attend only to themselves and to those before them."""

    def prefill(self, visual: Tensor) -> tuple[KeyValue, ...]:
        """As `TextDecoder.prefill`, under a causal mask."""
        n_image = visual.shape[1]
        mask = torch.ones(n_image, n_image, dtype=torch.bool, device=visual.device).tril()
        layers = []
        for block in self.blocks:
            visual, key_value = block(visual, mask=mask)
            layers.append(key_value)
        return tuple(layers)


def variant(*, causal: bool, encoder_layers: bool) -> Initializer:
    """The same random weights for all variants; some lack the encoder's layers."""

    def initializer(recipe: Recipe) -> tuple[GIT, Tokenizer]:
        model, tokenizer = initial_model(recipe)
        if causal:
            decoder = CausalPrefillDecoder(model.config.decoder)
            decoder.load_state_dict(model.decoder.state_dict())
            model.decoder = decoder
        if not encoder_layers:
            model.encoder.blocks = nn.ModuleList()
        return model, tokenizer

    return initializer


VARIANTS = [
    Variant("bidirectional", variant(causal=False, encoder_layers=True)),
    Variant("causal", variant(causal=True, encoder_layers=True)),
    Variant("bidirectional, no encoder layers", variant(causal=False, encoder_layers=False)),
    Variant("causal, no encoder layers", variant(causal=True, encoder_layers=False)),
]
main = experiment(__file__, VARIANTS)

if __name__ == "__main__":
    main()
