"""Greedy and beam search give the ids and the scores of Transformers' `generate`."""

import random
from typing import Any

import pytest
import torch
from parity_models import ModelPair, make_pair
from torch import Tensor

from git_model import DecodingOptions, generate

NEW = 9


def seeds(few: range, many: range) -> list[Any]:
    """The few of every run, and the many that are slow."""
    return [*few, *(pytest.param(seed, marks=pytest.mark.slow) for seed in many)]


def case(seed: int) -> tuple[ModelPair, list[list[int]]]:
    """A random model with two images, whose end token comes in some texts and not in others; and
    four prompts of different length."""
    pair = make_pair(seed, rows=2)
    with torch.no_grad():
        for bias in (pair.theirs.output.bias, pair.ours.decoder.lm_head.bias):
            bias[pair.ours.config.eos_id] = 2.0
    draw = torch.Generator().manual_seed(seed)
    size = pair.ours.config.decoder.vocab_size
    lengths = torch.randint(1, 7, (4,), generator=draw).tolist()
    return pair, [torch.randint(3, size, (n,), generator=draw).tolist() for n in lengths]


def up_to_end(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end) + 1] if end in ids else ids


@torch.no_grad()
def theirs(
    pair: ModelPair, pixels: Tensor | None, prompt: list[int], **settings: object
) -> tuple[list[list[int]], list[float] | None]:
    """What Transformers generates behind one prompt: ids up to the end token, scores if any."""
    out = pair.theirs.generate(
        input_ids=torch.tensor([prompt]),
        pixel_values=pixels,
        max_new_tokens=NEW,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        **settings,
    )
    ids = [up_to_end(row[len(prompt) :].tolist(), pair.ours.config.eos_id) for row in out.sequences]
    return ids, None if out.get("sequences_scores") is None else out.sequences_scores.tolist()


@pytest.mark.parametrize("seed", seeds(range(3000, 3016), range(3016, 3050)))
def test_batched_prompts_of_different_length_give_transformers_ids(seed: int) -> None:
    pair, prompts = case(seed)  # 50 models x 4 prompts = 200 cases
    scene = pair.ours.see(pair.pixels)
    found = generate(pair.ours, scene, prompts, DecodingOptions(max_new_tokens=NEW))
    for row, (prompt, (best,)) in enumerate(zip(prompts, found, strict=True)):
        pixels = pair.pixels[row // 2 : row // 2 + 1]
        assert [best.tokens] == theirs(pair, pixels, prompt)[0], row


@pytest.mark.parametrize("seed", range(3100, 3103))
def test_text_without_an_image_gives_transformers_ids(seed: int) -> None:
    pair, prompts = case(seed)
    found = generate(pair.ours, None, prompts, DecodingOptions(max_new_tokens=NEW))
    for prompt, (best,) in zip(prompts, found, strict=True):
        assert [best.tokens] == theirs(pair, None, prompt)[0]


def compare_beams(seed: int) -> None:
    """One random (model, prompts, settings) case; each prompt also against a run of its own."""
    pair, prompts = case(seed)
    draw = random.Random(seed)
    beams = draw.randint(2, 6)
    shared = {
        "length_penalty": draw.choice([0.0, 0.6, 1.0, 2.0, -1.0]),
        "repetition_penalty": draw.choice([1.0, 1.0, 1.3]),
        "min_new_tokens": draw.choice([0, 0, 3]),
    }
    sequences, ngram = draw.randint(1, beams), draw.choice([0, 0, 2])
    options = DecodingOptions(
        max_new_tokens=NEW,
        num_beams=beams,
        num_return_sequences=sequences,
        no_repeat_ngram_size=ngram,
        **shared,
    )
    found = generate(pair.ours, pair.ours.see(pair.pixels), prompts, options)
    for row, (prompt, texts) in enumerate(zip(prompts, found, strict=True)):
        ids, scores = theirs(
            pair,
            pair.pixels[row // 2 : row // 2 + 1],
            prompt,
            num_beams=beams,
            num_return_sequences=sequences,
            no_repeat_ngram_size=ngram,
            **shared,
        )
        assert [one.tokens for one in texts] == ids, row
        assert [one.score for one in texts] == pytest.approx(scores, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("seed", seeds(range(4000, 4012), range(4012, 4325)))
def test_beam_search_gives_transformers_ids_and_scores(seed: int) -> None:
    compare_beams(seed)


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3, "num_return_sequences": 3}, {"do_sample": True}], ids=str
)
@pytest.mark.parametrize("seed", range(3200, 3203))
def test_token_logprobs_are_those_of_teacher_forcing(seed: int, options: dict) -> None:
    pair, prompts = case(seed)
    scene = pair.ours.see(pair.pixels)
    found = generate(pair.ours, scene, prompts, DecodingOptions(max_new_tokens=NEW, **options))
    for row, (prompt, texts) in enumerate(zip(prompts, found, strict=True)):
        for one in texts:
            whole = torch.tensor([prompt + one.tokens])
            pixels = pair.pixels[row // 2 : row // 2 + 1]
            logprobs = pair.ours(pixels, whole)[0].float().log_softmax(-1)
            expected = [
                logprobs[len(prompt) - 1 + n, token].item() for n, token in enumerate(one.tokens)
            ]
            assert one.token_logprobs == pytest.approx(expected, abs=1e-5)
            assert one.logprob == pytest.approx(sum(expected), abs=1e-4)


def test_a_batch_gives_what_each_image_gives_alone() -> None:
    pair, _ = case(3300)
    options = DecodingOptions(max_new_tokens=NEW, num_beams=3)
    together = generate(pair.ours, pair.ours.see(pair.pixels), [[1], [1]], options)
    for row in range(2):
        (alone,) = generate(pair.ours, pair.ours.see(pair.pixels[row : row + 1]), [[1]], options)
        assert together[row][0].tokens == alone[0].tokens
        assert together[row][0].token_logprobs == pytest.approx(alone[0].token_logprobs, abs=1e-5)
