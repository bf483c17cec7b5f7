"""A scripted driver that looks at nothing but the picture, so it drives in a dream as in the simulator."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from astra_gym.agents.road import RoadView, estimate_motion
from astra_gym.simulators.mistakes import wander

BLOCK_SECONDS = 0.08
WHEELBASE = 3.24
"""Distance between the axles, m."""
FULL_LOCK = 0.4
"""Angle of the front wheels at full steering, rad."""
GRIP = 90.0
"""Sideways acceleration that the driver plans with, m/s²; on asphalt the tyres hold about twice as much."""
BRAKING = 30.0
"""Deceleration that the driver plans with, m/s²."""
SPIN = 2.5
"""Turning faster than this, in rad/s, the driver takes its foot off the gas; at twice this wholly."""
PATIENCE = 40
"""Blocks after which it no longer believes in a road that it has not seen since."""


class LaneFollower:
    """Follow the middle of the road, slow down for bends, and come back when off the road.

    Args:
        speed: speed aimed at on straight road, in m/s of CarRacing's world (full gas reaches about 100); the skill.
    """

    def __init__(self, speed: float = 55.0):
        if not 0 < speed <= 100:
            raise ValueError(f"speed: got {speed}, allowed are numbers above 0 up to 100")
        self.speed = speed
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Forget the episode. The driver makes no random choice: the seed is not used."""
        self.motion = np.zeros(3)
        self._course_heading = 0.0
        self._goal = np.array([0.0, 20.0])
        self._blocks_lost = 0

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The next action, ``float32 (3,)`` steer, gas, brake, from a block ``uint8 (K, 64, 64, 3)``."""
        self.motion = estimate_motion(observation, self.motion)
        self._carry_memory()
        view = RoadView(observation[-1])
        course = view.course(self._course_heading) if view.on_road else np.zeros((0, 2))
        if len(course) >= 3:
            return self._follow(course)
        return self._return_to_road(view)

    def _carry_memory(self) -> None:
        """What the driver remembers lies elsewhere now, since the car has moved."""
        turned = self.motion[2] * BLOCK_SECONDS
        self._course_heading -= turned
        moved = self._goal - self.motion[1::-1] * BLOCK_SECONDS
        cos, sin = np.cos(turned), np.sin(turned)
        self._goal = np.array([cos * moved[0] - sin * moved[1], sin * moved[0] + cos * moved[1]])

    def _follow(self, course: np.ndarray) -> np.ndarray:
        self._blocks_lost = 0
        steps = np.diff(course, axis=0, prepend=np.zeros((1, 2)))
        lengths = np.hypot(*steps.T)
        distances = np.cumsum(lengths)
        headings = np.unwrap(np.arctan2(steps[:, 0], steps[:, 1]))
        self._course_heading = float(np.clip(headings[1], -1.5, 1.5))

        look_ahead = 12.0 + 0.2 * max(self.motion[0], 0.0)
        self._goal = course[np.argmin(np.abs(distances - look_ahead))]
        steer = self._steer_to(self._goal)

        # Curvature over three steps; each bend allows the speed from which the car can still brake for it.
        curvature = np.abs(headings[4:] - headings[1:-3]) / (distances[4:] - distances[1:-3])
        limits = GRIP / np.maximum(curvature, 1e-3) + 2 * BRAKING * distances[1:-3]
        end_of_sight = 30.0**2 + 2 * BRAKING * distances[-1]
        allowed = np.sqrt(min(limits.min(initial=np.inf), end_of_sight))
        return self._action(steer, min(self.speed, allowed))

    def _return_to_road(self, view: RoadView) -> np.ndarray:
        place = view.nearest_road()
        self._blocks_lost = self._blocks_lost + 1 if place is None else 0
        if place is not None:
            self._goal = place
        elif self._blocks_lost > PATIENCE:
            self._goal = np.array([0.0, 20.0])
        angle = np.arctan2(*self._goal)
        self._course_heading = 0.0
        return self._action(self._steer_to(self._goal), 25.0 if abs(angle) < 0.6 else 15.0)

    def _steer_to(self, goal: np.ndarray) -> float:
        """Steer along the circle through ``goal``, and a little against turning faster than that circle asks for."""
        angle = np.arctan2(*goal)
        curvature = 2.0 * np.sin(angle) / max(np.hypot(*goal), 5.0)
        turning = max(self.motion[0], 0.0) * curvature
        return float(WHEELBASE / FULL_LOCK * curvature + 0.03 * (turning - self.motion[2]))

    def _action(self, steer: float, goal_speed: float) -> np.ndarray:
        steer = np.clip(steer, -1.0, 1.0)
        excess = self.motion[0] - goal_speed
        spin = np.clip(abs(self.motion[2]) / SPIN - 1.0, 0.0, 1.0)
        gas = np.clip(-0.06 * excess, 0.0, 1.0) * (1.0 - 0.6 * abs(steer)) * (1.0 - spin)
        brake = np.clip(0.03 * (excess - 2.0), 0.0, 0.8)
        return np.array([steer, gas, brake], np.float32)


class HurriedFollower:
    """A :class:`LaneFollower` in a hurry for collecting data: fast, with steering that wanders and now and then an
    action that is held wherever it leads. It knows of no bend before it sees it.

    Args:
        seed: of its speed and of its mistakes; the same seed gives the same driver.
    """

    def __init__(self, seed: int):
        self.rng = np.random.default_rng([seed, 4])
        self.driver = LaneFollower(float(self.rng.uniform(40, 90)))
        self.noise = float(self.rng.uniform(0, 0.15))
        self._error = 0.0
        self._held: tuple[int, np.ndarray] = (0, np.zeros(3, np.float32))

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """The next action, ``float32 (3,)`` steer, gas, brake, from a block ``uint8 (K, 64, 64, 3)``."""
        action, rng = self.driver.act(observation), self.rng
        self._error = wander(self._error, self.noise, rng)
        blocks_left, held = self._held
        if blocks_left > 0:
            self._held = (blocks_left - 1, held)
            return held.copy()
        if rng.random() < 0.03:
            steer = rng.uniform(-1, 1)
            gas, brake = (rng.uniform(), 0.0) if rng.random() < 0.8 else (0.0, 0.6)
            held = np.array([steer, gas, brake], np.float32)
            self._held = (int(rng.integers(1, 6)), held)
            return held.copy()
        return np.array([np.clip(action[0] + self._error, -1, 1), *action[1:]], np.float32)


def hurried_follower(env: gym.Env, seed: int) -> HurriedFollower:
    """A driver that reads the picture, for ``astra-gym collect``."""
    return HurriedFollower(seed)
