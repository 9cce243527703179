"""The proof that parity bites: each deliberate mistake moves the logits by more than ten
tolerances, so a test that passes has seen that the mistake is not there."""

from collections.abc import Callable

import pytest
import torch
from biting import Twins, twins
from torch import Tensor, nn
from torch.nn import functional as F

from git_model.attention import prefix_mask
from git_model.decoder import DecoderBlock
from git_model.mlp import MLP, quick_gelu

TOLERANCE = 1e-10


@pytest.fixture
def twin() -> Twins:
    return twins(
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
def one_pass(twin: Twins, mask: Tensor) -> Tensor:
    """Image and text through the decoder together, under any mask."""
    decoder = twin.ours.decoder
    visual = twin.ours.projector(twin.ours.encode(twin.pixels))
    x = torch.cat([visual, decoder.embed(twin.tokens, 0, None)], dim=1)
    for block in decoder.blocks:
        x, _ = block(x, mask=mask)
    return decoder.predict(x[:, visual.shape[1] :])


def sizes(twin: Twins) -> tuple[int, int]:
    return twin.ours.see(twin.pixels[:1]).n_tokens, twin.tokens.shape[1]


def image_tokens_causal(twin: Twins) -> Tensor:
    n = sum(sizes(twin))
    return one_pass(twin, torch.ones(n, n, dtype=torch.bool).tril())


def image_sees_text(twin: Twins) -> Tensor:
    n_image, n_text = sizes(twin)
    mask = prefix_mask(n_image, n_text)
    mask[:n_image] = True
    return one_pass(twin, mask)


def text_sees_its_future(twin: Twins) -> Tensor:
    n = sum(sizes(twin))
    mask = prefix_mask(*sizes(twin))
    mask[-3, n - 2] = True
    return one_pass(twin, mask)


def changed(change: Callable[[Twins], None]) -> Callable[[Twins], Tensor]:
    """The logits after a change to our model."""

    def run(twin: Twins) -> Tensor:
        with torch.no_grad():
            change(twin)
            return twin.ours(twin.pixels, twin.tokens)

    run.__name__ = change.__name__
    return run


@changed
def query_and_key_swapped(twin: Twins) -> None:
    for block in twin.ours.decoder.blocks:
        query, key, value = block.attn.qkv.weight.clone().chunk(3)
        block.attn.qkv.weight.copy_(torch.cat([key, query, value]))


@changed
def query_and_key_of_the_encoder_swapped(twin: Twins) -> None:
    for block in twin.ours.encoder.blocks:
        query, key, value = block.attn.qkv.weight.clone().chunk(3)
        block.attn.qkv.weight.copy_(torch.cat([key, query, value]))


def set_activation(tower: nn.Module, activation: Callable[[Tensor], Tensor]) -> None:
    for module in tower.modules():
        if isinstance(module, MLP):
            module.activation = activation


@changed
def encoder_with_the_exact_gelu(twin: Twins) -> None:
    set_activation(twin.ours.encoder, F.gelu)


@changed
def decoder_with_quick_gelu(twin: Twins) -> None:
    set_activation(twin.ours.decoder, quick_gelu)


@changed
def decoder_with_the_tanh_gelu(twin: Twins) -> None:
    set_activation(twin.ours.decoder, lambda x: F.gelu(x, approximate="tanh"))


def norm_before_instead_of_after(twin: Twins) -> Tensor:
    def pre_norm(block: DecoderBlock, x: Tensor, past=(), mask=None, cache=None):
        seen, key_value = block.attn(block.attn_norm(x), past, mask, cache)
        x = x + seen
        return x + block.mlp(block.mlp_norm(x)), key_value

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(DecoderBlock, "forward", pre_norm)
        return twin.ours(twin.pixels, twin.tokens)


@changed
def embedding_norm_with_the_originals_eps(twin: Twins) -> None:
    twin.ours.decoder.norm.eps = 1e-8


@changed
def decoder_norm_with_the_encoders_eps(twin: Twins) -> None:
    for block in twin.ours.decoder.blocks:
        block.attn_norm.eps = 1e-5


@changed
def projector_norm_with_the_decoders_eps(twin: Twins) -> None:
    twin.ours.projector.norm.eps = 1e-12


@changed
def encoder_norm_with_another_eps(twin: Twins) -> None:
    twin.ours.encoder.post_norm.eps = 1e-6


@changed
def scores_divided_by_the_size_of_a_head(twin: Twins) -> None:
    for block in twin.ours.decoder.blocks:
        width = block.attn.out.in_features
        block.attn.qkv.weight[:width] *= (width // block.attn.heads) ** -0.5
        block.attn.qkv.bias[:width] *= (width // block.attn.heads) ** -0.5


@changed
def heads_counted_wrong(twin: Twins) -> None:
    for block in twin.ours.decoder.blocks:
        block.attn.heads = 1


@changed
def positions_shifted_by_one(twin: Twins) -> None:
    twin.ours.decoder.position.weight.copy_(twin.ours.decoder.position.weight.roll(1, 0))


@changed
def frames_in_reverse_order(twin: Twins) -> None:
    twin.ours.temporal.copy_(twin.ours.temporal.flip(0))


@changed
def last_norm_of_the_encoder_forgotten(twin: Twins) -> None:
    twin.ours.encoder.post_norm = nn.Identity()


@changed
def output_bias_forgotten(twin: Twins) -> None:
    twin.ours.decoder.output_bias.zero_()


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
def their_logits(twin: Twins) -> Tensor:
    out = twin.theirs(input_ids=twin.tokens, pixel_values=twin.pixels, use_cache=False)
    return out.logits[:, -twin.tokens.shape[1] :]


def test_without_a_mistake_the_logits_agree(twin: Twins) -> None:
    right = twin.ours(twin.pixels, twin.tokens)
    assert (right - their_logits(twin)).abs().max() < TOLERANCE
    in_one_pass = one_pass(twin, prefix_mask(*sizes(twin)))
    assert (in_one_pass - their_logits(twin)).abs().max() < TOLERANCE


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_deliberate_mistake_is_seen(twin: Twins, mistake: Callable[[Twins], Tensor]) -> None:
    wrong = mistake(twin)
    assert (wrong - their_logits(twin)).abs().max() > 10 * TOLERANCE
