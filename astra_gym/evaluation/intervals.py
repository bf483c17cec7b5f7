"""Figures with what they might have been, had other clips or starts been drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from astra_gym.evaluation.ranking_metrics import interval, number, resampled

Estimate = dict[str, Any]
"""``{"value": v, "interval": [low, high]}``, 95 % by bootstrap; None where it is undefined."""


def estimate(statistic: Callable[[np.ndarray], float], count: int, seed: int = 0, resamples: int = 1000) -> Estimate:
    """A statistic of ``count`` samples and its interval.

    Args:
        statistic: of the samples with the given places ``int (count,)``, some of which may come more than once.
        count: number of samples.
        seed: of the resampling.
        resamples: how often to draw.
    """
    drawn = [statistic(places) for places in resampled(count, resamples, seed)]
    return {"value": number(statistic(np.arange(count))), "interval": interval(drawn)}


def estimate_mean(values: np.ndarray, seed: int = 0) -> Estimate:
    """The mean of ``values (N,)`` and its interval."""
    values = np.asarray(values, np.float64)
    return estimate(lambda places: float(values[places].mean()), len(values), seed)
