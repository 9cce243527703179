"""The searches on small languages made by hand, where the right answer is known."""

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from languages import Language, markov

from git_model import DecodingOptions, GITError
from git_model.generation.generate import searcher
from git_model.generation.sampling import Generation
from git_model.generation.scoring import score_trie
from git_model.generation.session import left_padded
from git_model.generation.trie import TokenTrie


def search(session, prompts, options, eos_ids, trie=None):
    return searcher(options, eos_ids, trie)(session, prompts)


START, END, A, B, C = 0, 1, 2, 3, 4
# From the start A is likeliest, after it the end; B is followed by C for ever.
ENDS_OR_NOT = markov(
    {
        START: {A: 0.6, B: 0.4},
        A: {END: 0.7, B: 0.3},
        B: {C: 0.9, END: 0.1},
        C: {C: 0.8, END: 0.2},
    },
    size=5,
)


def run(prompts, language=ENDS_OR_NOT, **options) -> tuple[list[list[Generation]], Language]:
    session = Language(language)
    settings = DecodingOptions(**{"max_new_tokens": 4, **options})
    return search(session, left_padded(prompts, pad_id=START), settings, (END,)), session


def best(prompts, language=ENDS_OR_NOT, **options) -> list[Generation]:
    return [texts[0] for texts in run(prompts, language, **options)[0]]


def test_the_likeliest_token_is_taken_until_the_end() -> None:
    (result,) = best([[START]])
    assert result.tokens == [A, END]
    assert result.token_logprobs == pytest.approx([math.log(0.6), math.log(0.7)])
    assert result.logprob == result.score == pytest.approx(math.log(0.42))


def test_a_text_without_an_end_stops_at_the_limit() -> None:
    (result,) = best([[START, B]])
    assert result.tokens == [C, C, C, C]


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 2}, {"num_beams": 2, "style": "microsoft"}], ids=str
)
def test_prompts_of_different_length_do_not_disturb_each_other(options) -> None:
    prompts = [[START], [START, B], [START, A, B, C]]
    assert best(prompts, **options) == [best([prompt], **options)[0] for prompt in prompts]


def test_a_finished_text_costs_nothing_more() -> None:
    _, session = run([[START], [B]])
    assert session.rows_in_work == [2, 2, 1, 1]


def test_the_last_new_token_is_not_fed_back() -> None:
    assert run([[B]], max_new_tokens=1)[1].rows_in_work == [1]


def test_a_prompt_is_computed_once_for_all_of_its_beams() -> None:
    _, session = run([[START, B], [START, A]], num_beams=2)
    assert session.rows_in_work[:2] == [2, 4]


# ---- beam search, against enumeration


def every_text(language, prompt: Sequence[int], size: int, limit: int):
    """(tokens, log-probability) of every text that ends or reaches the limit."""
    for length in range(1, limit + 1):
        for tokens in itertools.product(range(size), repeat=length):
            ends = tokens[-1] == END
            if END in tokens[:-1] or not (ends or length == limit):
                continue
            logprob = 0.0
            for n, token in enumerate(tokens):
                logits = torch.tensor(language([*prompt, *tokens[:n]]))
                logprob += logits.log_softmax(-1)[token].item()
            yield list(tokens), logprob


def random_language(seed: int, size: int, unused: int = 0):
    """Any text has its own random distribution of what follows; more words are never said."""

    def logits_of(text: Sequence[int]) -> list[float]:
        number = seed
        for token in text:
            number = (number * 31 + token + 1) % 2**31
        draw = torch.Generator().manual_seed(number)
        return [*(2 * torch.randn(size, generator=draw)).tolist(), *[-1e4] * unused]

    return logits_of


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), penalty=st.sampled_from([0.0, 0.6, 1.0, 2.0]))
def test_with_beams_for_everything_the_best_text_of_all_is_found(seed, penalty) -> None:
    size, limit, prompt = 4, 3, [START, 3]
    language = random_language(seed, size, unused=36)  # so that 20 beams find 40 candidates
    (result,), _ = run(
        [prompt],
        language,
        num_beams=20,
        num_return_sequences=3,
        length_penalty=penalty,
        max_new_tokens=limit,
    )
    scored = [(logprob / len(tokens) ** penalty, tokens) for tokens, logprob in
              every_text(language, prompt, size, limit)]  # fmt: skip
    scored.sort(reverse=True)
    assert [text.tokens for text in result] == [tokens for _, tokens in scored[:3]]
    assert [text.score for text in result] == pytest.approx([s for s, _ in scored[:3]], abs=1e-5)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), num_beams=st.integers(2, 4))
