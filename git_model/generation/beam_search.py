"""Beam search, in the styles of both references."""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from git_model.config import DecodingOptions
from git_model.generation.logits_processors import Hypothesis, LogitsProcessor
from git_model.generation.sampling import Generation, checked, require_choice, require_range
from git_model.generation.session import Prompts, TextSession


class Beam(NamedTuple):
    """A hypothesis that the search may extend."""

    total: float  # the sum of its scores
    text: Hypothesis
    parent: int  # the row, among those of its prompt, that it continues


class Candidate(NamedTuple):
    """A beam and one more token."""

    total: float
    logprob: float  # of the token, under the model
    parent: int
    token: int


class BeamState:
    """Beam search for one prompt: the live beams, and the best finished hypotheses."""

    def __init__(
        self,
        prompt: Sequence[int],
        max_new_tokens: int,
        options: DecodingOptions,
        eos_ids: Collection[int],
    ) -> None:
        self.max_new_tokens = max_new_tokens
        self.options = options
        self.eos_ids = eos_ids
        self.beams = [Beam(0.0, Hypothesis(prompt, [], []), 0)]
        self.finished: list[tuple[float, Hypothesis]] = []  # with scores, best first
        self.done = False

    @property
    def length(self) -> int:
        """Tokens of each beam, without the prompt."""
        return len(self.beams[0].text.tokens)

    @property
    def n_candidates(self) -> int:
        """Candidates of each step: enough that `num_beams` of them continue even if all others
        end. With one end token both references take 2 x num_beams."""
        return max(2, 1 + len(self.eos_ids)) * self.options.num_beams

    def advance(self, candidates: Sequence[Candidate]) -> None:
        """Process the `n_candidates` best candidates, best first: bank those that end, continue
        with the others."""
        raise NotImplementedError

    @staticmethod
    def scores(
        logits: Tensor, hypotheses: Sequence[Hypothesis], processor: LogitsProcessor
    ) -> Tensor:
        """The score of each next token (R, V), from logits (R, V)."""
        raise NotImplementedError

    def best(self) -> list[Generation]:
        """The requested number of texts, best first."""
        n_texts = self.options.num_return_sequences
        return [Generation.of(text, score) for score, text in self.finished[:n_texts]]

    def extended(self, candidate: Candidate) -> Beam:
        """The beam that a candidate becomes."""
        old = self.beams[candidate.parent].text
        tokens, logprobs = [*old.tokens, candidate.token], [*old.logprobs, candidate.logprob]
        return Beam(candidate.total, Hypothesis(old.prompt, tokens, logprobs), candidate.parent)

    def finish(self, score: float, text: Hypothesis, capacity: int) -> None:
        """Bank a finished hypothesis if it is among the best `capacity` and its score is finite."""
        if score == -math.inf:
            return
        self.finished.append((score, text))
        self.finished.sort(key=lambda entry: -entry[0])
        del self.finished[capacity:]


class HuggingFaceBeams(BeamState):
    """Scores are total / n ** length_penalty, n the number of generated tokens. A candidate that
    ends is banked only among the first `num_beams` candidates (Transformers, `_beam_search`)."""

    @staticmethod
    def scores(
        logits: Tensor, hypotheses: Sequence[Hypothesis], processor: LogitsProcessor
    ) -> Tensor:
        """The processed log-probabilities."""
        return processor(logits.log_softmax(-1), hypotheses)

    def advance(self, candidates: Sequence[Candidate]) -> None:
        """Continue while the best beam might still beat the worst of `num_beams` finished ones."""
        n_beams, norm = self.options.num_beams, self._norm(self.length + 1)
        last = self.length + 1 == self.max_new_tokens
        beams = []
        for rank, candidate in enumerate(candidates):
            beam = self.extended(candidate)
            if candidate.token not in self.eos_ids and not last:
                beams.append(beam)
            elif rank < n_beams:
                self.finish(candidate.total / norm, beam.text, n_beams)
        self.beams = beams[:n_beams]
        self.done = last or (len(self.finished) == n_beams and self._cannot_improve())

    def _cannot_improve(self) -> bool:
        """Whether no beam is expected to beat the finished ones (Transformers' early-stop
        heuristic)."""
        if self.options.early_stopping is True:
            return True
        longest = self.options.early_stopping == "never" and self.options.length_penalty > 0
        n_tokens = self.max_new_tokens if longest else self.length
        return self.beams[0].total / self._norm(n_tokens) <= self.finished[-1][0]

    def _norm(self, n_tokens: int) -> float:
        return float(n_tokens**self.options.length_penalty)


