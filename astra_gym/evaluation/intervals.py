"""Figures with what they might have been, had other clips or starts been drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

Estimate = dict[str, Any]
"""``{"value": v, "interval": [low, high]}``, 95 %, by bootstrap but for shares; None where it is undefined."""


def estimate(
    statistic: Callable[[np.ndarray], float], groups: Sequence[int], seed: int = 0, resamples: int = 1000
) -> Estimate:
    """A statistic of samples and its interval.

    Args:
        statistic: of the samples with the given places ``int (n,)``, some of which may come more than once.
        groups: of each sample a number. Those with the same, such as clips of one episode, are no independent samples:
            they are drawn together or not at all.
        seed: of the resampling.
        resamples: how often to draw.
    """
    _, group_of = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(group_of == group) for group in range(group_of.max() + 1)]
    drawn = [
        statistic(np.concatenate([members[group] for group in chosen]))
        for chosen in resampled(len(members), resamples, seed)
    ]
    return {"value": number(statistic(np.arange(len(group_of)))), "interval": interval(drawn)}


def estimate_share(outcomes: np.ndarray) -> Estimate:
    """The share of ones among zeros and ones ``(N,)`` and its interval, Wilson's (1927)."""
    count, share, z = len(outcomes), float(np.mean(outcomes)), NormalDist().inv_cdf(0.975)
    middle, half = share + z**2 / (2 * count), z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    scale = 1 + z**2 / count
    return {"value": share, "interval": [max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)]}


def estimate_mean(
    values: np.ndarray, seed: int = 0, resamples: int = 1000, groups: Sequence[int] | None = None
) -> Estimate:
    """The mean of ``values (N,)`` and its interval; ``groups`` as for :func:`estimate`, None if all stand alone."""
    values = np.asarray(values, np.float64)
    if groups is not None:
        return estimate(lambda places: float(values[places].mean()), groups, seed, resamples)
    means = values[resampled(len(values), resamples, seed)].mean(1)
    return {"value": number(values.mean()), "interval": interval(means)}


def resampled(count: int, resamples: int, seed: int) -> np.ndarray:
    """Bootstrap draws of ``count`` places with replacement, ``int (resamples, count)``."""
    return np.random.default_rng(seed).integers(count, size=(resamples, count))


def interval(values: np.ndarray | list[float]) -> list[float | None]:
    """The middle 95 % of resampled values, those left out that are undefined; two None if all are."""
    defined = np.asarray(values, np.float64)
    defined = defined[np.isfinite(defined)]
    return np.quantile(defined, (0.025, 0.975)).tolist() if len(defined) else [None, None]


def number(value: float) -> float | None:
    """``value`` for JSON, which knows no NaN."""
    return float(value) if np.isfinite(value) else None


def with_interval(figure: Estimate, digits: int) -> str:
    """``{"value": v, "interval": [low, high]}`` as text, "-" where it is undefined."""
    value, (low, high) = figure["value"], figure["interval"]
    if value is None:
        return "-"
    return f"{value:.{digits}f}" + ("" if low is None else f" ({low:.{digits}f} to {high:.{digits}f})")
