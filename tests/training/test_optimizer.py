"""Parameter groups, the schedule, clipping and the moving ema."""

from functools import partial

import pytest
import torch
from runs import recipe_of
from tiny import tiny_model
from torch import nn

from git_model.training.optimizer import (
    EMA,
    freeze,
    make_optimizer,
    parameter_groups,
    schedule,
    update,
)
from git_model.training.recipe import OptimConfig
from git_model.utils.errors import GITError


def learning(**changes) -> OptimConfig:
    return OptimConfig(**{"encoder_lr": 1e-5, "decoder_lr": 5e-5, **changes})


def test_every_parameter_is_in_one_group():
    model = tiny_model(frames=2)
    grouped = [p for group in parameter_groups(model, learning()) for p in group["params"]]
    assert len(grouped) == len(set(map(id, grouped)))
    assert set(map(id, grouped)) == set(map(id, model.parameters()))


def test_only_weight_matrices_decay():
    model = tiny_model(frames=2)
    groups = parameter_groups(model, learning(weight_decay=0.5))
    decays = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    expected = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    expected |= {id(model.encoder.patch_embedding.weight), id(model.decoder.lm_head.weight)}
    assert decays == expected


def test_the_encoder_has_its_own_learning_rate():
    model = tiny_model()
    groups = parameter_groups(model, learning())
    encoder = {id(p) for group in groups if group["lr"] == 1e-5 for p in group["params"]}
    assert encoder == set(map(id, model.encoder.parameters()))


def test_frozen_parameters_are_in_no_group():
    model = tiny_model()
    freeze(model, learning(frozen=("encoder", "projector")))
    grouped = {id(p) for group in parameter_groups(model, learning()) for p in group["params"]}
    assert grouped == set(map(id, model.decoder.parameters()))


def test_a_part_that_the_model_lacks_cannot_be_frozen():
    with pytest.raises(GITError, match="frozen has temporal_embedding, but this model has none"):
        freeze(tiny_model(), learning(frozen=("temporal_embedding",)))


def test_at_least_one_part_must_be_trained():
    with pytest.raises(GITError, match="nothing is left to train"):
        freeze(tiny_model(), learning(frozen=("encoder", "projector", "decoder")))


def test_the_learning_rate_has_a_linear_warm_up_then_a_cosine_decay():
    recipe = recipe_of("start", steps=30, learning={"warmup_steps": 10})
    rates = [schedule(step, recipe) for step in range(1, 31)]
    assert rates[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert rates[19] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0)
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_a_constant_schedule_keeps_its_rate_after_the_warm_up():
    recipe = recipe_of("start", steps=10, learning={"warmup_steps": 2, "schedule": "constant"})
    assert [schedule(step, recipe) for step in range(1, 11)] == [0.5, *[1.0] * 9]


def test_a_cooldown_is_constant_and_then_linear_to_zero():
    learning = {"warmup_steps": 2, "schedule": "cooldown", "cooldown_steps": 4}
    recipe = recipe_of("start", steps=10, learning=learning)
    rates = [schedule(step, recipe) for step in range(1, 11)]
    assert rates == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]


def test_only_the_last_blocks_and_what_follows_them_are_trained():
    model = tiny_model()
    freeze(model, learning(encoder_last=1, decoder_last=0))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    expected = {n for n, _ in model.named_parameters() if n.startswith("encoder.blocks.1.")}
    expected |= {"encoder.post_norm.weight", "encoder.post_norm.bias"}
    expected |= {n for n, _ in model.named_parameters() if n.startswith("projector.")}
    assert trained == expected | {"decoder.lm_head.weight", "decoder.lm_head.bias"}


def test_more_blocks_than_a_tower_has_are_refused():
    with pytest.raises(GITError, match="encoder_last is 3, but the encoder has 2 blocks"):
        freeze(tiny_model(), learning(encoder_last=3))


