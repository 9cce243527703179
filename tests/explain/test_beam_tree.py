"""Beam search as a tree."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_captioner import exact_captioner, picture

from git_model.config import DecodingOptions
from git_model.explain.beam_tree import Branch, beam_tree
from git_model.generation.generate import generate

GIT = exact_captioner()
PROMPT, END = [1], 2
OPTIONS = st.builds(
    DecodingOptions,
    num_beams=st.integers(2, 4),
    max_new_tokens=st.integers(2, 9),
    length_penalty=st.sampled_from([0.0, 0.6, 1.0]),
    style=st.sampled_from(["huggingface", "microsoft"]),
    no_repeat_ngram_size=st.sampled_from([0, 2]),
)


def grown(seed: int, options: DecodingOptions) -> tuple[list[list[Branch]], list[int], float]:
    """A tree, and the tokens and score of the text that won."""
    scene = GIT.see(picture(seed))
    [[best]] = generate(GIT.model, scene, [PROMPT], options)
    return beam_tree(GIT.model, scene, PROMPT, options, best.tokens, str), best.tokens, best.logprob


@settings(max_examples=25)
@given(seed=st.integers(0, 50), options=OPTIONS)
def test_the_marked_branches_spell_the_text_that_won(seed: int, options: DecodingOptions) -> None:
    tree, winner, _ = grown(seed, options)
    marked = [branch for step in tree for branch in step if branch.chosen]
    assert [branch.tokens for branch in marked] == [winner[: n + 1] for n in range(len(marked))]
    assert len(marked) == len(winner)


@settings(max_examples=25)
@given(seed=st.integers(0, 50), options=OPTIONS)
def test_each_branch_continues_one_that_was_kept(seed: int, options: DecodingOptions) -> None:
    tree, _, _ = grown(seed, options)
    assert [branch.parent for branch in tree[0]] == [None] * (2 * options.num_beams)
    for before, step in pairwise(tree):
        assert len(step) == 2 * options.num_beams
        for branch in step:
            parent = before[branch.parent]
            assert parent.fate == "kept"
            assert branch.tokens[:-1] == parent.tokens
            assert branch.score <= parent.score


@settings(max_examples=25)
@given(seed=st.integers(0, 50), options=OPTIONS)
def test_a_step_is_ranked_and_keeps_as_many_as_there_are_beams(
    seed: int, options: DecodingOptions
) -> None:
    tree, _, _ = grown(seed, options)
    for number, step in enumerate(tree, start=1):
        scores = [branch.score for branch in step]
        assert scores == sorted(scores, reverse=True)
        kept = [branch for branch in step if branch.fate == "kept"]
        assert len(kept) <= options.num_beams
        assert all(branch.tokens[-1] != END for branch in kept)
        assert bool(kept) == (number < len(tree))  # after the last step nothing goes on


def test_scores_are_log_probabilities_where_nothing_is_forbidden() -> None:
    tree, winner, logprob = grown(0, DecodingOptions(num_beams=3, max_new_tokens=9))
    last = [branch for step in tree for branch in step if branch.chosen][-1]
    assert last.tokens == winner
    assert last.score == pytest.approx(logprob, abs=1e-5)
    marked = [branch for step in tree for branch in step if branch.chosen]
    product = torch.tensor([branch.probability for branch in marked]).log().sum()
    assert product.item() == pytest.approx(logprob, abs=1e-5)


def test_more_beams_than_one_drop_something() -> None:
    tree, _, _ = grown(0, DecodingOptions(num_beams=2, max_new_tokens=9))
    assert {branch.fate for step in tree for branch in step} == {"kept", "ended", "dropped"}
