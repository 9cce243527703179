"""Greedy search, sampling, and the scoring of given texts; beams.py has beam search.

They see a two-method `TextSession`, never the model, so they can be tested on small languages made
by hand. Texts are kept as lists: once a step the chosen tokens are fetched from the device, which
is the end check, too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from git_model.config import DecodingOptions
from git_model.constraints import Constraint, Text, TokenTrie
from git_model.settings import GITError


class TextSession(Protocol):
    """R texts in progress."""

    def step(self, tokens: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """Append tokens (R, T), False in the mask for padding; logits (R, V) of what follows."""

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be taken twice."""


class Prompts(NamedTuple):
    """P prompts, as lists and as what a session is given first."""

    rows: Sequence[Sequence[int]]
    tokens: Tensor  # (P, T), all ending in the last column
    token_mask: Tensor | None  # (P, T), False for padding; None where there is none
    most: Sequence[int] = ()  # new tokens each may get; by default what the options say

    def limits(self, options: DecodingOptions) -> Sequence[int]:
        """The most new tokens for each prompt."""
        return self.most or [options.max_new_tokens] * len(self.rows)


@dataclass(frozen=True)
class Generation:
    """One generated text.

    tokens: ids without the prompt, with the end token if it was reached.
    score: what the search ranked it by; for greedy search and sampling the log-probability.
    logprob: log p(tokens | image, prompt) under the model, the sum of `token_logprobs`.
    """

    tokens: list[int]
    score: float
    logprob: float
    token_logprobs: list[float]


@torch.inference_mode()
def token_by_token(
    session: TextSession,
    prompts: Prompts,
    options: DecodingOptions,
    eos_id: int,
    constraint: Constraint,
) -> list[list[Generation]]:
    """Take one token after the other, the best one or one at random, until the end token."""
    each = options.sequences
    texts = [Text(prompt, [], []) for prompt in prompts.rows for _ in range(each)]
    most = [limit for limit in prompts.limits(options) for _ in range(each)]
    luck = torch.rand(len(texts), max(most), generator=_seeded(options))
    logits = session.step(prompts.tokens, prompts.token_mask).float()
    if each > 1:
        copies = [row for row in range(len(prompts.rows)) for _ in range(each)]
        session.select(copies)
        logits = logits[copies]
    live = list(range(len(texts)))  # the texts that have not ended, one for each row in work
    for step in range(max(most)):
        scores = constraint(logits, [texts[i] for i in live])
        if scores is not logits and scores.amax(-1).isneginf().any():
            raise GITError("every token is forbidden: suppress fewer, or end a trie's texts")
        chosen = _drawn(scores, luck[live, step], options) if options.sample else scores.argmax(-1)
        known = logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
        for i, token, logprob in zip(live, chosen.tolist(), known.tolist(), strict=True):
            texts[i].tokens.append(token)
            texts[i].logprobs.append(as_number(logprob))
        going = [
            row
            for row, i in enumerate(live)
            if texts[i].tokens[-1] != eos_id and step + 1 < most[i]
        ]
        if not going:
            break
        if len(going) < len(live):  # what has ended costs nothing more
            session.select(going)
            live, chosen = [live[row] for row in going], chosen[going]
        logits = session.step(chosen[:, None]).float()
    found = [as_generation(text) for text in texts]
    groups = (found[first : first + each] for first in range(0, len(found), each))
    return [sorted(group, key=lambda one: -one.score) for group in groups]


def as_number(logprob: float) -> float:
    """The log-probability, if it is a number."""
    if math.isnan(logprob):
        raise GITError(
            "the model's logits are no numbers: the checkpoint is damaged, or the number format "
            "too small for it"
        )
    return logprob


def _seeded(options: DecodingOptions) -> torch.Generator:
    return torch.Generator().manual_seed(options.seed)


def _drawn(scores: Tensor, luck: Tensor, options: DecodingOptions) -> Tensor:
    """A token for each row (R,), drawn by `luck`, numbers from 0 to 1.

    One number a token, drawn in advance, makes a text independent of when others end.
    """
    scores, order = scores.sort(-1, descending=True)
    scores = (scores - scores[:, :1]) / options.temperature
    if options.top_k:
        scores[:, options.top_k :] = float("-inf")
    probabilities = scores.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities  # of all tokens that are likelier
    probabilities = probabilities.where(before < options.top_p, 0.0)
    up_to = probabilities.cumsum(-1)
    wanted = luck.to(up_to.device)[:, None] * up_to[:, -1:]
    place = (up_to <= wanted).sum(-1, keepdim=True)
    last = (probabilities > 0).sum(-1, keepdim=True) - 1
    place = place.minimum(last).clamp(min=0)  # against rounding, and logits that are no numbers
    return order.gather(1, place)[:, 0]


def as_generation(text: Text, score: float | None = None) -> Generation:
    """A finished text; its score is its log-probability unless another is given."""
    logprob = sum(text.logprobs)
    return Generation(text.tokens, logprob if score is None else score, logprob, text.logprobs)


@torch.inference_mode()
def score(session: TextSession, prompts: Prompts, trie: TokenTrie) -> list[list[list[float]]]:
    """The exact log-probabilities of all texts of a trie behind each prompt.

    The trie is walked level by level, so a beginning that texts share is computed once.

    Returns:
        for each prompt, for each text, the log-probability of each of its tokens.
    """
    n_prompts = len(prompts.rows)
    logits = session.step(prompts.tokens, prompts.token_mask).float()
    place = {0: 0}  # for each node of the level before that goes on, its row among a prompt's
    known: list[list[list[float]]] = []  # for each level, prompt, node
    for depth, level in enumerate(trie.levels):
        parents, tokens = (
            torch.tensor(column, device=logits.device)
            for column in zip(*((place[parent], token) for parent, token in level), strict=True)
        )
        first = torch.arange(n_prompts, device=logits.device)[:, None] * len(place)
        known.append(logits.log_softmax(-1)[first + parents, tokens].tolist())
        deeper = trie.levels[depth + 1] if depth + 1 < len(trie.levels) else []
        going = sorted({parent for parent, _ in deeper})
        if going:
            session.select((first + parents[going]).flatten().tolist())
            logits = session.step(tokens[going].repeat(n_prompts)[:, None]).float()
        place = {node: row for row, node in enumerate(going)}
    return [
        [
            [as_number(known[depth][prompt][node]) for depth, node in enumerate(path)]
            for path in trie.paths
        ]
        for prompt in range(n_prompts)
    ]