def test_returned_texts_carry_their_own_logprobs(seed: int, num_beams: int) -> None:
    language = random_language(seed, 9)
    for style in ("huggingface", "microsoft"):
        (result,), _ = run(
            [[START]], language, num_beams=num_beams, num_return_sequences=2, style=style
        )
        for text in result:
            for n, (token, logprob) in enumerate(
                zip(text.tokens, text.token_logprobs, strict=True)
            ):
                logits = torch.tensor(language([START, *text.tokens[:n]]))
                assert logprob == pytest.approx(logits.log_softmax(-1)[token].item(), abs=1e-5)
            assert text.logprob == pytest.approx(sum(text.token_logprobs))


# A greedy trap: A looks best at first, but the best text of all begins with B.
TRAP = markov(
    {START: {A: 0.55, B: 0.45}, A: {A: 0.5, C: 0.5}, B: {END: 1.0}, C: {END: 1.0}}, size=9
)


def test_beam_search_escapes_the_trap_that_greedy_search_falls_into() -> None:
    assert best([[START]], TRAP)[0].tokens[0] == A
    assert best([[START]], TRAP, num_beams=2, length_penalty=0.0)[0].tokens == [B, END]


def test_the_styles_differ_in_where_an_end_may_stand() -> None:
    # The end is third among four candidates: outside the first two beams.
    language = markov({START: {A: 0.5, B: 0.3, END: 0.2}, A: {A: 1.0}, B: {B: 1.0}}, size=9)
    options = {"num_beams": 2, "max_new_tokens": 2, "length_penalty": 0.01}
    theirs = run([[START]], language, style="huggingface", num_return_sequences=2, **options)[0][0]
    originals = run([[START]], language, style="microsoft", num_return_sequences=2, **options)[0][0]
    assert [text.tokens for text in theirs] == [[A, A], [B, B]]
    assert [text.tokens for text in originals] == [[A], [B]]  # at the limit the last token is cut
    three = run([[START]], language, style="microsoft", num_beams=3, num_return_sequences=3,
                max_new_tokens=2, length_penalty=0.01)[0][0]  # fmt: skip
    assert [END] in [text.tokens for text in three]


def test_the_originals_score_counts_the_prompt() -> None:
    options = {"num_beams": 2, "style": "microsoft", "length_penalty": 0.6}
    short, long = best([[START], [A, A, START]], TRAP, **options)
    assert short.score == pytest.approx(short.logprob / ((5 + 2) / 6) ** 0.6)
    assert long.score == pytest.approx(long.logprob / ((5 + 4) / 6) ** 0.6)


# ---- sampling


def counts(language, n: int, **options) -> dict[int, float]:
    (result,), _ = run(
        [[START]], language, do_sample=True, num_return_sequences=n, max_new_tokens=1, **options
    )
    tokens = [text.tokens[0] for text in result]
    return {token: tokens.count(token) / n for token in set(tokens)}


SPREAD = markov({START: {A: 0.5, B: 0.3, C: 0.15, END: 0.05}}, size=5)


def test_samples_come_as_often_as_the_language_says() -> None:
    share = counts(SPREAD, 4000)
    for token, expected in ((A, 0.5), (B, 0.3), (C, 0.15), (END, 0.05)):
        assert share[token] == pytest.approx(expected, abs=0.03)


def test_top_k_and_top_p_leave_out_the_unlikely() -> None:
    assert counts(SPREAD, 500, top_k=2).keys() == {A, B}
    assert counts(SPREAD, 500, top_p=0.6).keys() == {A, B}
    assert counts(SPREAD, 500, top_p=0.5).keys() == {A}
    assert counts(SPREAD, 500, top_p=0.81).keys() == {A, B, C}


def test_a_low_temperature_makes_samples_safer_and_a_high_one_wilder() -> None:
    assert counts(SPREAD, 2000, temperature=0.5)[A] == pytest.approx(0.25 / 0.365, abs=0.05)
    assert counts(SPREAD, 2000, temperature=5.0)[A] < 0.4


def test_the_seed_decides_what_is_sampled() -> None:
    options = {"do_sample": True, "num_return_sequences": 20}
    assert run([[START]], seed=3, **options)[0] == run([[START]], seed=3, **options)[0]
    assert run([[START]], seed=3, **options)[0] != run([[START]], seed=4, **options)[0]


def test_a_sample_does_not_depend_on_what_is_sampled_behind_it() -> None:
    alone = run([[START]], do_sample=True)[0]
    assert run([[START], [B], [A]], do_sample=True)[0][0] == alone[0]