class MicrosoftBeams(BeamState):
    """Scores are total / ((5 + n) / 6) ** length_penalty, n the number of tokens with the prompt
    and without the end token. A candidate that ends is banked at any rank until the beam is full
    (`GeneratorWithBeamSearch` in the original's decoder.py). `early_stopping` has no effect."""

    @staticmethod
    def scores(
        logits: Tensor, hypotheses: Sequence[Hypothesis], processor: LogitsProcessor
    ) -> Tensor:
        """The log-probabilities of the processed logits."""
        return require_choice(processor(logits, hypotheses)).log_softmax(-1)

    def advance(self, candidates: Sequence[Candidate]) -> None:
        """Continue while the best candidate, at full length, might beat the worst finished one."""
        n_prompt = len(self.beams[0].text.prompt)
        n_tokens, limit = n_prompt + self.length, n_prompt + self.max_new_tokens
        last = n_tokens + 1 == limit
        n_texts = self.options.num_return_sequences
        if len(self.finished) == n_texts:
            best_possible = candidates[0].total / self._norm(limit - 1)
            self.done = self.finished[-1][0] >= best_possible
        beams: list[Beam] = []
        for candidate in candidates:
            if self.done or len(beams) == self.options.num_beams:
                break
            beam = self.extended(candidate)
            if candidate.token not in self.eos_ids and not last:
                beams.append(beam)
                continue
            # At the limit the original takes the candidate's score but not its token.
            ended = candidate.token in self.eos_ids
            text = beam.text if ended else self.beams[beam.parent].text
            self.finish(candidate.total / self._norm(n_tokens), text, n_texts)
        self.done = self.done or last
        if not self.done:
            self.beams = beams

    def _norm(self, n_tokens: int) -> float:
        return float(((5 + n_tokens) / 6) ** self.options.length_penalty)


@torch.inference_mode()
def beam_search(
    session: TextSession,
    prompts: Prompts,
    options: DecodingOptions,
    eos_ids: Collection[int],
    processor: LogitsProcessor,
) -> list[list[Generation]]:
    """Keep the best `options.num_beams` hypotheses of each prompt at every step."""
    steps = beam_steps(session, prompts, options, eos_ids, processor)
    states = [state for state, _ in next(steps)]  # at the first step all prompts are live
    for _ in steps:
        pass
    return [state.best() for state in states]


def beam_steps(
    session: TextSession,
    prompts: Prompts,
    options: DecodingOptions,
    eos_ids: Collection[int],
    processor: LogitsProcessor,
) -> Iterator[list[tuple[BeamState, list[Candidate]]]]:
    """Beam search, step by step: the state of each live prompt after its candidates, and these
    candidates, best first."""
    kind = HuggingFaceBeams if options.style == "huggingface" else MicrosoftBeams
    live: list[BeamState] = [
        kind(prompt, limit, options, eos_ids)
        for prompt, limit in zip(prompts.rows, prompts.max_new_tokens(options), strict=True)
    ]
    logits = require_range(session.step(prompts.tokens, prompts.token_mask).float())
    while live:
        rows, first, rows_per_prompt = [], 0, len(logits) // len(live)
        step = list(zip(live, _candidates(logits, live, processor), strict=True))
        for state, candidates in step:
            state.advance(candidates)
            if not state.done:
                rows += [first + beam.parent for beam in state.beams]
            first += rows_per_prompt
        yield step
        live = [state for state in live if not state.done]
        if live:
            session.select(rows)
            next_tokens = [[beam.text.tokens[-1]] for state in live for beam in state.beams]
            logits = session.step(torch.tensor(next_tokens, device=logits.device)).float()


def _candidates(
    logits: Tensor, live: Sequence[BeamState], processor: LogitsProcessor
) -> Iterator[list[Candidate]]:
    """For each live prompt the best continuations of its rows, best first."""
    beams = [beam for state in live for beam in state.beams]
    hypotheses = [beam.text for beam in beams]
    logprobs, scores = logits.log_softmax(-1), live[0].scores(logits, hypotheses, processor)
    totals = scores + torch.tensor([[beam.total] for beam in beams], device=scores.device)
    vocab_size, rows_per_prompt = logits.shape[1], len(beams) // len(live)
    totals, index = require_choice(totals.view(len(live), -1)).topk(live[0].n_candidates)
    parent, token = index // vocab_size, index % vocab_size
    first = torch.arange(len(live), device=index.device)[:, None] * rows_per_prompt
    columns = totals, logprobs[first + parent, token], parent, token
    for prompt_columns in zip(*(column.tolist() for column in columns), strict=True):
        yield [
            Candidate(checked(total), logprob, parent, token)
            for total, logprob, parent, token in zip(*prompt_columns, strict=True)
        ]
