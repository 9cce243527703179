"""Whoever extends the model is not answered wrongly in silence: adapters and hooks reach every
module, and a block of another kind gives the same result in one pass, in prefill and steps, and in
training."""

import copy
from collections.abc import Callable

import pytest
import torch
from tiny import bite, tiny_config
from torch import Tensor, nn

from git_model import GIT, DecodingOptions, generate
from git_model.config import DecoderConfig
from git_model.data.collation import Batch
from git_model.generation.session import Session
from git_model.model.decoder import DecoderBlock
from git_model.training.loss import batch_loss, caption_loss
from git_model.utils import kernels

EXACT = {"rtol": 1e-10, "atol": 1e-10}
PIXELS = torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(4, 40, (2, 6), generator=torch.Generator().manual_seed(2))


def model_of(**changes: object) -> GIT:
    model = GIT(tiny_config(**changes)).double().eval()
    bite(model, seed=5)
    return model


def one_pass(model: GIT) -> Tensor:
    return model.one_pass(PIXELS, TOKENS)


def prefill_and_one_piece(model: GIT) -> Tensor:
    return model(PIXELS, TOKENS)


def prefill_and_steps(model: GIT) -> Tensor:
    session = Session(model, model.see(PIXELS))
    steps = [session.step(TOKENS[:, n : n + 1]) for n in range(TOKENS.shape[1])]
    return torch.stack(steps, dim=1)


def training_loss(model: GIT) -> Tensor:
    mask = torch.ones_like(TOKENS).bool()
    return batch_loss(model, Batch(PIXELS, TOKENS, mask))


def loss_of_one_pass(model: GIT) -> Tensor:
    mask = torch.ones_like(TOKENS).bool()
    return caption_loss(model.one_pass(PIXELS, TOKENS), TOKENS, mask) * (TOKENS.numel() - 2)


def many_texts_of_a_scene(model: GIT) -> Tensor:
    texts = torch.cat([TOKENS, TOKENS.flip(1), TOKENS.roll(1, 1)], dim=1).view(6, -1)
    return model(model.see(PIXELS), texts)


WAYS = [one_pass, prefill_and_one_piece, prefill_and_steps, training_loss, many_texts_of_a_scene]


def with_lora(model: GIT) -> nn.Module:
    """The model with a LoRA of peft's on every linear layer, as if it were trained."""
    peft = pytest.importorskip("peft")
    names = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=names, lora_dropout=0.0)
    wrapped = peft.get_peft_model(model, config).double().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(0.3 * noise)
    return wrapped


@torch.no_grad()
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_live_lora_on_every_linear_layer_equals_the_merged_one(
    way: Callable[[GIT], Tensor],
) -> None:
    plain = way(model_of())
    wrapped = with_lora(model_of())
    live = way(wrapped.base_model.model)
    merged = way(wrapped.merge_and_unload())
    torch.testing.assert_close(live, merged, **EXACT)
    assert (live - plain).abs().max() > 1e-3, "the adapter has no effect"


def test_a_live_lora_gets_the_gradient_of_image_tokens_in_every_layer() -> None:
    wrapped = with_lora(model_of())
    scene = wrapped.base_model.model.see(PIXELS)
    sum(layer.key.sum() + layer.value.square().sum() for layer in scene.layers).backward()
    last = [p for n, p in wrapped.named_parameters() if "blocks.1.attn.qkv.lora_B" in n]
    assert last
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in last)


def test_hooks_on_every_module_fire_when_an_image_is_captioned() -> None:
    model = model_of(frames=2)
    fired: set[str] = set()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: fired.add(name))
    clip = torch.stack([PIXELS, PIXELS.flip(-1)], dim=1)
    generate(model, model.see(clip), [[1], [1]], DecodingOptions(max_new_tokens=2))
    # The whole model and the lists of blocks have no forward of their own in this use.
    silent = {name for name, _ in model.named_modules()} - fired
    assert silent == {"", "encoder.blocks", "decoder", "decoder.blocks"} - fired
    assert "decoder" in fired


