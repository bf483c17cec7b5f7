"""A scripted camera pilot that looks at nothing but the picture, so it flies in a dream as in the simulator."""

from __future__ import annotations

import numpy as np

from astra_gym.agents.squares import Square, find_square
from astra_gym.camera import angles_yxz, motion_poses

FOCAL = 0.5 / np.tan(np.deg2rad(38.5))
"""Of the camera, in sides of the picture."""
TARGET = 1.1
"""Side of the target, in m."""
GOAL_DISTANCE = 1.3
"""Of the goal view from the target, in m."""
BLOCK_SECONDS = 0.2
FULL_TURN = 50
"""Blocks of search after which it has looked everywhere from here, and moves on for ``STRIDE`` blocks."""
STRIDE = 8


def see_target(frame: np.ndarray) -> np.ndarray:
    """Where ``frame``, ``uint8 (size, size, 3)``, has the target's magenta or orange, ``bool (size, size)``."""
    red, green, blue = np.moveaxis(frame.astype(np.int16), -1, 0)
    magenta = (red > 150) & (red - green > 100) & (blue - green > 40) & (red - blue > 40)
    orange = (red > 150) & (red - blue > 120) & (red - green > 60) & (green - blue > 40)
    return magenta | orange if magenta.sum() > 6 else magenta


class GoalSeeker:
    """Look for the magenta and orange target, fly to the goal view 1.3 m in front of it and stay.

    Args:
        speed: highest speed along each axis, in m/s; the skill.
    """

    def __init__(self, speed: float = 0.7):
        if not 0 < speed <= 1:
            raise ValueError(f"speed: got {speed}, allowed are numbers above 0 up to 1")
        self.speed = speed
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Forget the episode. The pilot makes no random choice: the seed is not used."""
        self._pose = np.eye(4)
        """Where the camera has turned since the beginning, when it was about level."""
        self._done = np.zeros(6)
        """The action of the last block."""
        self._side = 1.0
        self._blocks_searched = 0

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The next action, ``float32 (6,)`` as in ``CAMERA``, from a block ``uint8 (K, size, size, 3)``."""
        self._pose = self._pose @ motion_poses(self._done * BLOCK_SECONDS)
        target = find_square(see_target(observation[-1]))
        self._done = self._search() if target is None else self._approach(target)
        return self._done.astype(np.float32)

    def correct(self, action: np.ndarray) -> None:
        """Hear that another action was done than ``act`` gave."""
        self._done = action

    def _search(self) -> np.ndarray:
        """Look around, as level as at the beginning; now and then from elsewhere."""
        self._blocks_searched += 1
        _, pitch, roll = angles_yxz(self._pose[:3, :3])
        level = np.clip([-pitch, -roll], -0.3, 0.3)
        if self._blocks_searched % (FULL_TURN + STRIDE) >= FULL_TURN:
            return np.array([0.0, 0.0, self.speed, 0.0, *level])
        return np.array([0.0, 0.0, 0.0, 0.8 * self._side, *level])

    def _approach(self, target: Square) -> np.ndarray:
        self._blocks_searched = 0
        distance = TARGET * FOCAL / max(target.height, target.width)
        bearing, climb = -np.arctan(target.right / FOCAL), np.arctan(target.up / FOCAL)
        self._side = 1.0 if bearing > -0.2 else -1.0
        turn, look_up = np.clip([2.0 * bearing, 2.0 * climb], -0.9, 0.9)
        if target.cut:
            retreat = -0.4 if min(target.width, target.height) > 0.7 else 0.0
            return np.array([0.0, 0.0, retreat, turn, look_up, 0.0])
        # How far left of the target's axis, and above it, the camera is. From afar something that hides a part of the
        # target would mislead it.
        trust = np.clip(3.0 - distance, 0.0, 1.0)
        aside = distance * np.sin(np.clip(distance * target.lean / TARGET - bearing, -1.0, 1.0)) * trust
        above = distance * np.sin(np.clip(distance * target.pitch / TARGET - climb, -1.0, 1.0)) * trust
        ahead = (distance - GOAL_DISTANCE) * np.cos(bearing)
        velocity = np.clip([aside, -above, ahead], -self.speed, self.speed)
        return np.array([*velocity, turn, look_up, np.clip(-target.roll, -0.3, 0.3)])
