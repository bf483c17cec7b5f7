"""How far a figure might be off, had other episodes been drawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def bootstrap(
    statistic: Callable[[np.ndarray], float], count: int, seed: int = 0, resamples: int = 1000, share: float = 0.95
) -> list[float]:
    """Bootstrap interval of a statistic, as percentiles: ``[low, high]``.

    Args:
        statistic: of the samples with the given places ``int (count,)``, of which some come more than once.
        count: number of samples that were measured.
        seed: of the resampling.
        resamples: how often to draw.
        share: of the resampled statistics that lie within the interval.
    """
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(count, size=count)) for _ in range(resamples)]
    low, high = np.nanpercentile(values, [50 * (1 - share), 50 * (1 + share)])
    return [float(low), float(high)]


def mean_interval(values: np.ndarray, seed: int = 0) -> list[float]:
    """95 % bootstrap interval of the mean of ``values (N,)``."""
    values = np.asarray(values, np.float64)
    return bootstrap(lambda chosen: float(values[chosen].mean()), len(values), seed)
