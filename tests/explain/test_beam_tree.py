"""A beam search as a tree."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_captioner import exact_captioner, picture

from git_model.config import DecodingOptions
from git_model.explain.beam_tree import Branch, beam_tree
from git_model.generation.generate import generate

CAPTIONER = exact_captioner()
PROMPT, EOS = [1], 2
OPTIONS = st.builds(
    DecodingOptions,
    num_beams=st.integers(2, 4),
    max_new_tokens=st.integers(2, 9),
    length_penalty=st.sampled_from([0.0, 0.6, 1.0]),
    style=st.sampled_from(["huggingface", "microsoft"]),
    no_repeat_ngram_size=st.sampled_from([0, 2]),
)


def search_tree(seed: int, options: DecodingOptions) -> tuple[list[list[Branch]], list[int], float]:
    """A tree, and the tokens and log-probability of the best text."""
    scene = CAPTIONER.see(picture(seed))
    [[text]] = generate(CAPTIONER.model, scene, [PROMPT], options)
    return (
        beam_tree(CAPTIONER.model, scene, PROMPT, options, text.tokens, str),
        text.tokens,
        text.logprob,
    )


@settings(max_examples=25)
@given(seed=st.integers(0, 50), options=OPTIONS)
def test_the_best_path_spells_the_best_text(seed: int, options: DecodingOptions) -> None:
    tree, best, _ = search_tree(seed, options)
    path = [branch for step in tree for branch in step if branch.on_best_path]
    assert [branch.tokens for branch in path] == [best[: n + 1] for n in range(len(path))]
    assert len(path) == len(best)


@settings(max_examples=25)
@given(seed=st.integers(0, 50), options=OPTIONS)
def test_each_branch_continues_a_kept_branch(seed: int, options: DecodingOptions) -> None:
    tree, _, _ = search_tree(seed, options)
    assert [branch.parent for branch in tree[0]] == [None] * (2 * options.num_beams)
    for previous, step in pairwise(tree):
        assert len(step) == 2 * options.num_beams
        for branch in step:
            parent = previous[branch.parent]
            assert parent.outcome == "kept"
            assert branch.tokens[:-1] == parent.tokens
            assert branch.score <= parent.score


@settings(max_examples=25)
@given(seed=st.integers(0, 50), options=OPTIONS)
def test_a_step_is_ranked_and_keeps_at_most_num_beams(seed: int, options: DecodingOptions) -> None:
    tree, _, _ = search_tree(seed, options)
    for number, step in enumerate(tree, start=1):
        scores = [branch.score for branch in step]
        assert scores == sorted(scores, reverse=True)
        kept = [branch for branch in step if branch.outcome == "kept"]
        assert len(kept) <= options.num_beams
        assert all(branch.tokens[-1] != EOS for branch in kept)
        assert bool(kept) == (number < len(tree))  # nothing continues after the last step


def test_scores_are_log_probabilities_without_logits_processors() -> None:
    tree, best, logprob = search_tree(0, DecodingOptions(num_beams=3, max_new_tokens=9))
    last = [branch for step in tree for branch in step if branch.on_best_path][-1]
    assert last.tokens == best
    assert last.score == pytest.approx(logprob, abs=1e-5)
    path = [branch for step in tree for branch in step if branch.on_best_path]
    product = torch.tensor([branch.probability for branch in path]).log().sum()
    assert product.item() == pytest.approx(logprob, abs=1e-5)


def test_a_search_keeps_finishes_and_prunes_branches() -> None:
    tree, _, _ = search_tree(0, DecodingOptions(num_beams=2, max_new_tokens=9))
    assert {branch.outcome for step in tree for branch in step} == {"kept", "finished", "pruned"}
