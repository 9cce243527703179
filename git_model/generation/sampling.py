"""Greedy search and sampling.

Each step copies the chosen tokens from the device once; the copy also serves the check for an end
token.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from git_model.config import DecodingOptions
from git_model.generation.logits_processors import Hypothesis, LogitsProcessor
from git_model.generation.session import Prompts, TextSession
from git_model.utils.errors import GITError

MAX_LOGIT = 2**20  # above, neighbours in float32 are more than 0.1 apart


@dataclass(frozen=True)
class Generation:
    """One generated text.

    tokens: ids, without the prompt, with the end token if it was reached.
    score: the number by which the search ranks texts: in greedy search and sampling the
        log-probability, in beam search that with the length penalty of the style.
    logprob: log p(tokens | image, prompt) under the model, the sum of `token_logprobs`.
    """

    tokens: list[int]
    score: float
    logprob: float
    token_logprobs: list[float]

    @classmethod
    def of(cls, text: Hypothesis, score: float | None = None) -> "Generation":
        """A finished hypothesis; its score is its log-probability unless another is given."""
        logprob = sum(text.logprobs)
        return cls(text.tokens, logprob if score is None else score, logprob, text.logprobs)


@torch.inference_mode()
def greedy_or_sample(
    session: TextSession,
    prompts: Prompts,
    options: DecodingOptions,
    eos_ids: Collection[int],
    processor: LogitsProcessor,
) -> list[list[Generation]]:
    """Take the best token, or a random one, at each step until an end token.

    Returns:
        for each prompt `options.num_return_sequences` texts, best first.
    """
    copies = options.num_return_sequences
    texts = [Hypothesis(prompt, [], []) for prompt in prompts.rows for _ in range(copies)]
    limits = [limit for limit in prompts.max_new_tokens(options) for _ in range(copies)]
    rng = torch.Generator().manual_seed(options.seed)
    uniform = torch.rand(len(texts), max(limits), generator=rng)
    logits = require_range(session.step(prompts.tokens, prompts.token_mask).float())
    if copies > 1:
        rows = [row for row in range(len(prompts.rows)) for _ in range(copies)]
        session.select(rows)
        logits = logits[rows]
    live = list(range(len(texts)))  # the texts that have not ended, one per row of the session
    for step in range(max(limits)):
        scores = require_choice(processor(logits, [texts[i] for i in live]))
        next_tokens = (
            sample(scores, uniform[live, step], options) if options.do_sample else scores.argmax(-1)
        )
        logprobs = logits.log_softmax(-1).gather(1, next_tokens[:, None])[:, 0]
        for i, token, logprob in zip(live, next_tokens.tolist(), logprobs.tolist(), strict=True):
            texts[i].tokens.append(token)
            texts[i].logprobs.append(checked(logprob))
        rows = [
            row
            for row, i in enumerate(live)
            if texts[i].tokens[-1] not in eos_ids and step + 1 < limits[i]
        ]
        if not rows:
            break
        if len(rows) < len(live):  # finished texts cost nothing more
            session.select(rows)
            live, next_tokens = [live[row] for row in rows], next_tokens[rows]
        logits = session.step(next_tokens[:, None]).float()
    results = [Generation.of(text) for text in texts]
    groups = (results[first : first + copies] for first in range(0, len(results), copies))
    return [sorted(group, key=lambda generation: -generation.score) for group in groups]


def sample(scores: Tensor, uniform: Tensor, options: DecodingOptions) -> Tensor:
    """A token for each row (R,), drawn by inverting the cumulative distribution at `uniform`:
    random numbers (R,) from 0 to below 1.

    They are drawn in advance, one for each row and step, so that a text does not depend on the step
    at which other texts end.
    """
    scores, order = scores.sort(-1, descending=True)
    scores = (scores - scores[:, :1]) / options.temperature
    if options.top_k:
        scores[:, options.top_k :] = float("-inf")
    probs = scores.softmax(-1)
    before = probs.cumsum(-1) - probs  # the probability of all tokens that are more probable
    probs = probs.where(before < options.top_p, 0.0)  # nucleus sampling
    cumulative = probs.cumsum(-1)
    threshold = uniform.to(cumulative.device)[:, None] * cumulative[:, -1:]
    rank = (cumulative <= threshold).sum(-1, keepdim=True)
    last = (probs > 0).sum(-1, keepdim=True) - 1
    rank = rank.minimum(last).clamp(min=0)  # against rounding, and logits that are NaN
    return order.gather(1, rank)[:, 0]


def checked(logprob: float) -> float:
    """A log-probability, refused if it is NaN."""
    if math.isnan(logprob):
        raise GITError(
            "the model's logits are not numbers: the checkpoint is damaged, or its weights "
            "overflow in this number format (try float32)"
        )
    return logprob


def require_range(logits: Tensor) -> Tensor:
    """Logits (R, V), refused if they are too large to tell tokens apart.

    A softmax of such logits gives one token the probability 1, though nothing was certain.
    """
    largest = logits.abs().amax().item()
    if largest > MAX_LOGIT:
        raise GITError(
            f"the model's logits reach {largest:.3g}, expected at most {MAX_LOGIT:,}: the "
            "checkpoint is damaged, or its weights overflow, so no probability would be true"
        )
    return logits


def require_choice(scores: Tensor) -> Tensor:
    """Scores (R, V), refused if every token of a row is forbidden."""
    if scores.amax(-1).isneginf().any():
        raise GITError("every token is forbidden: suppress fewer tokens, or end the trie's texts")
    return scores
