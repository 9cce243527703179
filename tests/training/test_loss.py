import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from git_model.training.loss import caption_loss

RECORDED = Path(__file__).parents[1] / "fixtures" / "microsoft"
CASES = ["image", "video_6_frames", "rectangular"]


def random_case(n_tokens: int = 11) -> tuple[Tensor, Tensor, Tensor]:
    logits = torch.randn(3, 6, n_tokens, dtype=torch.float64) * 2
    mask = torch.tensor([[0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 0], [0, 1, 1, 0, 0, 0]]).bool()
    return logits, torch.randint(n_tokens, (3, 6)), mask


def loss_by_loops(
    logits: Tensor, tokens: Tensor, mask: Tensor, label_smoothing: float, style: str
) -> float:
    vocab_size = logits.shape[-1]
    losses = []
    for row in range(logits.shape[0]):
        for position in range(1, logits.shape[1]):
            if not mask[row, position]:
                continue
            exps = [math.exp(value) for value in logits[row, position - 1].tolist()]
            loss = 0.0
            for token, exp in enumerate(exps):
                correct = token == int(tokens[row, position])
                logprob = math.log(exp / sum(exps))
                if style == "huggingface":
                    target = label_smoothing / vocab_size + (1 - label_smoothing) * correct
                    loss -= target * logprob
                else:
                    rest = label_smoothing / (vocab_size - 1)
                    target = 1 - label_smoothing if correct else rest
                    loss += target * (math.log(target) - logprob) if target else 0.0
            losses.append(loss)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("style", ["huggingface", "microsoft"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.5])
def test_the_loss_is_what_plain_loops_compute(style, label_smoothing):
    case = random_case()
    loss = caption_loss(*case, label_smoothing=label_smoothing, style=style)
    assert loss.item() == pytest.approx(loss_by_loops(*case, label_smoothing, style), rel=1e-12)


def test_without_smoothing_the_styles_agree():
    case = random_case()
    assert torch.equal(caption_loss(*case, style="microsoft"), caption_loss(*case))


def test_with_smoothing_the_styles_differ():
    case = random_case()
    losses = [
        caption_loss(*case, label_smoothing=0.1, style=style)
        for style in ("huggingface", "microsoft")
    ]
    assert abs(losses[0] - losses[1]) > 0.1


def test_the_loss_of_a_model_that_predicts_the_smoothed_target_is_zero():
    tokens, mask = torch.tensor([[0, 3, 5]]), torch.tensor([[False, True, True]])
    logits = torch.full((1, 3, 11), math.log(0.1 / 10), dtype=torch.float64)
    logits[0, 0, 3] = logits[0, 1, 5] = math.log(0.9)
    loss = caption_loss(logits, tokens, mask, label_smoothing=0.1, style="microsoft")
    assert loss.item() == pytest.approx(0, abs=1e-12)


def test_prompt_padding_and_the_last_logits_have_no_gradient():
    logits, tokens, mask = random_case()
    logits.requires_grad_()
    caption_loss(logits, tokens, mask).backward()
    used = torch.zeros_like(mask)
    used[:, :-1] = mask[:, 1:]
    assert torch.equal(logits.grad.ne(0).any(-1), used)


def test_every_token_has_the_same_weight_whatever_the_length_of_its_row():
    logits, tokens, mask = random_case()
    rows = [caption_loss(logits[[i]], tokens[[i]], mask[[i]]) for i in range(3)]
    weights = mask[:, 1:].sum(1)
    expected = sum(w * row for w, row in zip(weights, rows, strict=True)) / weights.sum()
    assert caption_loss(logits, tokens, mask).item() == pytest.approx(expected.item(), rel=1e-12)


def recorded(case: str) -> tuple[Tensor, Tensor, Tensor, dict]:
    tensors = load_file(RECORDED / case / "expected.safetensors")
    loss = json.loads((RECORDED / case / "expected.json").read_text())["loss"]
    mask = torch.tensor(loss["need_predict"]).bool()
    return tensors["logits"], tensors["tokens"].long(), mask, loss


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_the_one_the_original_recorded(case):
    logits, tokens, mask, loss = recorded(case)
    value = caption_loss(logits, tokens, mask, label_smoothing=loss["smoothing"], style="microsoft")
    # The original computes this one number in float32.
    assert value.item() == pytest.approx(loss["value"], abs=2e-6)
    plain = caption_loss(logits, tokens, mask, label_smoothing=loss["smoothing"])
    assert abs(plain.item() - loss["value"]) > 0.1


@pytest.mark.parametrize("case", CASES)
def test_its_gradient_is_the_one_the_original_recorded(case):
    logits, tokens, mask, loss = recorded(case)
    logits.requires_grad_()
    caption_loss(
        logits, tokens, mask, label_smoothing=loss["smoothing"], style="microsoft"
    ).backward()
    # The output layer's bias is added to the logits of every position.
    bias = logits.grad.sum((0, 1)).norm().item()
    assert bias == pytest.approx(loss["grad_norm"]["textual.output.bias"], rel=1e-6)
