"""Cached steps = one pass = prefill and steps, for every split; padding changes nothing."""

from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity_models import ModelPair, make_pair
from torch import Tensor

from git_model.generation.session import Session
from git_model.model.attention import KVCache, prefix_mask

EXACT = {"rtol": 1e-10, "atol": 1e-10}
LENGTH = 7


@pytest.fixture(scope="module", params=["image", "clip", "text alone", "three texts an image"])
def case(request: pytest.FixtureRequest) -> tuple[ModelPair, object, Tensor]:
    pair = make_pair(
        11, num_image_with_embedding=2 if request.param == "clip" else None, length=LENGTH
    )
    tokens = pair.tokens
    if request.param == "three texts an image":
        tokens = torch.randint(3, 40, (6, LENGTH), generator=torch.Generator().manual_seed(0))
    scene = None if request.param == "text alone" else pair.ours.see(pair.pixels)
    return pair, scene, tokens


@torch.no_grad()
def in_pieces(pair: ModelPair, scene: object, tokens: Tensor, cuts: list[int]) -> Tensor:
    """Logits of a text that is fed in pieces, cut before these positions."""
    cache = KVCache(len(pair.ours.decoder.blocks))
    image = () if scene is None else scene.layers
    pieces = [
        pair.ours.decoder(tokens[:, start:end], image, cache)
        for start, end in pairwise([0, *cuts, tokens.shape[1]])
    ]
    return pair.ours.decoder.lm_head(torch.cat(pieces, dim=1))


@settings(deadline=None, max_examples=2 ** (LENGTH - 1))
@given(cuts=st.sets(st.integers(1, LENGTH - 1)).map(sorted))
def test_any_split_of_a_text_gives_the_logits_of_one_pass(case, cuts: list[int]) -> None:
    pair, scene, tokens = case
    whole = pair.ours(scene, tokens)
    torch.testing.assert_close(in_pieces(pair, scene, tokens, cuts), whole, **EXACT)


def test_reading_the_image_first_is_one_pass_under_the_prefix_mask() -> None:
    pair = make_pair(12, num_hidden_layers=3)
    decoder = pair.ours.decoder
    visual = pair.ours.projector(pair.ours.encode(pair.pixels))
    x = torch.cat([visual, decoder.embed(pair.tokens, 0, None)], dim=1)
    mask = prefix_mask(visual.shape[1], pair.tokens.shape[1])
    for block in decoder.blocks:
        x, _ = block(x, mask=mask)
    in_one_pass = decoder.lm_head(x[:, visual.shape[1] :])
    torch.testing.assert_close(pair.ours(pair.pixels, pair.tokens), in_one_pass, **EXACT)


@cache
def pair_to_pad() -> ModelPair:
    return make_pair(13, length=LENGTH)


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, LENGTH), min_size=2, max_size=2),
    left=st.booleans(),
    filler=st.integers(0, 40),
)
def test_padding_on_either_side_changes_no_result(lengths, left: bool, filler: int) -> None:
    pair = pair_to_pad()
    column = torch.arange(LENGTH)
    length = torch.tensor(lengths)[:, None]
    real = column >= LENGTH - length if left else column < length
    padded = torch.full((2, LENGTH), filler)
    for row, n in enumerate(lengths):
        padded[row, real[row]] = pair.tokens[row, :n]
    together = pair.ours(pair.pixels, padded, real)
    for row, n in enumerate(lengths):
        alone = pair.ours(pair.pixels[row : row + 1], pair.tokens[row : row + 1, :n])
        torch.testing.assert_close(together[row, real[row]], alone[0], **EXACT)


@pytest.mark.parametrize("with_image", [True, False])
def test_a_left_padded_prompt_can_be_continued_in_the_cache(with_image: bool) -> None:
    pair = make_pair(14, length=LENGTH)
    scene = pair.ours.see(pair.pixels) if with_image else None
    prompt = torch.stack([pair.tokens[0, :4], torch.tensor([0, 0, *pair.tokens[1, :2].tolist()])])
    real = torch.tensor([[True] * 4, [False, False, True, True]])
    session = Session(pair.ours, scene)
    logits = [session.step(prompt, real)]
    later = pair.tokens[:, 4:]
    logits += [session.step(later[:, n : n + 1]) for n in range(3)]
    for row, start in ((0, prompt[0]), (1, prompt[1, 2:])):
        pixels = pair.pixels[row : row + 1] if with_image else None
        alone = pair.ours(pixels, torch.cat([start, later[row, :3]])[None])[0, -4:]
        torch.testing.assert_close(torch.stack([x[row] for x in logits]), alone, **EXACT)


def test_rows_can_be_reordered_and_dropped_in_the_middle_of_a_text() -> None:
    pair = make_pair(15, rows=3, length=LENGTH)
    session = Session(pair.ours, pair.ours.see(pair.pixels))
    session.step(pair.tokens[:, :5])
    session.select([0, 2])
    rest = session.step(pair.tokens[[0, 2], 5:])
    whole = pair.ours(pair.pixels[[0, 2]], pair.tokens[[0, 2]])[:, -1]
    torch.testing.assert_close(rest, whole, **EXACT)
