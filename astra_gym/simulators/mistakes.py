"""Mistakes that drivers and pilots make while data are collected."""

from __future__ import annotations

from typing import Any

import numpy as np


def wander(error: Any, deviation: float, rng: np.random.Generator) -> Any:
    """The error of the next block, a float or an array, from that of this one: it wanders slowly about zero with this
    standard deviation."""
    return 0.85 * error + 0.53 * deviation * rng.standard_normal(np.shape(error))
