"""95 % confidence intervals: of a metric over texts by the bootstrap, of a mean over runs by
Student's t.

A bootstrap draws as many texts as there are, with replacement, many times, and takes the middle
95 % of the metric's values (Efron's percentile method; Koehn 2004 for BLEU and pairs of systems).
The interval shows how much a score depends on the texts of the test, not on the training run.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist, mean, stdev
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
N_DRAWS = 1000
# The 97.5 % quantiles of Student's t with 1 to 30 degrees of freedom.
T_QUANTILES = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip


class Interval(NamedTuple):
    """A 95 % confidence interval."""

    low: float
    high: float


def bootstrap(
    n: int, metric: Callable[[np.ndarray], float], *, draws: int = N_DRAWS, seed: int = 0
) -> Interval:
    """The interval of a metric of n texts.

    Args:
        metric: from the indices (n,) of the drawn texts, some of them repeated, to the metric.
        draws: the number of draws.
        seed: of the draws; the same seed and n draw the same texts.
    """
    rng = np.random.default_rng(seed)
    values = [metric(rng.integers(0, n, n)) for _ in range(draws)]
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def t_interval(values: Sequence[float]) -> Interval | None:
    """The interval of the mean of independent values; None for fewer than two."""
    n = len(values)
    if n < 2:
        return None
    half = t_quantile(n - 1) * stdev(values) / math.sqrt(n)
    return Interval(mean(values) - half, mean(values) + half)


def t_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t; above 30 degrees by the expansion in 1 / degrees."""
    if degrees <= len(T_QUANTILES):
        return T_QUANTILES[degrees - 1]
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
