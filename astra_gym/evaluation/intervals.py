"""Figures with what they might have been, had other clips or starts been drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

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


def estimate_mean(values: np.ndarray, seed: int = 0, resamples: int = 1000) -> Estimate:
    """The mean of ``values (N,)`` and its interval."""
    values = np.asarray(values, np.float64)
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
