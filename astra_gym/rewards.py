"""Rewards for worlds without a trained reward head. Each is called as ``reward(frames, latents, info)``.

They look at the generated frames ``uint8 (K, H, W, 3)`` alone, never at the action: what was not done is not rewarded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

RewardFunction = Callable[[np.ndarray, np.ndarray, dict[str, Any]], float]
"""Frames, latents ``float32 (F, C, h, w)`` and ``info`` of a step to its reward."""


class GoalImage:
    """How much the newest frame looks like a goal: 1 if they are equal, 0 for black against white.

    Compared at a small size, so that it is the scene that counts and not its texture.

    Args:
        goal: ``uint8 (H, W, 3)``.
        size: side of the pictures that are compared, in pixels.
    """

    def __init__(self, goal: np.ndarray, size: int = 32):
        if not isinstance(goal, np.ndarray) or goal.dtype != np.uint8 or goal.ndim != 3 or goal.shape[2] != 3:
            raise ValueError("goal: allowed is an array uint8 (H, W, 3)")
        self.size = size
        self._goal = self._small(goal)

    def __call__(self, frames: np.ndarray, latents: np.ndarray, info: dict[str, Any]) -> float:
        return float(1 - np.sqrt(np.mean((self._small(frames[-1]) - self._goal) ** 2)))

    def _small(self, frame: np.ndarray) -> np.ndarray:
        small = Image.fromarray(frame).resize((self.size, self.size), Image.Resampling.BOX)
        return np.asarray(small, np.float32) / 255


class CameraPath:
    """How closely the camera turns along a path: minus the mean error of the turn seen in the frames, in rad a frame.

    The turn is read off the picture's shift from frame to frame (phase correlation), so only yaw and pitch are judged,
    and only while they dominate: a picture does not tell how far the camera moved.

    Args:
        turns: ``(N, 2)``: turn left and look up of each video frame since the beginning, in rad a frame; after its end
            the camera should stand still.
        field_of_view: horizontal, in rad.
    """

    def __init__(self, turns: np.ndarray, field_of_view: float = 1.2):
        turns = np.asarray(turns, np.float64)
        if turns.ndim != 2 or turns.shape[1] != 2 or not np.isfinite(turns).all():
            raise ValueError(f"turns: got shape {turns.shape}, allowed are finite numbers (N, 2)")
        self.turns, self.field_of_view = turns, field_of_view

    def __call__(self, frames: np.ndarray, latents: np.ndarray, info: dict[str, Any]) -> float:
        first = info["frame"] - len(frames)
        wanted = np.zeros((len(frames), 2))
        part = self.turns[first : first + len(frames)]
        wanted[: len(part)] = part
        return -float(np.abs(seen_turns(frames, self.field_of_view) - wanted[1:]).sum(-1).mean())


def seen_turns(frames: np.ndarray, field_of_view: float) -> np.ndarray:
    """Turn left and look up from each frame to the next in rad, ``(K - 1, 2)``, from frames ``(K, H, W, 3)``."""
    height, width = frames.shape[1:3]
    grey = frames.astype(np.float64).mean(-1)
    window = np.hanning(height)[:, None] * np.hanning(width)
    spectra = np.fft.fft2((grey - grey.mean((1, 2), keepdims=True)) * window)
    focal_length = width / 2 / np.tan(field_of_view / 2)
    turns = []
    for before, after in zip(spectra, spectra[1:], strict=False):
        product = after * before.conj()
        correlation = np.fft.ifft2(product / (np.abs(product) + 1e-9)).real
        down, right = (_peak(correlation, axis) for axis in (0, 1))
        turns.append(np.arctan2((right, down), focal_length))  # what goes right, the camera turns left of
    return np.array(turns)


def _peak(correlation: np.ndarray, axis: int) -> float:
    """Shift along one axis at the highest peak, refined by a parabola through its neighbours."""
    peak = np.unravel_index(correlation.argmax(), correlation.shape)
    line = np.take(correlation, peak[1 - axis], axis=1 - axis)
    size, index = len(line), int(peak[axis])
    left, middle, right = line[index - 1], line[index], line[(index + 1) % size]
    curvature = left - 2 * middle + right
    shift = index + (0.5 * (left - right) / curvature if curvature < 0 else 0.0)
    return float(shift - size if shift > size / 2 else shift)
