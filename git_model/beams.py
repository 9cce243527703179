"""Beam search, in the dialects of both references."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from git_model.config import DecodingOptions
from git_model.constraints import Constraint, Text
from git_model.search import Generation, Prompts, TextSession, as_generation, as_number


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
        return [as_generation(text, score) for score, text in self.bank[: self.options.sequences]]

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


@torch.inference_mode()
def beam_search(
    session: TextSession,
    prompts: Prompts,
    options: DecodingOptions,
    eos_id: int,
    constraint: Constraint,
) -> list[list[Generation]]:
    """Keep the best `options.beams` texts of each prompt at every step."""
    steps = beam_steps(session, prompts, options, eos_id, constraint)
    searches = [beams for beams, _ in next(steps)]  # all of them are in work at the first step
    for _ in steps:
        pass
    return [beams.best() for beams in searches]


def beam_steps(
    session: TextSession,
    prompts: Prompts,
    options: DecodingOptions,
    eos_id: int,
    constraint: Constraint,
) -> Iterator[list[tuple[Beams, list[Candidate]]]]:
    """Beam search, step by step: the searches in work, each as its candidates have left it, and
    these candidates, best first."""
    kind = HuggingFaceBeams if options.dialect == "huggingface" else MicrosoftBeams
    live: list[Beams] = [
        kind(prompt, most, options, eos_id)
        for prompt, most in zip(prompts.rows, prompts.limits(options), strict=True)
    ]
    logits = session.step(prompts.tokens, prompts.token_mask).float()
    while live:
        rows, first, each = [], 0, len(logits) // len(live)
        step = list(zip(live, _candidates(logits, live, constraint), strict=True))
        for beams, candidates in step:
            beams.advance(candidates)
            if not beams.done:
                rows += [first + beam.parent for beam in beams.beams]
            first += each
        yield step
        live = [beams for beams in live if not beams.done]
        if live:
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
            Candidate(as_number(total), logprob, parent, token)
            for total, logprob, parent, token in zip(*one, strict=True)
        ]
