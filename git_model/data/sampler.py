"""The order of examples over epochs and steps: a function of the seed and the step alone."""

import functools
from collections.abc import Iterable, Iterator
from random import Random
from typing import TypeVar

import numpy as np

T = TypeVar("T")
EpochIndex = tuple[int, int]  # the epoch, from 0, and the example's index


@functools.lru_cache(maxsize=2)  # a step may lie in two epochs
def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """0 to n - 1 in the order of one epoch, the same on any machine."""
    # RandomState's numbers never change (NEP 19); those of default_rng and torch may
    bits = np.random.MT19937(np.random.SeedSequence([seed, epoch]))
    return np.random.RandomState(bits).permutation(n)


def epoch_indices(
    step: int, n: int, batch_size: int, seed: int, rank: int = 0, n_ranks: int = 1
) -> list[EpochIndex]:
    """The examples, of n, that a process uses at a step, counted from 1.

    The epochs follow each other without a gap, each in its own order. A step takes the next
    batch_size examples, and a process every n_ranks-th of these.
    """
    positions = range((step - 1) * batch_size, step * batch_size)[rank::n_ranks]
    return [(i // n, int(epoch_order(n, seed, i // n)[i % n])) for i in positions]


def shuffled(items: Iterable[T], size: int, rng: Random) -> Iterator[T]:
    """The items of a stream in random order, through a buffer of at most `size` items; with 0 in
    their own order."""
    buffer: list[T] = []
    for item in items:
        buffer.append(item)
        if len(buffer) >= size:
            yield _pop(buffer, rng) if size else buffer.pop()
    while buffer:
        yield _pop(buffer, rng)


def _pop(buffer: list[T], rng: Random) -> T:
    """Take a random item; the last one gets its place."""
    index = int(rng.random() * len(buffer))
    buffer[index], buffer[-1] = buffer[-1], buffer[index]
    return buffer.pop()
