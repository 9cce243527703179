"""Cached steps = one pass = prefill and steps, for every split; padding changes nothing."""

from itertools import pairwise

import pytest
import torch
from biting import Twins, twins
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from git_model.attention import KVCache, prefix_mask
from git_model.model import Session

EXACT = {"rtol": 1e-10, "atol": 1e-10}
LENGTH = 8


@pytest.fixture(scope="module", params=["image", "clip", "text alone", "three texts an image"])
def case(request: pytest.FixtureRequest) -> tuple[Twins, object, Tensor]:
    twin = twins(11, num_image_with_embedding=2 if request.param == "clip" else None, length=LENGTH)
    tokens = twin.tokens
    if request.param == "three texts an image":
        tokens = torch.randint(3, 40, (6, LENGTH), generator=torch.Generator().manual_seed(0))
    scene = None if request.param == "text alone" else twin.ours.see(twin.pixels)
    return twin, scene, tokens


@torch.no_grad()
def in_pieces(twin: Twins, scene: object, tokens: Tensor, cuts: list[int]) -> Tensor:
    """Logits of a text that is fed in pieces, cut before these positions."""
    cache = KVCache(len(twin.ours.decoder.blocks))
    image = () if scene is None else scene.layers
    pieces = [
        twin.ours.decoder(tokens[:, start:end], image, cache)
        for start, end in pairwise([0, *cuts, tokens.shape[1]])
    ]
    return twin.ours.decoder.predict(torch.cat(pieces, dim=1))


@settings(deadline=None, max_examples=2 ** (LENGTH - 1))
@given(cuts=st.sets(st.integers(1, LENGTH - 1)).map(sorted))
def test_any_split_of_a_text_gives_the_logits_of_one_pass(case, cuts: list[int]) -> None:
    twin, scene, tokens = case
    whole = twin.ours(scene, tokens)
    torch.testing.assert_close(in_pieces(twin, scene, tokens, cuts), whole, **EXACT)


def test_reading_the_image_first_is_one_pass_under_the_prefix_mask() -> None:
    twin = twins(12, num_hidden_layers=3)
    decoder = twin.ours.decoder
    visual = twin.ours.projector(twin.ours.encode(twin.pixels))
    x = torch.cat([visual, decoder.embed(twin.tokens, 0, None)], dim=1)
    mask = prefix_mask(visual.shape[1], twin.tokens.shape[1])
    for block in decoder.blocks:
        x, _ = block(x, mask=mask)
    in_one_pass = decoder.predict(x[:, visual.shape[1] :])
    torch.testing.assert_close(twin.ours(twin.pixels, twin.tokens), in_one_pass, **EXACT)


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, LENGTH), min_size=2, max_size=2),
    left=st.booleans(),
    filler=st.integers(0, 40),
)
def test_padding_on_either_side_changes_no_result(lengths, left: bool, filler: int) -> None:
    twin = twins(13, length=LENGTH)
    column = torch.arange(LENGTH)
    length = torch.tensor(lengths)[:, None]
    real = column >= LENGTH - length if left else column < length
    padded = torch.full((2, LENGTH), filler)
    for row, n in enumerate(lengths):
        padded[row, real[row]] = twin.tokens[row, :n]
    together = twin.ours(twin.pixels, padded, real)
    for row, n in enumerate(lengths):
        alone = twin.ours(twin.pixels[row : row + 1], twin.tokens[row : row + 1, :n])
        torch.testing.assert_close(together[row, real[row]], alone[0], **EXACT)


@pytest.mark.parametrize("with_image", [True, False])
def test_a_left_padded_prompt_can_be_continued_in_the_cache(with_image: bool) -> None:
    twin = twins(14, length=LENGTH)
    scene = twin.ours.see(twin.pixels) if with_image else None
    prompt = torch.stack([twin.tokens[0, :4], torch.tensor([0, 0, *twin.tokens[1, :2].tolist()])])
    real = torch.tensor([[True] * 4, [False, False, True, True]])
    session = Session(twin.ours, scene)
    logits = [session.step(prompt, real)]
    later = twin.tokens[:, 4:]
    logits += [session.step(later[:, n : n + 1]) for n in range(3)]
    for row, start in ((0, prompt[0]), (1, prompt[1, 2:])):
        pixels = twin.pixels[row : row + 1] if with_image else None
        alone = twin.ours(pixels, torch.cat([start, later[row, :3]])[None])[0, -4:]
        torch.testing.assert_close(torch.stack([x[row] for x in logits]), alone, **EXACT)


def test_rows_can_be_reordered_and_dropped_in_the_middle_of_a_text() -> None:
    twin = twins(15, rows=3, length=LENGTH)
    session = Session(twin.ours, twin.ours.see(twin.pixels))
    session.step(twin.tokens[:, :5])
    session.select([0, 2])
    rest = session.step(twin.tokens[[0, 2], 5:])
    whole = twin.ours(twin.pixels[[0, 2]], twin.tokens[[0, 2]])[:, -1]
    torch.testing.assert_close(rest, whole, **EXACT)
