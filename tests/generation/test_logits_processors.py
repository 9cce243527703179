"""What a text may not say."""

import doctest

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    MinNewTokensLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

from git_model import DecodingOptions
from git_model.generation import trie
from git_model.generation.logits_processors import (
    Hypothesis,
    chain,
    min_length,
    no_repeat_ngram,
    no_repeat_token,
    processors_of,
    repetition_penalty,
    suppress,
)
from git_model.generation.trie import TokenTrie

N_WORDS = 6
TOKENS = st.lists(st.integers(0, N_WORDS - 1), min_size=1, max_size=12)


def agree(ours, theirs, prompt: list[int], generated: list[int]) -> None:
    scores = torch.randn(1, N_WORDS, generator=torch.Generator().manual_seed(0))
    before = scores.clone()
    found = ours(scores, [Hypothesis(prompt, generated, [])])
    assert torch.equal(scores, before), "a constraint must not change what it is given"
    assert torch.equal(found, theirs(torch.tensor([prompt + generated]), scores.clone()))


@given(prompt=TOKENS, generated=TOKENS, size=st.integers(1, 4))
def test_runs_of_tokens_are_forbidden_as_in_transformers(prompt, generated, size) -> None:
    agree(no_repeat_ngram(size), NoRepeatNGramLogitsProcessor(size), prompt, generated)


@given(prompt=TOKENS, generated=TOKENS, penalty=st.floats(0.5, 3))
def test_repetition_is_made_unlikely_as_in_transformers(prompt, generated, penalty) -> None:
    agree(repetition_penalty(penalty), RepetitionPenaltyLogitsProcessor(penalty), prompt, generated)


@given(prompt=TOKENS, generated=TOKENS, least=st.integers(1, 14))
def test_the_end_is_put_off_as_in_transformers(prompt, generated, least) -> None:
    theirs = MinNewTokensLengthLogitsProcessor(len(prompt), least, torch.tensor([2]))
    agree(min_length(least, 0, (2,)), theirs, prompt, generated)


@given(tokens=st.lists(st.integers(0, N_WORDS - 1), min_size=1))
def test_tokens_are_suppressed_as_in_transformers(tokens) -> None:
    agree(suppress(tokens), SuppressTokensLogitsProcessor(tokens), [1], [])


def test_a_token_may_not_follow_itself_but_the_first_is_free() -> None:
    texts = [Hypothesis([1], [1, 2], []), Hypothesis([1], [], [])]
    allowed = no_repeat_token(torch.zeros(2, 4), texts)
    assert allowed.isinf().tolist() == [[False, False, True, False], [False] * 4]


def test_options_at_rest_forbid_nothing() -> None:
    scores = torch.randn(1, 4)
    constraint = chain(processors_of(DecodingOptions(), eos_ids=(2,)))
    assert constraint(scores, [Hypothesis([1, 1], [1, 1], [])]) is scores


@pytest.mark.parametrize("name", ["repetition_penalty", "no_repeat_ngram_size", "no_repeat_token",
                                  "min_new_tokens", "suppress_tokens"])  # fmt: skip
def test_each_option_has_an_effect(name: str) -> None:
    value = {"repetition_penalty": 2.0, "no_repeat_token": True, "suppress_tokens": (3,)}.get(
        name, 3
    )
    constraint = chain(processors_of(DecodingOptions(**{name: value}), eos_ids=(2,)))
    scores, text = torch.ones(1, 6), Hypothesis([1], [4, 5, 4, 5, 4], [])
    text = text if name != "min_new_tokens" else Hypothesis([1], [4, 5], [])
    assert not torch.equal(constraint(scores, [text]), scores)


WORDS = st.lists(st.integers(0, 3), min_size=1, max_size=4)


@given(texts=st.lists(WORDS, min_size=1, max_size=8))
def test_a_trie_has_every_text_and_each_beginning_once(texts: list[list[int]]) -> None:
    trie = TokenTrie(texts)
    for text, path in zip(texts, trie.paths, strict=True):
        parents = [0, *path]
        assert [trie.levels[n][parents[n], token] for n, token in enumerate(text)] == path
    beginnings = {tuple(text[:n]) for text in texts for n in range(1, len(text) + 1)}
    assert sum(map(len, trie.levels)) == len(beginnings)


@given(texts=st.lists(WORDS, min_size=1, max_size=8), said=st.lists(st.integers(0, 3), max_size=5))
def test_a_trie_allows_what_begins_one_of_its_texts(texts, said) -> None:
    expected = {t[len(said)] for t in texts if t[: len(said)] == said and len(t) > len(said)}
    trie = TokenTrie(texts)
    assert set(trie.allowed(said)) == expected
    scores = trie(torch.zeros(1, 4), [Hypothesis([1], said, [])])
    assert set(scores.isfinite().nonzero()[:, 1].tolist()) == expected


def test_the_drawing_of_a_trie_is_true() -> None:
    assert doctest.testmod(trie).failed == 0
