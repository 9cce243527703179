"""Logits processors: stateless functions that change the scores of the next token.

A processor gets scores (R, V), logits or log-probabilities, and the hypothesis of each row. A
forbidden token gets -inf. The input tensor is never written to. (In Transformers a processor takes
its arguments in the other order.)
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from git_model.config import DecodingOptions


class Hypothesis(NamedTuple):
    """A text in progress: its prompt, the tokens generated after it, and their
    log-probabilities."""

    prompt: Sequence[int]
    tokens: list[int]
    logprobs: list[float]


LogitsProcessor = Callable[[Tensor, Sequence[Hypothesis]], Tensor]


def suppress(tokens: Sequence[int]) -> LogitsProcessor:
    """These tokens are never generated."""

    def processor(scores: Tensor, _hypotheses: Sequence[Hypothesis]) -> Tensor:
        return scores.index_fill(1, torch.tensor(tokens, device=scores.device), float("-inf"))

    return processor


def min_length(n_new_tokens: int, n_tokens: int, eos_ids: Collection[int]) -> LogitsProcessor:
    """No end token comes before `n_new_tokens` new tokens, nor before `n_tokens` with the
    prompt."""

    def is_short(text: Hypothesis) -> bool:
        n_new = len(text.tokens)
        return n_new < n_new_tokens or len(text.prompt) + n_new < n_tokens

    def processor(scores: Tensor, hypotheses: Sequence[Hypothesis]) -> Tensor:
        short = [row for row, text in enumerate(hypotheses) if is_short(text)]
        return _forbid(scores, ((row, eos_id) for row in short for eos_id in eos_ids))

    return processor


def repetition_penalty(penalty: float) -> LogitsProcessor:
    """Tokens of prompt and text become less probable: a positive score is divided by the penalty, a
    negative score is multiplied by it (Keskar et al. 2019, section 4.1)."""

    def processor(scores: Tensor, hypotheses: Sequence[Hypothesis]) -> Tensor:
        seen = torch.zeros_like(scores, dtype=torch.bool)
        for row, text in enumerate(hypotheses):
            seen[row, [*text.prompt, *text.tokens]] = True
        penalized = torch.where(scores < 0, scores * penalty, scores / penalty)
        return torch.where(seen, penalized, scores)

    return processor


def no_repeat_ngram(size: int) -> LogitsProcessor:
    """No n-gram of `size` tokens occurs twice in prompt and text."""

    def processor(scores: Tensor, hypotheses: Sequence[Hypothesis]) -> Tensor:
        repeats = (
            (row, token)
            for row, text in enumerate(hypotheses)
            for token in _completing_ngram(text, size)
        )
        return _forbid(scores, repeats)

    return processor


def no_repeat_token(scores: Tensor, hypotheses: Sequence[Hypothesis]) -> Tensor:
    """A token never follows itself (`AutoRegressiveBeamSearch` in the original's decoder.py)."""
    last = ((row, text.tokens[-1]) for row, text in enumerate(hypotheses) if text.tokens)
    return _forbid(scores, last)


def chain(processors: Sequence[LogitsProcessor]) -> LogitsProcessor:
    """Several processors as one, applied in this order."""

    def processor(scores: Tensor, hypotheses: Sequence[Hypothesis]) -> Tensor:
        for step in processors:
            scores = step(scores, hypotheses)
        return scores

    return processor


def processors_of(options: DecodingOptions, eos_ids: Collection[int]) -> list[LogitsProcessor]:
    """A processor for each option that is not at its default, in Transformers' order."""
    processors: list[LogitsProcessor] = []
    if options.repetition_penalty != 1:
        processors.append(repetition_penalty(options.repetition_penalty))
    if options.no_repeat_ngram_size:
        processors.append(no_repeat_ngram(options.no_repeat_ngram_size))
    if options.no_repeat_token:
        processors.append(no_repeat_token)
    if options.min_new_tokens or options.min_length:
        processors.append(min_length(options.min_new_tokens, options.min_length, eos_ids))
    if options.suppress_tokens:
        processors.append(suppress(options.suppress_tokens))
    return processors


def _completing_ngram(text: Hypothesis, size: int) -> Iterable[int]:
    """The tokens that would repeat an n-gram of the text."""
    tokens = [*text.prompt, *text.tokens]
    end = tokens[len(tokens) - size + 1 :]
    starts = range(len(tokens) - size + 1)
    return [tokens[s + size - 1] for s in starts if tokens[s : s + size - 1] == end]


def _forbid(scores: Tensor, pairs: Iterable[tuple[int, int]]) -> Tensor:
    """The scores with -inf at these (row, token)."""
    positions = list(pairs)
    if not positions:
        return scores
    row, token = torch.tensor(positions, device=scores.device).T
    return scores.index_put((row, token), scores.new_tensor(float("-inf")))