def test_layer_decay_halves_the_rate_of_the_encoder_with_each_block_below_the_last():
    model = tiny_model()
    groups = parameter_groups(model, learning(layer_decay=0.5))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    by_name = {name: rates[id(p)] for name, p in model.named_parameters()}
    assert by_name["encoder.post_norm.weight"] == 1e-5
    assert by_name["encoder.blocks.1.attn.qkv.weight"] == 0.5e-5
    assert by_name["encoder.blocks.0.mlp_norm.bias"] == 0.25e-5
    assert by_name["encoder.class_token"] == 0.125e-5
    assert by_name["encoder.patch_embedding.weight"] == 0.125e-5
    assert by_name["decoder.blocks.0.attn.qkv.weight"] == by_name["projector.linear.weight"] == 5e-5


class Stage(nn.Module):
    def __init__(self, n_blocks: int, *, downsample: bool) -> None:
        super().__init__()
        self.downsample = nn.Conv2d(4, 4, 2) if downsample else nn.Identity()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4)) for _ in range(n_blocks))


def staged_model() -> nn.Module:
    """A model whose encoder has blocks in two stages, as ConvNeXt and Swin, and tables and tokens
    under timm's names."""
    model = tiny_model()
    model.encoder = nn.Module()
    model.encoder.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))
    model.encoder.stem = nn.Conv2d(3, 4, 2)
    model.encoder.stages = nn.ModuleList([Stage(2, downsample=False), Stage(1, downsample=True)])
    model.encoder.blocks_token_only = nn.Linear(4, 4)
    model.encoder.mlp_tokens = nn.Linear(4, 4)
    model.encoder.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
    model.encoder.logit_scale = nn.Parameter(torch.zeros(2, 1, 1))
    model.encoder.norm = nn.LayerNorm((4, 4))
    return model


def test_layer_decay_counts_the_blocks_through_all_stages():
    model = staged_model()
    groups = parameter_groups(model, learning(layer_decay=0.5))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    by_name = {name: rates[id(p)] / 1e-5 for name, p in model.encoder.named_parameters()}
    assert by_name["norm.weight"] == 1
    assert by_name["stages.1.blocks.0.0.weight"] == by_name["stages.1.downsample.weight"] == 1 / 2
    assert by_name["stages.0.blocks.1.0.bias"] == 1 / 4
    assert by_name["stages.0.blocks.0.0.weight"] == 1 / 8
    assert by_name["stem.weight"] == by_name["pos_embed"] == 1 / 16


def test_the_last_blocks_of_a_staged_encoder_are_those_of_its_top_stages():
    model = staged_model()
    freeze(model, learning(encoder_last=2))
    frozen = {n for n, p in model.encoder.named_parameters() if not p.requires_grad}
    assert frozen == {
        "pos_embed", "relative_position_bias_table", "logit_scale", "stem.weight", "stem.bias",
        "stages.0.blocks.0.0.weight", "stages.0.blocks.0.0.bias",
    }  # fmt: skip


@pytest.mark.parametrize("changes", [{"encoder_last": 0}, {"layer_decay": 0.9}])
def test_an_encoder_without_blocks_has_no_layer_decay_and_no_last_blocks(changes):
    model = tiny_model()
    model.encoder = nn.Sequential(nn.Conv2d(3, 16, 8, 8), nn.Flatten(2))
    message = f"{next(iter(changes))} needs blocks, but this encoder has none"
    use = freeze if "encoder_last" in changes else parameter_groups
    with pytest.raises(GITError, match=message):
        use(model, learning(**changes))


def test_only_matrices_of_layers_decay_whatever_an_encoder_calls_its_tables():
    model = staged_model()
    groups = parameter_groups(model, learning(weight_decay=0.5))
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert {name for name, p in model.encoder.named_parameters() if id(p) in decayed} == {
        "stem.weight", "stages.0.blocks.0.0.weight", "stages.0.blocks.1.0.weight",
        "stages.1.downsample.weight", "stages.1.blocks.0.0.weight", "blocks_token_only.weight",
        "mlp_tokens.weight",
    }  # fmt: skip


