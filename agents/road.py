"""What a driver can see: the road, its course and the car's own motion, from the pixels of one block.

Positions are in metres of CarRacing's world in the car's frame, ``(right, forward)``; angles are in radians, clockwise
from the car's nose, so that a positive angle lies to the right.
"""

from __future__ import annotations

import numpy as np

CAR_COLUMN, CAR_ROW = 31.5, 55.0
"""The car's place in the 64x64 picture."""
PIXELS_PER_METRE = np.array([1.185, 1.481])
"""Horizontally and vertically: CarRacing squeezes a 1000x800 window into a square."""
FRAME_SECONDS = 0.02
ROAD_HALF_WIDTH = 40 / 6

_ROWS, _COLUMNS = np.mgrid[0:64, 0:64]
_RIGHT = (_COLUMNS - CAR_COLUMN) / PIXELS_PER_METRE[0]
_FORWARD = (CAR_ROW - _ROWS) / PIXELS_PER_METRE[1]
_CAR = (np.abs(_RIGHT) < 3.5) & (np.abs(_FORWARD) < 4.5)
_BESIDE_CAR = (np.abs(_RIGHT) < 5.0) & (np.abs(_FORWARD) < 6.0) & ~_CAR
_GROUND = ~_CAR & (_ROWS > 1) & (_ROWS < 62) & (_COLUMNS > 1) & (_COLUMNS < 62)


def _blur(images: np.ndarray) -> np.ndarray:
    """Smooth the last two axes with the kernel (1, 2, 1) / 4."""
    padded = np.pad(images, [(0, 0)] * (images.ndim - 2) + [(1, 1), (1, 1)], mode="edge")
    tall = (padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]) / 4
    return (tall[..., :-2] + 2 * tall[..., 1:-1] + tall[..., 2:]) / 4


def direction(angle: float | np.ndarray) -> np.ndarray:
    """Unit vectors ``(..., 2)`` that point ``angle`` radians to the right of the car's nose."""
    return np.stack([np.sin(angle), np.cos(angle)], -1)


def estimate_motion(block: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """How the car moves, from how the ground moves through the block (Lucas and Kanade's least squares, one step).

    Args:
        block: ``uint8 (K, 64, 64, 3)``, oldest frame first.
        prior: the motion expected, which wins where the ground shows no structure.

    Returns:
        ``float (3,)``: speed forward (m/s), speed to the right (m/s), turning to the right (rad/s).
    """
    grey = _blur(_blur(block.astype(np.float32).mean(-1)))
    mean = (grey[1:] + grey[:-1]) / 2
    to_right = np.gradient(mean, axis=2)[:, _GROUND] * PIXELS_PER_METRE[0]
    forward = -np.gradient(mean, axis=1)[:, _GROUND] * PIXELS_PER_METRE[1]
    turning = to_right * -_FORWARD[_GROUND] + forward * _RIGHT[_GROUND]
    # A point of the ground moves against the car: its brightness changes by -gradient . movement.
    jacobian = np.stack([forward, to_right, -turning], -1).reshape(-1, 3) * FRAME_SECONDS
    change = (grey[1:] - grey[:-1])[:, _GROUND].ravel()
    weight = 1.0 / (1.0 + np.abs(change) / 8.0)
    certainty = np.diag([1.0, 10.0, 100.0])
    normal = (jacobian * weight[:, None]).T @ jacobian + certainty
    return np.linalg.solve(normal, jacobian.T @ (weight * change) + certainty @ prior)


class RoadView:
    """The road in one frame, as a map that can be asked whether a place is road.

    Args:
        frame: ``uint8 (64, 64, 3)``.
    """

    def __init__(self, frame: np.ndarray):
        colours = frame.astype(np.int16)
        brightest, darkest = colours.max(-1), colours.min(-1)
        asphalt = (brightest - darkest < 32) & (darkest > 60) & (brightest < 150)
        self.map = _blur(asphalt.astype(np.float32)) > 0.5
        self.on_road = bool(self.map[_BESIDE_CAR].mean() > 0.4)
        self.map[_CAR] = self.on_road

    def is_road(self, points: np.ndarray) -> np.ndarray:
        """Whether each of ``points (..., 2)`` is road, ``bool (...)``; places out of the picture are not."""
        columns = np.rint(CAR_COLUMN + points[..., 0] * PIXELS_PER_METRE[0]).astype(int)
        rows = np.rint(CAR_ROW - points[..., 1] * PIXELS_PER_METRE[1]).astype(int)
        inside = (columns >= 0) & (columns < 64) & (rows >= 0) & (rows < 64)
        return inside & self.map[rows.clip(0, 63), columns.clip(0, 63)]

    def free_distance(self, origin: np.ndarray, angles: np.ndarray, reach: float) -> np.ndarray:
        """How far the road goes on from ``origin (2,)`` in each of the directions ``angles (n,)``, in metres."""
        distances = np.arange(0.0, reach, 0.5)
        seen = self.is_road(origin + distances[:, None] * direction(angles)[:, None, :])
        return np.where(seen.all(-1), reach, distances[np.argmin(seen, -1)])

    def course(self, heading: float, step: float = 3.0) -> np.ndarray:
        """Follow the middle of the road from the car on.

        Args:
            heading: the direction in which the road is expected to leave the car.
            step: distance between two points.

        Returns:
            ``float (n, 2)``: the middle of the road, nearest first; empty if the car sees no way to go.
        """
        angles = heading + np.linspace(-1.6, 1.6, 33)
        free = self.free_distance(np.zeros(2), angles, reach=18.0)
        heading = float(angles[np.argmax(free - 3.0 * np.abs(angles - heading))])
        points: list[np.ndarray] = []
        point = np.zeros(2)
        while len(points) < 16:
            ahead = point + step * direction(heading)
            if not self.is_road(ahead):
                break
            left, right = self.free_distance(ahead, heading + np.array([-np.pi / 2, np.pi / 2]), reach=9.0)
            centred = ahead + 0.5 * (right - left) * direction(heading + np.pi / 2)
            if points:
                heading = float(np.arctan2(*(centred - point)))
            point = centred
            points.append(point)
        return np.array(points).reshape(-1, 2)

    def bend(self) -> float:
        """By how much the road in sight turns, in radians: the range of its headings; 0 without a way to go."""
        steps = np.diff(self.course(0.0), axis=0)
        headings = np.unwrap(np.arctan2(steps[:, 0], steps[:, 1]))
        return float(np.ptp(headings)) if len(headings) else 0.0

    def nearest_road(self) -> np.ndarray | None:
        """The piece of road that is quickest to reach, ``float (2,)``; None if no road is in sight."""
        angles = np.linspace(-np.pi, np.pi, 49)
        distances = np.arange(4.0, 45.0, 1.0)
        places = distances[:, None] * direction(angles)[:, None, :]
        cost = np.where(self.is_road(places), distances + 6.0 * np.abs(angles)[:, None], np.inf)
        best = np.unravel_index(np.argmin(cost), cost.shape)
        if np.isinf(cost[best]):
            return None
        return places[best] + 0.7 * ROAD_HALF_WIDTH * direction(angles[best[0]])
