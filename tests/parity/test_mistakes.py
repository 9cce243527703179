"""The proof that parity bites: each deliberate mistake moves the logits by more than ten
tolerances, so a test that passes has seen that the mistake is not there."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from parity_models import ModelPair, make_pair
from tiny import bite, tiny_config
from torch import Tensor, nn
from torch.nn import functional as F

from git_model import GIT
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
    return decoder.lm_head(decoder.one_pass(visual, pair.tokens, mask))


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
    def pre_norm(block: DecoderBlock, x: Tensor, past=(), mask=None, cache=None, **_):
        mixed, key_value = block.attn(block.attn_norm(x), past, mask, cache)
        x = x + mixed
        return x + block.mlp(block.mlp_norm(x)), key_value

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(DecoderBlock, "forward", pre_norm)
        return pair.ours(pair.pixels, pair.tokens)


@changed
def embedding_norm_with_the_originals_eps(pair: ModelPair) -> None:
    pair.ours.decoder.embedding_norm.eps = 1e-8


def set_eps(tower: nn.Module, eps: float) -> None:
    for module in tower.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = eps


@changed
def decoder_norms_that_ignore_the_configured_eps(pair: ModelPair) -> None:
    set_eps(pair.ours.decoder.blocks, 1e-5)  # torch's default


@changed
def encoder_norms_that_ignore_the_configured_eps(pair: ModelPair) -> None:
    set_eps(pair.ours.encoder, 1e-6)


@changed
def projector_norm_that_ignores_the_configured_eps(pair: ModelPair) -> None:
    set_eps(pair.ours.projector, 1e-5)


@changed
def projector_norm_with_the_decoders_eps(pair: ModelPair) -> None:
    pair.ours.projector.norm.eps = pair.ours.config.decoder.norm_eps


@changed
def decoder_norm_with_the_encoders_eps(pair: ModelPair) -> None:
    for block in pair.ours.decoder.blocks:
        block.attn_norm.eps = pair.ours.config.encoder.norm_eps


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
    decoder_norms_that_ignore_the_configured_eps,
    encoder_norms_that_ignore_the_configured_eps,
    projector_norm_that_ignores_the_configured_eps,
    decoder_norm_with_the_encoders_eps,
    projector_norm_with_the_decoders_eps,
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
def test_a_deliberate_mistake_is_noticed(
    pair: ModelPair, mistake: Callable[[ModelPair], Tensor]
) -> None:
    wrong = mistake(pair)
    assert (wrong - their_logits(pair)).abs().max() > 10 * TOLERANCE


# ---- dropout, in training mode: in both models it is replaced by a fixed scaling


def fixed_scaling(
    x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """In the place of dropout: what it does to a tensor depends on p alone."""
    return x * (1 + p) if training else x


def in_training_mode(pair: ModelPair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.nn.functional.dropout", fixed_scaling)
    # Their fused attention draws its own random numbers; the eager one rounds to float32.
    pair.theirs.config.vision_config._attn_implementation = "eager"
    pair.theirs.train()
    pair.ours.train()


IN_TRAINING = 1e-5  # relative


def difference(pair: ModelPair) -> float:
    expected = their_logits(pair)
    with torch.no_grad():
        found = pair.ours(pair.pixels, pair.tokens)
    return ((found - expected).abs().max() / expected.abs().max()).item()


def test_dropout_acts_in_the_same_places_with_the_same_probabilities(
    pair: ModelPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_training_mode(pair, monkeypatch)
    assert difference(pair) < IN_TRAINING


def block_without_dropout(after: str) -> Callable[..., object]:
    def forward(
        block: DecoderBlock, x: Tensor, past=(), mask=None, cache=None, *, need_output=True
    ):
        mixed, key_value = block.attn(x, past, mask, cache, need_output=need_output)
        if mixed is None:
            return None, key_value
        mixed = mixed if after == "attention" else block.dropout(mixed)
        x = block.attn_norm(x + mixed)
        mixed = block.mlp(x)
        mixed = mixed if after == "mlp" else block.dropout(mixed)
        return block.mlp_norm(x + mixed), key_value

    return forward


def remove_dropout(pair: ModelPair, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if place == "embeddings":
        pair.ours.decoder.dropout = nn.Identity()
    elif place in ("attention", "mlp"):
        monkeypatch.setattr(DecoderBlock, "forward", block_without_dropout(place))
    else:
        tower = pair.ours.encoder if place == "encoder weights" else pair.ours.decoder
        for block in tower.blocks:
            block.attn.dropout = 0.0


@pytest.mark.parametrize(
    "place", ["embeddings", "attention", "mlp", "decoder weights", "encoder weights"]
)
def test_dropout_that_was_forgotten_is_noticed(
    pair: ModelPair, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_training_mode(pair, monkeypatch)
    remove_dropout(pair, place, monkeypatch)
    assert difference(pair) > 10 * IN_TRAINING


# ---- kin of these: a setting that no test moves

CHANGES = {
    "encoder": {
        "image_size": 24, "patch_size": 4, "width": 8, "layers": 1, "heads": 1, "mlp_width": 8,
        "activation": "relu", "norm_eps": 0.5, "attention_dropout": 0.9,
        "kind": "siglip",
    },
    "decoder": {
        "vocab_size": 20, "positions": 9, "width": 12, "layers": 1, "heads": 1, "mlp_width": 8,
        "activation": "relu", "norm_eps": 0.5, "embedding_norm_eps": 0.5, "dropout": 0.9,
        "attention_dropout": 0.9, "tied": True, "norm": "pre", "norm_kind": "rms", "mask": "causal",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("tower", "name"), [(tower, name) for tower, fields in CHANGES.items() for name in fields]
)
def test_every_setting_of_a_tower_changes_the_tensors_or_the_logits(
    tower: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.nn.functional.dropout", fixed_scaling)
    config = tiny_config()
    part = dataclasses.replace(getattr(config, tower), **{name: CHANGES[tower][name]})
    before, after = (bite(GIT(c).double(), 1).train() for c in (config, dataclasses.replace(
        config, **{tower: part})))  # fmt: skip
    shapes = [{key: value.shape for key, value in m.tensors().items()} for m in (before, after)]
    if shapes[0] == shapes[1]:
        pixels = torch.randn(2, 3, 16, 16, dtype=torch.float64)
        tokens = torch.tensor([[1, 5, 7], [1, 9, 4]])
        with torch.no_grad():
            assert (before(pixels, tokens) - after(pixels, tokens)).abs().max() > 1e-6


@pytest.mark.parametrize("tower", ["encoder", "decoder"])
def test_the_list_of_settings_above_is_whole(tower: str) -> None:
    fields = {item.name for item in dataclasses.fields(getattr(tiny_config(), tower))}
    assert fields == CHANGES[tower].keys()
