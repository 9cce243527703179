"""The mask as it is drawn, and attention against the formula written out."""

import doctest
import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from git_model.model import attention
from git_model.model.attention import Attention, KeyValue, KVCache, Slots, attend, prefix_mask

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def test_the_drawing_of_the_mask_is_true() -> None:
    assert doctest.testmod(attention).failed == 0


@given(n_image=st.integers(0, 5), n_text=st.integers(0, 5))
def test_images_attend_to_images_and_text_to_images_and_its_past(n_image: int, n_text: int) -> None:
    mask = prefix_mask(n_image, n_text)
    for query in range(n_image + n_text):
        for key in range(n_image + n_text):
            assert mask[query, key] == (key < n_image or key <= query)


@given(first=st.integers(0, 9))
def test_first_query_leaves_out_the_rows_before_it(first: int) -> None:
    assert torch.equal(prefix_mask(4, 5, first_query=first), prefix_mask(4, 5)[first:])


def by_the_formula(query, keys, values, mask):
    scores = query @ keys.mT / math.sqrt(query.shape[-1])
    return scores.masked_fill(~mask, -math.inf).softmax(-1) @ values


@settings(deadline=None, max_examples=60)
@given(
    images=st.integers(1, 3),
    texts=st.integers(1, 3),
    queries=st.integers(1, 4),
    past=st.integers(0, 3),
    heads=st.integers(1, 3),
    masked=st.booleans(),
)
def test_sources_that_serve_several_rows_give_what_repeated_ones_give(
    images, texts, queries, past, heads, masked
) -> None:
    rows, n_image, size = images * texts, 5, 4
    query = torch.randn(rows, heads, queries, size, dtype=torch.float64)
    image = torch.randn(2, images, heads, n_image, size, dtype=torch.float64)
    text = torch.randn(2, rows, heads, past + queries, size, dtype=torch.float64)
    whole = torch.cat([image.repeat_interleave(texts, dim=1), text], dim=3)
    mask = prefix_mask(n_image, past + queries, first_query=n_image + past)
    if not masked:
        mask = torch.ones_like(mask)
    ours = attend(query, [KeyValue(*image), KeyValue(*text)], mask if masked else None)
    torch.testing.assert_close(ours, by_the_formula(query, *whole, mask), **EXACT)


def test_half_precision_does_not_overflow_where_scores_are_large() -> None:
    query = torch.full((2, 1, 1, 4), 200.0, dtype=torch.float16)
    source = KeyValue(*[torch.full((1, 1, 3, 4), 100.0, dtype=torch.float16)] * 2)
    assert torch.equal(attend(query, [source]), torch.full_like(query, 100.0))


@settings(deadline=None, max_examples=40)
@given(taken=st.lists(st.integers(0, 5), min_size=1, unique=True))
def test_rows_may_stand_in_any_of_their_slots(taken: list[int]) -> None:
    query = torch.randn(6, 2, 3, 4, dtype=torch.float64)
    image = torch.randn(2, 2, 2, 5, 4, dtype=torch.float64)  # two images, three slots each
    text = torch.randn(2, 6, 2, 3, 4, dtype=torch.float64)
    whole = attend(query, [KeyValue(*image), KeyValue(*text)])
    slots = Slots(torch.tensor(taken), 6)
    part = attend(query[taken], [KeyValue(*image, slots), KeyValue(*text[:, taken])])
    torch.testing.assert_close(part, whole[taken], **EXACT)


def test_without_its_output_a_layer_gives_the_same_keys_and_values() -> None:
    layer = Attention(12, 3).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    _, whole = layer(x)
    output, alone = layer(x, need_output=False)
    assert output is None
    assert torch.equal(alone.key, whole.key)
    assert torch.equal(alone.value, whole.value)


def test_dropout_is_for_training_only() -> None:
    layer = Attention(12, 3, dropout=0.5)
    x = torch.randn(2, 5, 12)
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])
    layer.train()
    assert not torch.equal(layer(x)[0], layer(x)[0])


@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_a_cache_returns_what_was_appended(lengths: list[int]) -> None:
    cache = KVCache(2)
    pieces = [torch.randn(2, 2, 3, length, 5) for length in lengths]
    for count, piece in enumerate(pieces, start=1):
        whole = torch.cat(pieces[:count], dim=3)
        for layer in cache.layers:
            cached = layer.extend(KeyValue(*piece))
            assert torch.equal(torch.stack([cached.key, cached.value]), whole)
        assert cache.length == whole.shape[3]
    cache.select(torch.tensor([1, 1, 0]))
    more = torch.randn(2, 3, 3, 1, 5)
    cached = cache.layers[1].extend(KeyValue(*more))
    assert torch.equal(cached.key, torch.cat([whole[0][[1, 1, 0]], more[0]], dim=2))