def test_samples_are_returned_best_first() -> None:
    (result,), _ = run([[START]], do_sample=True, num_return_sequences=9)
    assert [text.score for text in result] == sorted((text.score for text in result), reverse=True)


# ---- constraints at work


def test_a_token_need_not_follow_itself() -> None:
    (result,) = best([[START, B]], no_repeat_token=True)
    assert result.tokens == [C, END]
    assert result.token_logprobs == pytest.approx([math.log(0.9), math.log(0.2)])


def test_an_end_may_be_put_off_and_a_token_forbidden() -> None:
    assert best([[START]], min_new_tokens=2)[0].tokens == [A, B, C, C]
    assert best([[START]], suppress_tokens=(A,))[0].tokens == [B, C, C, C]


# ---- scoring


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    texts=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=9),
)
def test_every_text_of_a_trie_gets_its_exact_logprobs(seed: int, texts: list[list[int]]) -> None:
    language, prompts = random_language(seed, 6), [[START], [START, 4, 2]]
    result = score_trie(Language(language), left_padded(prompts, pad_id=START), TokenTrie(texts))
    for prompt, of_prompt in zip(prompts, result, strict=True):
        for text, logprobs in zip(texts, of_prompt, strict=True):
            for n, token in enumerate(text):
                expected = torch.tensor(language([*prompt, *text[:n]])).log_softmax(-1)[token]
                assert logprobs[n] == pytest.approx(expected.item(), abs=1e-5)


def test_shared_beginnings_are_computed_once() -> None:
    session = Language(random_language(0, 6))
    texts = [[3, 4, END], [3, 5, END], [3, END], [4, END]]
    score_trie(session, left_padded([[START]], pad_id=START), TokenTrie(texts))
    assert session.rows_in_work == [1, 2, 2]  # the start; 3 and 4; 3 4 and 3 5


def test_only_texts_of_a_trie_are_generated() -> None:
    texts = [[B, A, END], [B, C, END], [C, END]]
    session = Language(ENDS_OR_NOT)
    prompts = left_padded([[START]], pad_id=START)
    ((best, *_),) = search(session, prompts, DecodingOptions(), (END,), TokenTrie(texts))
    assert best.tokens == [B, C, END]


# ---- several end tokens, and nothing left to say

TWO_ENDS = markov(
    {START: {A: 0.4, C: 0.35, END: 0.25}, A: {END: 0.5, C: 0.3, B: 0.2}, B: {C: 1.0}}, size=40
)


@pytest.mark.parametrize("style", ["huggingface", "microsoft"])
def test_any_of_several_end_tokens_ends_a_text_and_logprobs_are_of_its_own_tokens(style) -> None:
    options = DecodingOptions(
        num_beams=2, num_return_sequences=2, style=style, max_new_tokens=4, length_penalty=0.0
    )
    start = left_padded([[START], [START, A]], pad_id=START)
    for prompt, texts in zip(
        start.rows, search(Language(TWO_ENDS), start, options, (END, C)), strict=True
    ):
        for text in texts:
            assert text.tokens[-1] in (END, C)
            assert not {END, C} & set(text.tokens[:-1])
            expected = [
                torch.tensor(TWO_ENDS([*prompt, *text.tokens[:n]])).log_softmax(-1)[token].item()
                for n, token in enumerate(text.tokens)
            ]
            assert text.token_logprobs == pytest.approx(expected, abs=1e-5)


def test_greedy_search_ends_at_the_second_end_token_too() -> None:
    start = left_padded([[START]], pad_id=START)
    ((text,),) = search(Language(TWO_ENDS), start, DecodingOptions(min_new_tokens=2), (END, C))
    assert text.tokens == [A, B, C]


@pytest.mark.parametrize("style", ["huggingface", "microsoft"])
@pytest.mark.parametrize("num_beams", [1, 2])
def test_where_every_token_is_forbidden_the_error_says_so(style: str, num_beams: int) -> None:
    with pytest.raises(GITError, match="every token is forbidden"):
        run([[START]], num_beams=num_beams, style=style, suppress_tokens=(START, END, A, B, C))


def test_beam_search_returns_no_forbidden_text() -> None:
    language = markov({START: {A: 1.0}, A: {END: 1.0}}, size=6)
    (texts,), _ = run(
        [[START]], language, num_beams=3, num_return_sequences=3, suppress_tokens=(0, 3, 4, 5)
    )
    assert all(set(text.tokens) <= {A, END} for text in texts)
