"""Whether a model's probabilities are right: the expected calibration error of its next tokens."""

import torch
from lab import held_out_batches, measure

from git_model import Captioner
from git_model.data.example import Source

N_BINS = 15


def calibration_error(confidence: torch.Tensor, correct: torch.Tensor) -> float:
    """The expected calibration error, times 100 (Guo et al. 2017): the difference between the mean
    confidence and the share that is right, over N_BINS equal bins of confidence.

    Args:
        confidence: (N,), the probability of the most probable token.
        correct: (N,), whether that token is the right one.
    """
    bins = (confidence * N_BINS).long().clamp(max=N_BINS - 1)
    gaps = torch.zeros(N_BINS, dtype=torch.float64)
    gaps.index_add_(0, bins, confidence.double() - correct.double())
    return 100 * gaps.abs().sum().item() / len(confidence)


@torch.inference_mode()
def token_confidence(captioner: Captioner, source: Source) -> tuple[torch.Tensor, torch.Tensor]:
    """The confidence of every next token of the right texts, and whether it is the right token."""
    model = captioner.model
    confidence, correct = [], []
    for batch in held_out_batches(captioner, source, len(source)):
        probabilities = model(batch.pixels, batch.tokens[:, :-1]).softmax(-1)[batch.mask[:, 1:]]
        values, tokens = probabilities.max(-1)
        confidence.append(values)
        correct.append(tokens == batch.tokens[:, 1:][batch.mask[:, 1:]])
    return torch.cat(confidence), torch.cat(correct)


def scores_with_calibration(captioner: Captioner, source: Source) -> dict[str, float]:
    """The usual scores, the calibration error and the mean confidence, in per cent."""
    confidence, correct = token_confidence(captioner, source)
    return measure(captioner, source) | {
        "calibration error": calibration_error(confidence, correct),
        "confidence": 100 * confidence.mean().item(),
        "tokens right": 100 * correct.double().mean().item(),
    }
