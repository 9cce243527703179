"""What `generate` refuses, and how prompts become one tensor."""

import pytest
import torch
from tiny import tiny_model

from git_model import DecodingOptions, generate
from git_model.generation import generate as decoding
from git_model.generation.generate import score_texts
from git_model.generation.session import Session, left_padded
from git_model.generation.trie import TokenTrie
from git_model.utils.errors import ConfigError, GITError


def test_padding_stands_on_the_left() -> None:
    _, tokens, mask, _ = left_padded([[5, 6, 7], [8]], pad_id=0)
    assert tokens.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[True] * 3, [False, False, True]]
    assert left_padded([[5, 6], [7, 8]], pad_id=0).token_mask is None


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "a prompt has no token"),
        ([[1], []], "a prompt has no token"),
        ([[1], [1], [1]], "3 prompts for 2 images"),
        ([[1, 40], [1]], "there is no token 40, expected ids from 0 to 39"),
        ([[1, -1], [1]], "there is no token -1, expected ids from 0 to 39"),
        ([[1] * 24, [1]], "a prompt of 24 tokens leaves no position.*this model has 24 positions"),
    ],
)
def test_prompts_that_cannot_be_continued_are_refused(prompts, message: str) -> None:
    model = tiny_model()
    scene = model.see(torch.zeros(2, 3, 16, 16, dtype=torch.float64))
    with pytest.raises(GITError, match=message):
        generate(model, scene, prompts)


def test_a_text_ends_where_the_positions_do() -> None:
    endless = DecodingOptions(max_new_tokens=1000, suppress_tokens=(2,))
    ((found,),) = generate(tiny_model(), None, [[1] * 5], endless)
    assert len(found.tokens) == 24 - 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0, expected at least 1"),
        ({"min_new_tokens": 20}, "min_new_tokens is 20, expected 0 or more and less than max"),
        ({"style": "meta"}, "style is meta, expected one of huggingface, microsoft"),
        (
            {"num_beams": 2, "do_sample": True},
            "do_sample is True, expected either do_sample or num_beams",
        ),
        (
            {"num_return_sequences": 2},
            "num_return_sequences is 2, expected at most num_beams, or do_sample",
        ),
        ({"top_p": 0.0}, "top_p is 0.0, expected more than 0 and at most 1"),
        ({"top_k": -1}, "top_k is -1"),
        ({"temperature": 0.0}, "temperature is 0.0, expected from 0.001 to 1000"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size is -1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DecodingOptions(**options)


def test_more_beams_than_the_vocabulary_allows_are_refused() -> None:
    with pytest.raises(
        GITError,
        match="num_beams is 21, expected at most 20: each step takes 2 x num_beams of",
    ):
        generate(tiny_model(), None, [[1]], DecodingOptions(max_new_tokens=3, num_beams=21))


def test_an_unknown_token_cannot_be_suppressed() -> None:
    with pytest.raises(GITError, match="there is no token 99"):
        generate(tiny_model(), None, [[1]], DecodingOptions(suppress_tokens=(99,)))


@pytest.mark.parametrize("chunk", [1, 3, 1024])
def test_scores_are_those_of_teacher_forcing_in_chunks_of_any_size(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "MAX_ROWS", chunk)
    model = tiny_model()
    pixels = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    prompts = [[1], [1, 7], [1, 8, 9], [1]]
    texts = [[5, 6, 2], [5, 2], [9, 9, 9, 2], [2], [5, 6, 2]]
    found = score_texts(model, model.see(pixels), prompts, texts)
    for row, prompt in enumerate(prompts):
        for text, logprobs in zip(texts, found[row], strict=True):
            whole = torch.tensor([prompt + text])
            expected = model(pixels[row // 2 : row // 2 + 1], whole)[0].log_softmax(-1)
            for n, token in enumerate(text):
                wanted = expected[len(prompt) - 1 + n, token].item()
                assert logprobs[n] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no text to score"),
        ([[5], []], "no text to score"),
        ([[40]], "there is no token 40"),
        ([[5] * 24], "prompt and text have 25 tokens, more than this model's 24"),
    ],
)
def test_texts_that_cannot_be_scored_are_refused(texts, message: str) -> None:
    with pytest.raises(GITError, match=message):
        score_texts(tiny_model(), None, [[1]], texts)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 3, "style": "microsoft"}])
def test_a_long_prompt_beside_it_does_not_shorten_a_text(options: dict) -> None:
    model, endless = (
        tiny_model(),
        DecodingOptions(max_new_tokens=99, suppress_tokens=(2,), **options),
    )
    short, long = [1], [1, *range(5, 20)]
    together = generate(model, None, [short, long], endless)
    for prompt, (found, *_) in zip((short, long), together, strict=True):
        ((alone, *_),) = generate(model, None, [prompt], endless)
        assert found.tokens == alone.tokens
        assert len(found.tokens) >= 24 - len(prompt) - 1
        assert found.score == pytest.approx(alone.score, abs=1e-4)


def test_beams_and_a_trie_do_not_go_together() -> None:
    with pytest.raises(GITError, match="num_beams and a trie do not go together"):
        generate(tiny_model(), None, [[1]], DecodingOptions(num_beams=2), TokenTrie([[5, 2]]))


def test_a_trie_whose_texts_do_not_end_is_an_error_and_no_nonsense() -> None:
    with pytest.raises(GITError, match="every token is forbidden"):
        generate(tiny_model(), None, [[1]], trie=TokenTrie([[5, 6]]))


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"do_sample": True}])
def test_logits_that_are_no_numbers_are_an_error(options: dict) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.decoder.lm_head.bias[3] = float("nan")
    with pytest.raises(GITError, match="logits are not numbers"):
        generate(model, None, [[1]], DecodingOptions(**options))
    with pytest.raises(GITError, match="logits are not numbers"):
        score_texts(model, None, [[1]], [[5, 2]])


def test_a_trie_text_longer_than_the_limit_is_refused_not_cut() -> None:
    trie = TokenTrie([[5, 6, 7, 2], [5, 2]])
    with pytest.raises(GITError, match="longest text of the trie has 4 tokens, more than the lim"):
        generate(tiny_model(), None, [[1]], DecodingOptions(max_new_tokens=3), trie)
    with pytest.raises(GITError, match="there is no token 5000"):
        generate(tiny_model(), None, [[1]], trie=TokenTrie([[5000, 2]]))


def test_a_mask_after_the_first_step_is_refused() -> None:
    session = Session(tiny_model(), None)
    tokens = torch.tensor([[1, 5]])
    session.step(tokens)
    with pytest.raises(GITError, match="a token mask came after the first step"):
        session.step(tokens, torch.ones_like(tokens).bool())


@pytest.mark.parametrize("with_mask", [True, False])
def test_a_session_refuses_more_tokens_than_positions_on_every_path(with_mask: bool) -> None:
    session = Session(tiny_model(), None)
    prompt = torch.full((1, 20), 5)
    mask = torch.arange(20)[None] >= 2
    session.step(prompt, mask if with_mask else None)
    n_left = 24 - (18 if with_mask else 20)
    for _ in range(n_left):
        session.step(prompt[:, :1])
    with pytest.raises(GITError, match="text of 25 tokens is longer than the 24 positions"):
        session.step(prompt[:, :1])