def test_hooks_on_every_block_fire_for_image_tokens() -> None:
    model = model_of()
    shapes: list[int] = []
    for block in model.decoder.blocks:
        block.attn.qkv.register_forward_hook(lambda _m, args, _o: shapes.append(args[0].shape[1]))
    n_image = model.see(PIXELS).n_tokens
    assert shapes == [n_image] * len(model.decoder.blocks)


class PreNormBlock(DecoderBlock):
    """A block of another kind: RMSNorm before each sublayer."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        self.attn_norm = nn.RMSNorm(config.width)
        self.mlp_norm = nn.RMSNorm(config.width)

    def forward(self, x, past=(), mask=None, cache=None, *, need_output=True):
        mixed, key_value = self.attn(self.attn_norm(x), past, mask, cache, need_output=need_output)
        x = x + mixed if need_output else x
        return x + self.mlp(self.mlp_norm(x)), key_value


class WastefulPreNormBlock(PreNormBlock):
    """As before, but it takes no notice of `need_output`, as it may."""

    def forward(self, x, past=(), mask=None, cache=None, *, need_output=True):
        return super().forward(x, past, mask, cache)


class BlockWithoutTheOption(DecoderBlock):
    """A block with the signature of another library."""

    def forward(self, x, past=(), mask=None, cache=None):
        return super().forward(x, past, mask, cache)


def with_blocks(kind: type[DecoderBlock]) -> GIT:
    model = model_of()
    config = model.config.decoder
    model.decoder.blocks = nn.ModuleList(kind(config) for _ in range(config.layers))
    return bite(model.double(), seed=6).eval()


@torch.no_grad()
@pytest.mark.parametrize("kind", [PreNormBlock, WastefulPreNormBlock])
@pytest.mark.parametrize("way", [prefill_and_one_piece, prefill_and_steps])
def test_a_pre_norm_block_gives_the_same_logits_however_it_is_run(kind, way) -> None:
    model = with_blocks(kind)
    torch.testing.assert_close(way(model), one_pass(model), **EXACT)
    assert (one_pass(model) - one_pass(model_of())).abs().max() > 0.1


@pytest.mark.parametrize("kind", [PreNormBlock, WastefulPreNormBlock])
def test_a_pre_norm_block_gives_the_same_loss_and_gradients_in_training(kind) -> None:
    model = with_blocks(kind)
    twin = copy.deepcopy(model)
    training_loss(model).backward()
    loss_of_one_pass(twin).backward()
    for (name, one), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, **EXACT, msg=name)


def test_a_block_that_does_not_know_the_option_fails_loudly() -> None:
    with pytest.raises(TypeError, match="need_output"):
        with_blocks(BlockWithoutTheOption).see(PIXELS)


def test_a_parametrization_of_any_weight_applies_to_image_tokens() -> None:
    model = model_of()

    class Doubled(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    expected = model_of()
    with torch.no_grad():
        expected.decoder.blocks[-1].attn.qkv.weight.mul_(2)
    layer = model.decoder.blocks[-1].attn.qkv
    nn.utils.parametrize.register_parametrization(layer, "weight", Doubled())
    ours, theirs = model.see(PIXELS).layers[-1], expected.see(PIXELS).layers[-1]
    torch.testing.assert_close(ours.key, theirs.key, **EXACT)
    torch.testing.assert_close(ours.value, theirs.value, **EXACT)


def test_a_merge_through_data_is_noticed_by_packed_weights() -> None:
    model = model_of().to(torch.bfloat16)
    pixels = PIXELS.to(torch.bfloat16)
    kernels.pack_weights(model.decoder)
    layer = model.decoder.blocks[0].attn.qkv
    assert hasattr(layer.weight, "packed") == kernels.can_be_packed(layer.weight)
    with torch.inference_mode():
        generate(model, model.see(pixels), [[1], [1]], DecodingOptions(max_new_tokens=1))
        layer.weight.data += 1.0  # as peft merges
        packed = model(pixels, TOKENS)
        fresh = GIT.from_state(model.config, model.tensors(), "copy")(pixels, TOKENS)
    torch.testing.assert_close(packed, fresh, rtol=0.1, atol=0.1)
