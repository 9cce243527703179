"""Greedy search, sampling and beam search.

They see a two-method `TextSession`, never the model, so they can be tested on small languages made
by hand. Texts are kept as lists: once a step the chosen tokens are fetched from the device, which
is the end check, too.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from git_model.config import DecodingOptions
from git_model.constraints import Constraint, Text, TokenTrie, all_of, constraints_of
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
def search(
    session: TextSession,
    prompts: Prompts,
    options: DecodingOptions,
    eos_id: int,
    trie: TokenTrie | None = None,
) -> list[list[Generation]]:
    """For each prompt the texts that the options ask for, best first.

    Args:
        trie: texts, each with its end token; only these are generated.
    """
    constraint = all_of([*constraints_of(options, eos_id), *([trie] if trie else [])])
    run = beam_search if options.beams > 1 else token_by_token
    return run(session, prompts, options, eos_id, constraint)


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
            texts[i].logprobs.append(_number(logprob))
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
    found = [_generation(text) for text in texts]
    groups = (found[first : first + each] for first in range(0, len(found), each))
    return [sorted(group, key=lambda one: -one.score) for group in groups]


def _number(logprob: float) -> float:
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


def _generation(text: Text, score: float | None = None) -> Generation:
    logprob = sum(text.logprobs)
    return Generation(text.tokens, logprob if score is None else score, logprob, text.logprobs)


class Beam(NamedTuple):
    """A text that beam search may go on with."""

    total: float  # the sum of its scores
    text: Text
    parent: int  # the row, among those of its prompt, that it continues


class Candidate(NamedTuple):
    """A beam and one more token."""

    total: float
    logprob: float  # of the token, under the model
    parent: int
    token: int


class Beams:
    """Beam search for one prompt: the beams in work, and a bank of the best that have ended."""

    def __init__(
        self, prompt: Sequence[int], most: int, options: DecodingOptions, eos_id: int
    ) -> None:
        self.most = most  # new tokens
        self.options = options
        self.eos_id = eos_id
        self.beams = [Beam(0.0, Text(prompt, [], []), 0)]
        self.bank: list[tuple[float, Text]] = []  # score and text, best first
        self.done = False

    @property
    def length(self) -> int:
        """Tokens of each beam, without the prompt."""
        return len(self.beams[0].text.tokens)

    def advance(self, candidates: Sequence[Candidate]) -> None:
        """Take the best 2 x beams candidates, best first: bank some, go on with others."""
        raise NotImplementedError

    def best(self) -> list[Generation]:
        """The texts asked for, best first."""
        return [_generation(text, score) for score, text in self.bank[: self.options.sequences]]

    def extended(self, candidate: Candidate) -> Beam:
        """The beam that a candidate makes."""
        old = self.beams[candidate.parent].text
        tokens, logprobs = [*old.tokens, candidate.token], [*old.logprobs, candidate.logprob]
        return Beam(candidate.total, Text(old.prompt, tokens, logprobs), candidate.parent)

    def put_in_bank(self, score: float, text: Text, room: int) -> None:
        """Keep a text that has ended if it is among the best `room`."""
        self.bank.append((score, text))
        self.bank.sort(key=lambda entry: -entry[0])
        del self.bank[room:]


class HuggingFaceBeams(Beams):
    """Scores are total / n ** length_penalty, n the generated tokens; an end counts only among the
    first `beams` candidates (Transformers, `_beam_search` with early_stopping=False)."""

    def advance(self, candidates: Sequence[Candidate]) -> None:
        """Go on while the best beam might still beat the worst text of a full bank."""
        n_beams, norm = self.options.beams, (self.length + 1) ** self.options.length_penalty
        last = self.length + 1 == self.most
        going = []
        for rank, candidate in enumerate(candidates):
            beam = self.extended(candidate)
            if candidate.token != self.eos_id and not last:
                going.append(beam)
            elif rank < n_beams:
                self.put_in_bank(candidate.total / norm, beam.text, n_beams)
        self.beams = going[:n_beams]
        full = len(self.bank) == n_beams
        self.done = last or (full and self.beams[0].total / norm <= self.bank[-1][0])


class MicrosoftBeams(Beams):
    """Scores are total / ((5 + n) / 6) ** length_penalty, n the tokens with the prompt and without
    the end; an end counts anywhere among the candidates until the beam is full
    (`GeneratorWithBeamSearch` in the original's decoder.py)."""

    def advance(self, candidates: Sequence[Candidate]) -> None:
        """Go on while the best candidate, at full length, might still beat the bank's worst."""
        n_tokens = len(self.beams[0].text.prompt) + self.length
        limit = n_tokens - self.length + self.most
        last = n_tokens + 1 == limit
        if len(self.bank) == self.options.sequences:
            best_possible = candidates[0].total / self._norm(limit - 1)
            self.done = self.bank[-1][0] >= best_possible
        going: list[Beam] = []
        for candidate in candidates:
            if self.done or len(going) == self.options.beams:
                break
            beam = self.extended(candidate)
            if candidate.token != self.eos_id and not last:
                going.append(beam)
                continue
            # At the limit the original takes the candidate's score but not its token.
            text = beam.text if candidate.token == self.eos_id else self.beams[beam.parent].text
            self.put_in_bank(candidate.total / self._norm(n_tokens), text, self.options.sequences)
        self.done = self.done or last
        self.beams = going or self.beams

    def _norm(self, n_tokens: int) -> float:
        return float(((5 + n_tokens) / 6) ** self.options.length_penalty)


def beam_search(
    session: TextSession,
    prompts: Prompts,
    options: DecodingOptions,
    eos_id: int,
    constraint: Constraint,
) -> list[list[Generation]]:
    """Keep the best `options.beams` texts of each prompt at every step."""
    kind = HuggingFaceBeams if options.dialect == "huggingface" else MicrosoftBeams
    searches = live = [
        kind(prompt, most, options, eos_id)
        for prompt, most in zip(prompts.rows, prompts.limits(options), strict=True)
    ]
    logits = session.step(prompts.tokens, prompts.token_mask).float()
    while True:
        rows, first, each = [], 0, len(logits) // len(live)
        for beams, candidates in zip(live, _candidates(logits, live, constraint), strict=True):
            beams.advance(candidates)
            if not beams.done:
                rows += [first + beam.parent for beam in beams.beams]
            first += each
        live = [beams for beams in live if not beams.done]
        if not live:
            return [beams.best() for beams in searches]
        session.select(rows)
        tokens = [[beam.text.tokens[-1]] for beams in live for beam in beams.beams]
        logits = session.step(torch.tensor(tokens, device=logits.device)).float()


def _candidates(
    logits: Tensor, live: Sequence[Beams], constraint: Constraint
) -> Iterator[list[Candidate]]:
    """For each prompt in work the best 2 x beams continuations of its rows, best first."""
    options = live[0].options
    beams = [beam for one in live for beam in one.beams]
    texts = [beam.text for beam in beams]
    known = logits.log_softmax(-1)
    if options.dialect == "huggingface":
        scores = constraint(known, texts)
    else:
        scores = constraint(logits, texts).log_softmax(-1)
    totals = scores + torch.tensor([[beam.total] for beam in beams], device=scores.device)
    n_words, each = logits.shape[1], len(beams) // len(live)
    totals, index = totals.view(len(live), -1).topk(2 * options.beams)
    parent, token = index // n_words, index % n_words
    first = torch.arange(len(live), device=index.device)[:, None] * each
    columns = totals, known[first + parent, token], parent, token
    for one in zip(*(column.tolist() for column in columns), strict=True):
        yield [
            Candidate(_number(total), logprob, parent, token)
            for total, logprob, parent, token in zip(*one, strict=True)
        ]


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
            [_number(known[depth][prompt][node]) for depth, node in enumerate(path)]
            for path in trie.paths
        ]
        for prompt in range(n_prompts)
    ]
