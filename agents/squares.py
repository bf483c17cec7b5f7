"""Squares of one colour in the picture, as gates and targets are seen: where, how large and how aslant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Square:
    """A square that stands upright, as it appears in a frame of side 1 whose middle is (0, 0)."""

    right: float
    """Of its middle from the picture's."""
    up: float
    width: float
    height: float
    lean: float
    """Logarithm of its left side's length over its right side's; above 0 the left side is nearer."""
    pitch: float
    """Logarithm of its upper side's length over its lower side's."""
    roll: float
    """Angle in rad by which it is turned to the right."""
    cut: int
    """How many sides of the picture it touches: there, more of it may be out of sight."""


def find_square(mask: np.ndarray, least: int = 12) -> Square | None:
    """The square, or frame of a square, that ``mask`` shows; None if that is less than ``least`` pixels.

    Args:
        mask: ``bool (size, size)``, where the colour is seen. Single pixels do no harm.
    """
    mask = mask & (neighbours(mask) >= 2)
    if mask.sum() < least:
        return None
    size = len(mask)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    bottom, top, last, first = rows[-1], rows[0], columns[-1], columns[0]
    cut = int(top == 0) + int(bottom == size - 1) + int(first == 0) + int(last == size - 1)
    left_side, right_side, slope = _sides(mask)
    upper_side, lower_side, _ = _sides(mask.T)
    return Square(
        right=float((first + last + 1) / 2 / size - 0.5),
        up=float(0.5 - (top + bottom + 1) / 2 / size),
        width=(upper_side + lower_side) / 2 / size,
        height=(left_side + right_side) / 2 / size,
        lean=float(np.log(left_side / right_side)),
        pitch=float(np.log(upper_side / lower_side)),
        roll=float(np.arctan(slope)),
        cut=cut,
    )


def neighbours(mask: np.ndarray) -> np.ndarray:
    """How many of the 8 pixels around each one are in ``mask``."""
    padded = np.pad(mask.astype(np.int8), 1)
    size = len(mask)
    around = sum(padded[1 + y : 1 + y + size, 1 + x : 1 + x + size] for y in (-1, 0, 1) for x in (-1, 0, 1))
    return np.asarray(around) - mask


def _sides(mask: np.ndarray) -> tuple[float, float, float]:
    """Lengths of the left and the right side, and how far the way between their middles goes down for each column.

    They come from the lines that fit the heights and the middles of the columns best.
    """
    columns = np.flatnonzero(mask.any(0))
    tops = np.argmax(mask[:, columns], 0)
    bottoms = len(mask) - np.argmax(mask[::-1, columns], 0)
    heights, middles = bottoms - tops, (tops + bottoms) / 2
    height = float(heights.mean())
    growth = np.clip(_slope(columns, heights) * len(columns) / 2, -0.4 * height, 0.4 * height)
    # The corners of a turned square stand out at the ends.
    inner = slice(len(columns) // 4, len(columns) - len(columns) // 4)
    return height - float(growth), height + float(growth), _slope(columns[inner], middles[inner])


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    """Of the line that fits best; 0 for a single point."""
    offsets = x - x.mean()
    return float(offsets @ y / max(offsets @ offsets, 1.0))
