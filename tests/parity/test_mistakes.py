"""The proof that parity bites: each deliberate mistake moves the logits by more than ten
tolerances, so a test that passes has seen that the mistake is not there."""

from collections.abc import Callable

import pytest
import torch
from parity_models import ModelPair, make_pair
from torch import Tensor, nn
from torch.nn import functional as F

from git_model.model.attention import prefix_mask
from git_model.model.decoder import DecoderBlock
from git_model.model.layers import MLP, quick_gelu

TOLERANCE = 1e-10


@pytest.fixture
def pair() -> ModelPair:
    return make_pair(
        21,
        num_hidden_layers=3,
        vision_num_hidden_layers=2,
        num_attention_heads=2,
        hidden_size=32,
        hidden_act="gelu",
        vision_hidden_act="quick_gelu",
        num_image_with_embedding=2,
    )


@torch.no_grad()
def one_pass(pair: ModelPair, mask: Tensor) -> Tensor:
    """Image and text through the decoder together, under any mask."""
    decoder = pair.ours.decoder
    visual = pair.ours.projector(pair.ours.encode(pair.pixels))
    x = torch.cat([visual, decoder.embed(pair.tokens, 0, None)], dim=1)
    for block in decoder.blocks:
        x, _ = block(x, mask=mask)
    return decoder.lm_head(x[:, visual.shape[1] :])


def sizes(pair: ModelPair) -> tuple[int, int]:
    return pair.ours.see(pair.pixels[:1]).n_tokens, pair.tokens.shape[1]


def image_tokens_causal(pair: ModelPair) -> Tensor:
    n = sum(sizes(pair))
    return one_pass(pair, torch.ones(n, n, dtype=torch.bool).tril())


def image_sees_text(pair: ModelPair) -> Tensor:
    n_image, n_text = sizes(pair)
    mask = prefix_mask(n_image, n_text)
    mask[:n_image] = True
    return one_pass(pair, mask)


def text_sees_its_future(pair: ModelPair) -> Tensor:
    n = sum(sizes(pair))
    mask = prefix_mask(*sizes(pair))
    mask[-3, n - 2] = True
    return one_pass(pair, mask)


def changed(change: Callable[[ModelPair], None]) -> Callable[[ModelPair], Tensor]:
    """The logits after a change to our model."""

    def run(pair: ModelPair) -> Tensor:
        with torch.no_grad():
            change(pair)
            return pair.ours(pair.pixels, pair.tokens)

    run.__name__ = change.__name__
    return run


@changed
def query_and_key_swapped(pair: ModelPair) -> None:
    for block in pair.ours.decoder.blocks:
        query, key, value = block.attn.qkv.weight.clone().chunk(3)
        block.attn.qkv.weight.copy_(torch.cat([key, query, value]))


@changed
def query_and_key_of_the_encoder_swapped(pair: ModelPair) -> None:
    for block in pair.ours.encoder.blocks:
        query, key, value = block.attn.qkv.weight.clone().chunk(3)
        block.attn.qkv.weight.copy_(torch.cat([key, query, value]))


def set_activation(tower: nn.Module, activation: Callable[[Tensor], Tensor]) -> None:
    for module in tower.modules():
        if isinstance(module, MLP):
            module.activation = activation


@changed
def encoder_with_the_exact_gelu(pair: ModelPair) -> None:
    set_activation(pair.ours.encoder, F.gelu)


@changed
def decoder_with_quick_gelu(pair: ModelPair) -> None:
    set_activation(pair.ours.decoder, quick_gelu)


@changed
def decoder_with_the_tanh_gelu(pair: ModelPair) -> None:
    set_activation(pair.ours.decoder, lambda x: F.gelu(x, approximate="tanh"))


def norm_before_instead_of_after(pair: ModelPair) -> Tensor:
    def pre_norm(block: DecoderBlock, x: Tensor, past=(), mask=None, cache=None):
        seen, key_value = block.attn(block.attn_norm(x), past, mask, cache)
        x = x + seen
        return x + block.mlp(block.mlp_norm(x)), key_value

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(DecoderBlock, "forward", pre_norm)
        return pair.ours(pair.pixels, pair.tokens)


@changed
def embedding_norm_with_the_originals_eps(pair: ModelPair) -> None:
    pair.ours.decoder.embedding_norm.eps = 1e-8


@changed
def decoder_norm_with_the_encoders_eps(pair: ModelPair) -> None:
    for block in pair.ours.decoder.blocks:
        block.attn_norm.eps = 1e-5


@changed
def projector_norm_with_the_decoders_eps(pair: ModelPair) -> None:
    pair.ours.projector.norm.eps = 1e-12


@changed
def encoder_norm_with_another_eps(pair: ModelPair) -> None:
    pair.ours.encoder.post_norm.eps = 1e-6


@changed
def scores_divided_by_the_size_of_a_head(pair: ModelPair) -> None:
    for block in pair.ours.decoder.blocks:
        width = block.attn.out.in_features
        block.attn.qkv.weight[:width] *= (width // block.attn.heads) ** -0.5
        block.attn.qkv.bias[:width] *= (width // block.attn.heads) ** -0.5


@changed
def heads_counted_wrong(pair: ModelPair) -> None:
    for block in pair.ours.decoder.blocks:
        block.attn.heads = 1


@changed
def positions_shifted_by_one(pair: ModelPair) -> None:
    pair.ours.decoder.position_embedding.weight.copy_(
        pair.ours.decoder.position_embedding.weight.roll(1, 0)
    )


@changed
def frames_in_reverse_order(pair: ModelPair) -> None:
    pair.ours.temporal_embedding.copy_(pair.ours.temporal_embedding.flip(0))


@changed
def last_norm_of_the_encoder_forgotten(pair: ModelPair) -> None:
    pair.ours.encoder.post_norm = nn.Identity()


@changed
def output_bias_forgotten(pair: ModelPair) -> None:
    pair.ours.decoder.lm_head.bias.zero_()


MISTAKES = [
    image_tokens_causal,
    image_sees_text,
    text_sees_its_future,
    query_and_key_swapped,
    query_and_key_of_the_encoder_swapped,
    encoder_with_the_exact_gelu,
    decoder_with_quick_gelu,
    decoder_with_the_tanh_gelu,
    norm_before_instead_of_after,
    embedding_norm_with_the_originals_eps,
    decoder_norm_with_the_encoders_eps,
    projector_norm_with_the_decoders_eps,
    encoder_norm_with_another_eps,
    scores_divided_by_the_size_of_a_head,
    heads_counted_wrong,
    positions_shifted_by_one,
    frames_in_reverse_order,
    last_norm_of_the_encoder_forgotten,
    output_bias_forgotten,
]


@torch.no_grad()
def their_logits(pair: ModelPair) -> Tensor:
    out = pair.theirs(input_ids=pair.tokens, pixel_values=pair.pixels, use_cache=False)
    return out.logits[:, -pair.tokens.shape[1] :]


def test_without_a_mistake_the_logits_agree(pair: ModelPair) -> None:
    right = pair.ours(pair.pixels, pair.tokens)
    assert (right - their_logits(pair)).abs().max() < TOLERANCE
    in_one_pass = one_pass(pair, prefix_mask(*sizes(pair)))
    assert (in_one_pass - their_logits(pair)).abs().max() < TOLERANCE


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_deliberate_mistake_is_seen(
    pair: ModelPair, mistake: Callable[[ModelPair], Tensor]
) -> None:
    wrong = mistake(pair)
    assert (wrong - their_logits(pair)).abs().max() > 10 * TOLERANCE
