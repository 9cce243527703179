"""The order of examples: all of them once an epoch, the same on any number of processes."""

from collections import Counter
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from git_model.data.sampler import epoch_indices, epoch_order


@given(n=st.integers(1, 50), seed=st.integers(0, 2**40), epoch=st.integers(0, 9))
def test_an_epoch_is_every_example_once(n, seed, epoch):
    assert sorted(epoch_order(n, seed, epoch)) == list(range(n))


def test_the_order_is_of_this_seed_and_this_epoch_and_stays_so_for_ever():
    orders = {tuple(epoch_order(20, seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16
    assert epoch_order(8, 0, 0).tolist() == [6, 3, 5, 0, 7, 2, 1, 4]
    assert epoch_order(8, 1, 2).tolist() == [4, 6, 7, 3, 5, 0, 2, 1]


@given(
    n=st.integers(1, 40),
    batch_size=st.integers(1, 40),
    n_ranks=st.integers(1, 6),
    step=st.integers(1, 30),
)
def test_a_step_is_the_same_examples_for_any_number_of_processes(n, batch_size, n_ranks, step):
    size = min(n, batch_size)
    whole = epoch_indices(step, n, size, seed=3)
    parts = [epoch_indices(step, n, size, 3, rank, n_ranks) for rank in range(n_ranks)]
    assert sorted(chain(*parts)) == sorted(whole)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(n=st.integers(1, 40), batch_size=st.integers(1, 40), epochs=st.integers(1, 4))
def test_every_example_comes_once_in_each_epoch(n, batch_size, epochs):
    size = min(n, batch_size)
    steps = -(-n * epochs // size)
    indices = [at for step in range(1, steps + 1) for at in epoch_indices(step, n, size, seed=0)]
    counts = Counter(indices[: n * epochs])
    assert counts == {(epoch, index): 1 for epoch in range(epochs) for index in range(n)}
