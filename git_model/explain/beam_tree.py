"""Beam search as a tree: all that it weighed, what it went on with, and what it dropped."""

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

Fate = Literal["kept", "ended", "dropped"]


@dataclass(frozen=True)
class Branch:
    """One of the 2 x beams texts that a step of the search weighed.

    text: the new token as the vocabulary spells it.
    tokens: ids of the whole text, the new one last.
    probability: of the new token under the model, given all before it.
    score: the sum of scores by which the step ranks; without constraints the text's log p.
    parent: its place among the branches of the step before; None at the first step.
    fate: the search went on with it, or banked it as ended, or did neither.
    chosen: whether the text that won begins with it.
    """

    text: str
    tokens: list[int]
    probability: float
    score: float
    parent: int | None
    fate: Fate
    chosen: bool


@torch.inference_mode()
def beam_tree(
    model: GIT,
    scene: Scene,
    prompt: Sequence[int],
    options: DecodingOptions,
    winner: Sequence[int],
    spell: Callable[[int], str],
) -> list[list[Branch]]:
    """For each step of a beam search its branches, best first.

    Args:
        scene: of one image.
        prompt, options: as in `decoding.generate`, which has checked them.
        winner: what `generate` found with them; it is marked.
        spell: from an id to its token.
    """
    limit = model.config.decoder.positions - len(prompt)
    start = left_padded([prompt], model.config.pad_id, model.device)
    start = start._replace(limits=[min(options.max_new_tokens, limit)])
    eos_ids = model.config.eos_ids
    processor = chain(processors_of(options, eos_ids))
    session = Session(model, scene)
    tree: list[list[Branch]] = []
    for [(beams, candidates)] in beam_steps(session, start, options, eos_ids, processor):
        before = tree[-1] if tree else []
        tree.append([_branch(beams, candidate, before, winner, spell) for candidate in candidates])
    return tree


def _branch(
    beams: BeamState,
    candidate: Candidate,
    before: Sequence[Branch],
    winner: Sequence[int],
    spell: Callable[[int], str],
) -> Branch:
    """What has become of a candidate, now that its search has moved on."""
    rows = [place for place, branch in enumerate(before) if branch.fate == "kept"]
    parent = rows[candidate.parent] if before else None
    tokens = [*(before[parent].tokens if parent is not None else ()), candidate.token]
    fate: Fate = "dropped"
    if any(text.tokens == tokens for _, text in beams.bank):
        fate = "ended"
    elif not beams.done and any(beam.text.tokens == tokens for beam in beams.beams):
        fate = "kept"
    chosen = fate != "dropped" and tokens == list(winner[: len(tokens)])
    return Branch(
        text=spell(candidate.token),
        tokens=tokens,
        probability=math.exp(candidate.logprob),
        score=candidate.total,
        parent=parent,
        fate=fate,
        chosen=chosen,
    )
