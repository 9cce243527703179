"""What `generate` refuses, and how prompts become one tensor."""

import pytest
import torch
from tiny import tiny_model

from git_model import DecodingOptions, generate
from git_model.generation import generate as decoding
from git_model.generation.generate import score_texts
from git_model.generation.session import left_padded
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
        ([[1] * 24, [1]], "a prompt of 24 tokens leaves no room.*this model has 24 positions"),
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
        ({"dialect": "meta"}, "dialect is meta, expected one of huggingface, microsoft"),
        ({"beams": 2, "sample": True}, "sample is True, expected either sample or beams"),
        ({"sequences": 2}, "sequences is 2, expected at most as many as beams, or sample"),
        ({"top_p": 0.0}, "top_p is 0.0, expected more than 0 and at most 1"),
        ({"top_k": -1}, "top_k is -1"),
        ({"temperature": 0.0}, "temperature is 0.0, expected from 0.001 to 1000"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram is -1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DecodingOptions(**options)


def test_more_beams_than_the_words_allow_are_refused() -> None:
    with pytest.raises(GITError, match="beams is 21, expected at most 20, half of the tokens"):
        generate(tiny_model(), None, [[1]], DecodingOptions(max_new_tokens=3, num_beams=21))


def test_an_unknown_token_cannot_be_suppressed() -> None:
    with pytest.raises(GITError, match="there is no token 99"):
        generate(tiny_model(), None, [[1]], DecodingOptions(suppress_tokens=(99,)))


@pytest.mark.parametrize("chunk", [1, 3, 1024])
def test_scores_are_those_of_teacher_forcing_in_chunks_of_any_size(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "CHUNK", chunk)
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


@pytest.mark.parametrize("options", [{}, {"beams": 3}, {"beams": 3, "dialect": "microsoft"}])
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
    with pytest.raises(GITError, match="beams and a trie do not go together"):
        generate(tiny_model(), None, [[1]], DecodingOptions(num_beams=2), TokenTrie([[5, 2]]))


def test_a_trie_whose_texts_do_not_end_is_an_error_and_no_nonsense() -> None:
    with pytest.raises(GITError, match="every token is forbidden"):
        generate(tiny_model(), None, [[1]], trie=TokenTrie([[5, 6]]))


@pytest.mark.parametrize("options", [{}, {"beams": 2}, {"sample": True}])
def test_logits_that_are_no_numbers_are_an_error(options: dict) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.decoder.lm_head.bias[3] = float("nan")
    with pytest.raises(GITError, match="logits are no numbers"):
        generate(model, None, [[1]], DecodingOptions(**options))
    with pytest.raises(GITError, match="logits are no numbers"):
        score_texts(model, None, [[1]], [[5, 2]])
