"""Every setting of the decoder gives the same in one pass, in steps, and in training."""

import copy
import dataclasses
from itertools import product

import pytest
import torch
from tiny import bite, tiny_config
from torch import Tensor, nn

from git_model import GIT
from git_model.config import DecoderConfig
from git_model.data.collation import Batch
from git_model.generation.session import Session
from git_model.model.attention import prefix_mask
from git_model.training.loss import batch_loss, caption_loss
from git_model.utils.errors import ConfigError

EXACT = {"rtol": 1e-10, "atol": 1e-10}
PIXELS = torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(4, 40, (2, 6), generator=torch.Generator().manual_seed(2))
SETTINGS = [
    {"norm": norm, "norm_kind": kind, "mask": mask}
    for norm, kind, mask in product(
        ("post", "pre"), ("layer", "rms"), ("prefix", "causal", "isolated")
    )
]
NAMES = ["-".join(settings.values()) for settings in SETTINGS]


def model_of(**settings: object) -> GIT:
    config = tiny_config()
    decoder = dataclasses.replace(
        config.decoder, norm_eps=0.02, embedding_norm_eps=0.01, **settings
    )
    model = GIT(dataclasses.replace(config, decoder=decoder)).double().eval()
    bite(model, seed=5)
    return model


def steps(model: GIT) -> Tensor:
    session = Session(model, model.see(PIXELS))
    return torch.stack([session.step(TOKENS[:, n : n + 1]) for n in range(TOKENS.shape[1])], dim=1)


@torch.no_grad()
@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
def test_one_pass_prefill_and_steps_agree(settings: dict[str, str]) -> None:
    model = model_of(**settings)
    expected = model.one_pass(PIXELS, TOKENS)
    torch.testing.assert_close(model(PIXELS, TOKENS), expected, **EXACT)
    torch.testing.assert_close(steps(model), expected, **EXACT)


@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
def test_the_training_loss_and_its_gradients_agree(settings: dict[str, str]) -> None:
    model = model_of(**settings)
    other = copy.deepcopy(model)
    mask = torch.ones_like(TOKENS).bool()
    loss = batch_loss(model, Batch(PIXELS, TOKENS, mask))
    expected = caption_loss(other.one_pass(PIXELS, TOKENS), TOKENS, mask) * (TOKENS.numel() - 2)
    torch.testing.assert_close(loss, expected, **EXACT)
    loss.backward()
    expected.backward()
    for (name, left), right in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad, **EXACT, msg=name)


@torch.no_grad()
def test_each_setting_changes_the_result() -> None:
    results = [model_of(**settings).one_pass(PIXELS, TOKENS) for settings in SETTINGS]
    for first in range(len(results)):
        for second in range(first):
            assert (results[first] - results[second]).abs().max() > 1e-3, (
                NAMES[first],
                NAMES[second],
            )


def norm_of(x: Tensor, norm: nn.Module, kind: str) -> Tensor:
    """LayerNorm or RMSNorm, by their definitions."""
    if kind == "rms":
        return x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + (
        norm.bias
    )


def attention_of(x: Tensor, layer: nn.Module, mask: Tensor) -> Tensor:
    """Multi-head self-attention, head by head."""
    width = x.shape[-1] // layer.heads
    query, key, value = layer.qkv(x).chunk(3, -1)
    heads = []
    for head in range(layer.heads):
        part = slice(head * width, (head + 1) * width)
        scores = query[..., part] @ key[..., part].mT / width**0.5
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        heads.append(weights @ value[..., part])
    return layer.out(torch.cat(heads, -1))


@torch.no_grad()
@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
def test_a_setting_means_its_equation(settings: dict[str, str]) -> None:
    model = model_of(**settings)
    decoder, kind = model.decoder, settings["norm_kind"]
    visual = model.projector(model.encode(PIXELS))
    n_image, n_tokens = visual.shape[1], visual.shape[1] + TOKENS.shape[1]
    mask = torch.zeros(n_tokens, n_tokens).bool()
    for query, key in product(range(n_tokens), repeat=2):
        if query >= n_image:
            mask[query, key] = key <= query
        elif key < n_image:
            allowed = {"prefix": True, "causal": key <= query, "isolated": key == query}
            mask[query, key] = allowed[settings["mask"]]
    words = decoder.token_embedding(TOKENS) + decoder.position_embedding.weight[: TOKENS.shape[1]]
    x = torch.cat([visual, norm_of(words, decoder.embedding_norm, kind)], dim=1)
    for block in decoder.blocks:
        if settings["norm"] == "pre":
            x = x + attention_of(norm_of(x, block.attn_norm, kind), block.attn, mask)
            x = x + block.mlp(norm_of(x, block.mlp_norm, kind))
        else:
            x = norm_of(x + attention_of(x, block.attn, mask), block.attn_norm, kind)
            x = norm_of(x + block.mlp(x), block.mlp_norm, kind)
    if settings["norm"] == "pre":
        x = norm_of(x, decoder.final_norm, kind)
    torch.testing.assert_close(decoder.lm_head(x[:, n_image:]), model(PIXELS, TOKENS), **EXACT)


def test_masks_by_hand() -> None:
    assert prefix_mask(2, 2, "causal").int().tolist() == [
        [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]
    ]  # fmt: skip
    assert prefix_mask(2, 2, "isolated").int().tolist() == [
        [1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]
    ]  # fmt: skip
    for kind in ("causal", "isolated"):
        whole = prefix_mask(3, 4, kind)
        assert torch.equal(prefix_mask(3, 4, kind, first_query=2), whole[2:])


def test_rms_norms_have_no_bias_and_pre_norm_one_more_norm() -> None:
    usual = model_of().tensors().keys()
    rms = model_of(norm_kind="rms").tensors().keys()
    assert {name.rsplit(".", 1)[0] for name in usual - rms} == {
        "decoder.embedding_norm",
        *(f"decoder.blocks.{n}.{part}_norm" for n in (0, 1) for part in ("attn", "mlp")),
    }
    assert model_of(norm="pre").tensors().keys() - usual == {
        "decoder.final_norm.weight",
        "decoder.final_norm.bias",
    }


def test_an_untrained_models_norms_start_at_one() -> None:
    config = tiny_config()
    decoder = dataclasses.replace(config.decoder, norm="pre", norm_kind="rms")
    model = GIT(dataclasses.replace(config, decoder=decoder))
    assert torch.equal(model.decoder.final_norm.weight, torch.ones(24))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "sandwich"}, "decoder: norm is 'sandwich', expected one of post, pre"),
        ({"norm_kind": "batch"}, "decoder: norm_kind is 'batch', expected one of layer, rms"),
        ({"mask": "none"}, "decoder: mask is 'none', expected one of prefix, causal, isolated"),
    ],
)
def test_an_unknown_setting_is_one_line(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DecoderConfig(**settings)


def test_a_model_with_other_settings_is_saved_and_opens_again(tmp_path) -> None:
    model = model_of(norm="pre", norm_kind="rms", mask="isolated")
    model.float().save_pretrained(tmp_path / "model")
    again = GIT.from_pretrained(tmp_path / "model", dtype=torch.float64)
    assert again.config == model.config
    expected = model.double()(PIXELS, TOKENS)
    torch.testing.assert_close(again(PIXELS, TOKENS), expected, **EXACT)
