"""The loss as a module, activation checkpointing, and batches without tokens to predict."""

import pytest
import torch
from tiny import bite, tiny_config, tiny_model

from git_model.data.collation import Batch, Sample, TextTarget, collate
from git_model.model.git import GIT
from git_model.training.loss import CrossEntropy, LossModule, batch_loss
from git_model.training.parallel import checkpoint_activations, empty_batch


def batch_of(frames: int | None = None, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    shape = (3, 16, 16) if frames is None else (frames, 3, 16, 16)
    samples = [
        Sample(
            torch.randn(shape, generator=generator, dtype=torch.float64),
            [TextTarget([1, *torch.randint(3, 40, (n,), generator=generator).tolist(), 2], 1)],
        )
        for n in (3, 5)
    ]
    return collate(samples, 0)


def gradients(model: GIT, *batches: Batch) -> dict[str, torch.Tensor | None]:
    model.zero_grad()
    for batch in batches:
        LossModule(model, CrossEntropy())(batch).total.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_the_loss_is_the_sum_over_the_tokens_in_the_models_own_style():
    batch = batch_of()
    for style in ("huggingface", "microsoft"):
        model = bite(GIT(tiny_config(style=style)).double().eval(), 0)
        expected = batch_loss(model, batch, label_smoothing=0.1, style=style)
        assert torch.equal(LossModule(model, CrossEntropy(0.1))(batch).total, expected)


def test_images_have_a_zero_gradient_for_temporal_embeddings_and_clips_do_not():
    model = bite(tiny_model(frames=3), 0)
    image = gradients(model, batch_of())
    assert torch.equal(image["temporal_embedding"], torch.zeros_like(model.temporal_embedding))
    assert all(gradient is not None for gradient in image.values())
    assert gradients(model, batch_of(frames=2))["temporal_embedding"].abs().max() > 1e-3


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputed_activations_give_the_same_gradients(dropout):
    results = []
    for checkpointing in (False, True):
        model = bite(tiny_model(frames=3), 0).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = dropout
        if checkpointing:
            checkpoint_activations(model)
        torch.manual_seed(5)
        results.append(gradients(model, batch_of(), batch_of(frames=3)))
    for name, gradient in results[0].items():
        assert torch.equal(gradient, results[1][name]), name


def test_checkpointing_saves_fewer_activations():
    totals = []
    for checkpointing in (False, True):
        model = tiny_model().train()
        if checkpointing:
            checkpoint_activations(model)
        sizes: list[int] = []

        def pack(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            LossModule(model, CrossEntropy())(batch_of())
        totals.append(sum(sizes))
    assert totals[1] < totals[0] / 2


def test_checkpointing_changes_no_name_of_a_weight():
    model = tiny_model()
    names = list(model.state_dict())
    checkpoint_activations(model)
    assert list(model.state_dict()) == names


def test_an_empty_batch_has_loss_and_gradients_of_zero():
    model = bite(tiny_model(frames=3), 0).float()
    grads = gradients(model, empty_batch(model))
    assert LossModule(model, CrossEntropy(0.1))(empty_batch(model)).total.item() == 0
    assert all(gradient is not None and not gradient.any() for gradient in grads.values())
