"""How well returns in the dream tell which policies are better in truth.

Every function takes the dream first and the truth second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from astra_gym.evaluation.intervals import interval, number, resampled
from astra_gym.evaluation.metrics import correlation

LEAST_POLICIES = 3
"""Fewer policies have no ranking worth a number."""


def pearson(dream: np.ndarray, truth: np.ndarray) -> float:
    """Pearson's correlation over policies; NaN if all returns of one side are equal."""
    return correlation(dream, truth)


def spearman(dream: np.ndarray, truth: np.ndarray) -> float:
    """Spearman's rank correlation over policies, equal returns sharing their mean rank; NaN as for :func:`pearson`."""
    from scipy.stats import rankdata

    return correlation(rankdata(dream), rankdata(truth))


def mmrv(dream: np.ndarray, truth: np.ndarray) -> float:
    """Mean maximum rank violation, as in SIMPLER (arXiv 2405.05941): in units of the truth, 0 is best.

    Two policies violate the ranking if the dream says that one is better than the other and the truth says it is not,
    or the other way round; the violation's size is the difference of their *true* returns. A policy's largest violation
    is averaged over the policies. So the order of the arguments matters: swapped, sizes would be the dream's.

    Args:
        dream: mean return of each of P policies in the dream, ``(P,)``.
        truth: in truth, ``(P,)``.
    """
    dream, truth = np.asarray(dream, np.float64), np.asarray(truth, np.float64)
    violated = (dream[:, None] > dream) != (truth[:, None] > truth)
    return float(np.where(violated, np.abs(truth[:, None] - truth), 0.0).max(1).mean())


def relative_mmrv(dream: np.ndarray, truth: np.ndarray) -> float:
    """:func:`mmrv` as a share of the range of true returns; NaN if they are all equal.

    SIMPLER's policies have success rates, from 0 to 1; returns become comparable with those only by their range.
    """
    scale = float(np.ptp(truth))
    return mmrv(dream, truth) / scale if scale > 0 else float("nan")


def bias(dream: np.ndarray, truth: np.ndarray) -> float:
    """By how much the dream promises too much, on average, in units of the return."""
    return float(np.mean(dream) - np.mean(truth))


MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "pearson": pearson,
    "spearman": spearman,
    "mmrv": relative_mmrv,
    "bias": bias,
}
"""What :func:`ranking` reports; "mmrv" is the relative one."""


def ranking(dream: np.ndarray, truth: np.ndarray, resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """All :data:`MEASURES` of policies' mean returns, each with a 95 % bootstrap interval over the starts.

    A resample draws starts with replacement and takes them for all policies and both sides alike, as they are paired.

    Args:
        dream: returns ``(P, N)`` of P policies from N starts.
        truth: from the same starts.
        resamples: number of bootstrap resamples.
        seed: of the bootstrap.

    Returns:
        For each measure ``{"value": v, "interval": [low, high]}``, None where it is undefined; and "policies": P.

    Raises:
        ValueError: if the shapes differ or there are fewer than 3 policies.
    """
    dream, truth = np.asarray(dream, np.float64), np.asarray(truth, np.float64)
    if dream.shape != truth.shape or dream.ndim != 2 or len(dream) < LEAST_POLICIES:
        raise ValueError(
            f"dream, truth: got shapes {dream.shape} and {truth.shape}, allowed are two alike (P, N), P at least 3"
        )
    places = resampled(dream.shape[1], resamples, seed)
    means = [(dream[:, draw].mean(1), truth[:, draw].mean(1)) for draw in places]
    result: dict[str, Any] = {"policies": len(dream)}
    for name, measure in MEASURES.items():
        value = measure(dream.mean(1), truth.mean(1))
        result[name] = {"value": number(value), "interval": interval([measure(*pair) for pair in means])}
    return result
