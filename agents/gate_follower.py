"""A scripted racer that looks at nothing but the picture, so it flies in a dream as in the simulator."""

from __future__ import annotations

import numpy as np

from astra_gym.agents.squares import Square, find_square

FOCAL = 0.5 / np.tan(np.deg2rad(40.0))
"""In sides of the picture. The drone's camera, whose field of view is 85 degrees, has 9 % less, so that gates seem
farther than they are; the distances and gains here were tuned by flying with it."""
CAMERA_TILT = 0.12
"""How far the camera looks below the horizon, in rad."""
GATE = 2.0
"""Outer side of a gate, in m."""
NEAR = 1.8
"""Distance from the gate, in m, from which on it flies straight on: soon the picture no longer shows the whole gate."""
BEHIND = 0.3
"""How far it flies on behind the gate, in m."""
BLOCK_SECONDS = 0.2


def see_signal(frame: np.ndarray) -> np.ndarray:
    """Where ``frame``, ``uint8 (size, size, 3)``, has the bright red of the next gate, ``bool (size, size)``."""
    red, green, blue = np.moveaxis(frame.astype(np.int16), -1, 0)
    return (red > 100) & (10 * red > 17 * np.maximum(green, blue))


class GateFollower:
    """Turn to the red gate, join its axis, fly through the middle of its opening; where none is seen, look around.

    Args:
        speed: in m/s, aimed at where the way is straight; the skill.
    """

    def __init__(self, speed: float = 1.4):
        if not 0 < speed <= 2:
            raise ValueError(f"speed: got {speed}, allowed are numbers above 0 up to 2")
        self.speed = speed
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Forget the episode. The racer makes no random choice: the seed is not used."""
        self._distance = np.inf
        """From the gate in m, as last seen and flown since; infinite where no gate is known."""
        self._velocity = np.zeros(3)
        self._flown = 0.0
        """Speed forward in the last block, in m/s."""
        self._side = 1.0

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The next action, ``float32 (4,)`` forward, left, up, turn left, from a block ``uint8 (K, size, size, 3)``."""
        self._distance -= self._flown * BLOCK_SECONDS
        if self._distance < -BEHIND:
            self._distance = np.inf
        gate = find_square(see_signal(observation[-1]))
        if gate is not None and self._distance > NEAR:
            velocity, turn = self._approach(gate)
        elif self._distance <= NEAR:
            velocity, turn = self._velocity, 0.0
        else:
            velocity, turn = np.zeros(3), 0.7 * self._side
        self._velocity, self._flown = velocity, float(velocity[0])
        return np.array([*velocity, turn], np.float32)

    def correct(self, action: np.ndarray) -> None:
        """Hear that another action was done than ``act`` gave."""
        self._flown = float(action[0])

    def _approach(self, gate: Square) -> tuple[np.ndarray, float]:
        """Velocities forward, left and up, and the rate of turning left."""
        bearing = -np.arctan(gate.right / FOCAL)
        climb = np.arctan(gate.up / FOCAL) - CAMERA_TILT
        off_axis, distance, aside = 0.0, np.inf, 0.0
        if not gate.cut:
            distance = GATE * FOCAL / gate.height
            # How far left of the gate's axis the drone is, as an angle seen from the gate.
            off_axis = np.clip(distance * gate.lean / GATE - bearing, -0.8, 0.8)
            aside = np.clip(distance * np.sin(off_axis), -1.0, 1.0)
            self._distance = distance
        self._side = 1.0 if bearing >= 0 else -1.0
        # Slowly where the gate lies aside or is seen aslant; not nearer before it is seen straight.
        forward = self.speed / (1.0 + 1.5 * abs(bearing) + abs(off_axis))
        forward *= 1.0 - np.clip(3.5 - distance, 0.0, 1.0) * min(2.0 * abs(off_axis), 1.0)
        left = forward * np.tan(bearing) - 0.8 * aside
        velocity = np.array([forward, np.clip(left, -1.0, 1.0), np.clip(1.2 * forward * np.tan(climb), -1.0, 1.0)])
        return velocity, np.clip(1.5 * bearing, -0.8, 0.8)
