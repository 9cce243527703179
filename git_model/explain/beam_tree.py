"""A beam search as a tree: every candidate of every step, and its outcome."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from git_model.config import DecodingOptions
from git_model.generation.beam_search import BeamState, Candidate, beam_steps
from git_model.generation.logits_processors import chain, processors_of
from git_model.generation.session import Session, left_padded
from git_model.model.git import GIT, Scene

BranchOutcome = Literal["kept", "finished", "pruned"]


@dataclass(frozen=True)
class Branch:
    """A candidate that a step of the search ranked; a step ranks at least 2 x num_beams of them.

    text: the new token as the vocabulary spells it.
    tokens: ids of the whole text, the new token last.
    probability: of the new token under the model, given all tokens before it.
    score: the sum of scores by which the step ranks; without logits processors it is log p(text).
    parent: the index of the branch that it continues, among those of the previous step; None at
        the first step.
    outcome: whether the search kept it as a beam, banked it as finished, or pruned it.
    on_best_path: whether the best text begins with it.
    """

    text: str
    tokens: list[int]
    probability: float
    score: float
    parent: int | None
    outcome: BranchOutcome
    on_best_path: bool


@torch.inference_mode()
def beam_tree(
    model: GIT,
    scene: Scene,
    prompt: Sequence[int],
    options: DecodingOptions,
    best: Sequence[int],
    token_text: Callable[[int], str],
) -> list[list[Branch]]:
    """For each step of a beam search its branches, best first.

    Args:
        scene: of one image.
        prompt, options: as in `generation.generate`, which has checked them.
        best: the tokens of the best text that `generate` returned for them; its branches are
            marked.
        token_text: from an id to its token.
    """
    limit = model.config.decoder.positions - len(prompt)
    start = left_padded([prompt], model.config.pad_id, model.device)
    start = start._replace(limits=[min(options.max_new_tokens, limit)])
    eos_ids = model.config.eos_ids
    processor = chain(processors_of(options, eos_ids))
    session = Session(model, scene)
    tree: list[list[Branch]] = []
    for [(state, candidates)] in beam_steps(session, start, options, eos_ids, processor):
        previous = tree[-1] if tree else []
        tree.append(
            [_branch(state, candidate, previous, best, token_text) for candidate in candidates]
        )
    return tree


def _branch(
    state: BeamState,
    candidate: Candidate,
    previous: Sequence[Branch],
    best: Sequence[int],
    token_text: Callable[[int], str],
) -> Branch:
    """A candidate, with its outcome in the state after its step."""
    rows = [index for index, branch in enumerate(previous) if branch.outcome == "kept"]
    parent = rows[candidate.parent] if previous else None
    tokens = [*(previous[parent].tokens if parent is not None else ()), candidate.token]
    outcome: BranchOutcome = "pruned"
    if any(text.tokens == tokens for _, text in state.finished):
        outcome = "finished"
    elif not state.done and any(beam.text.tokens == tokens for beam in state.beams):
        outcome = "kept"
    return Branch(
        text=token_text(candidate.token),
        tokens=tokens,
        probability=math.exp(candidate.logprob),
        score=candidate.total,
        parent=parent,
        outcome=outcome,
        on_best_path=outcome != "pruned" and tokens == list(best[: len(tokens)]),
    )