def test_an_optimizer_by_name_gets_the_groups_and_its_arguments():
    changes = {"optimizer": "torch.optim.SGD", "optimizer_arguments": {"momentum": 0.5}}
    optimizer = make_optimizer(tiny_model(), learning(**changes))
    assert isinstance(optimizer, torch.optim.SGD)
    assert {(group["lr"], group["momentum"]) for group in optimizer.param_groups} == {
        (1e-5, 0.5), (5e-5, 0.5)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sgd"}, "learning.optimizer is 'sgd', expected a dotted name"),
        ({"optimizer": "nowhere.SGD"}, "nowhere cannot be imported"),
        ({"optimizer": "torch.optim.Sgd"}, "torch.optim has no such name"),
        (
            {"optimizer": "torch.optim.SGD", "optimizer_arguments": {"speed": 1}},
            "cannot be called so: .*unexpected keyword argument 'speed'",
        ),
        (
            {"optimizer": "torch.optim.SGD", "optimizer_arguments": {"momentum": -1}},
            "learning.optimizer is torch.optim.SGD, which cannot be called so: Invalid momentum",
        ),
        ({"optimizer": "torch.optim.LBFGS"}, "cannot be called so: LBFGS doesn't support per-par"),
        ({"optimizer": "torch.optim.Muon"}, "cannot be called so: Muon only supports 2D param"),
        ({"optimizer": "builtins.list"}, "the optimizer is builtins.list, expected a torch.optim"),
    ],
)
def test_what_is_no_optimizer_is_refused_in_one_line(changes, message):
    with pytest.raises(GITError, match=message) as error:
        make_optimizer(tiny_model(), learning(**changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (3, "optimizer is builtins.int, expected a function or class"),
        (lambda _: {}["rate"], "the optimizer .*<lambda> cannot be made: 'rate'"),
        (partial(torch.optim.SGD, momentum=-1), "SGD cannot be made: Invalid momentum value: -1"),
    ],
)
def test_an_optimizer_that_cannot_be_made_is_one_line(make, message):
    with pytest.raises(GITError, match=message) as error:
        make_optimizer(tiny_model(), learning(), make)
    assert "\n" not in str(error.value)


def test_an_optimizer_that_cannot_make_a_step_is_one_line():
    model = with_gradients(1e-3)
    own = {"optimizer": "torch.optim.SparseAdam", "optimizer_arguments": {}}
    optimizer = make_optimizer(model, learning(**own))
    with pytest.raises(GITError, match=r"SparseAdam cannot make a step: SparseAdam does not supp"):
        update(optimizer, 1.0, max_grad_norm=1.0)


def with_gradients(size: float) -> nn.Module:
    model = tiny_model()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, size)
    return model


def test_a_step_uses_the_share_of_the_peak_rates():
    models = [with_gradients(1e-3) for _ in range(2)]
    for model, share in zip(models, (1.0, 0.25), strict=True):
        update(make_optimizer(model, learning(weight_decay=0.0)), share, max_grad_norm=1e9)
    before = tiny_model().decoder.lm_head.weight
    full, quarter = ((model.decoder.lm_head.weight - before).mean().item() for model in models)
    assert full == pytest.approx(-5e-5, rel=1e-3)  # Adam's first step is the rate itself
    assert quarter / full == pytest.approx(0.25, rel=1e-3)


def test_a_gradient_is_clipped_to_the_norm_and_its_own_norm_returned():
    model = with_gradients(2.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer.param_groups[0]["peak_lr"] = 1.0
    before = [p.detach().clone() for p in model.parameters()]
    n_numbers = sum(p.numel() for p in model.parameters())
    grad_norm = update(optimizer, 1.0, max_grad_norm=0.5)
    assert grad_norm == pytest.approx(2 * n_numbers**0.5)
    squared = sum((p - b).square().sum() for p, b in zip(model.parameters(), before, strict=True))
    assert squared.sqrt().item() == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("size", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_no_weight(size):
    model = with_gradients(size)
    assert not torch.isfinite(torch.tensor(update(make_optimizer(model, learning()), 1.0, 1.0)))
    expected = tiny_model().state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in model.state_dict().items())


@torch.no_grad()
def test_the_moving_average_weights_the_last_steps_most():
    model = nn.Linear(1, 1, bias=False)
    model.weight.fill_(0.0)
    ema = EMA(model, 0.5)
    expected = 0.0
    for step in range(1, 30):
        model.weight.fill_(step)
        ema.update(model, step)
        decay = min(0.5, step / (step + 9))
        expected = decay * expected + (1 - decay) * step
        assert ema.weights["weight"].item() == pytest.approx(expected)
    assert expected == pytest.approx(28, abs=0.01)  # the second last: the mean age is 1 step
