"""The Drive world's ground truth: Gymnasium's CarRacing-v3 (Box2D), and a driver of adjustable skill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from astra_gym.actions import DRIVE
from astra_gym.simulators.blocks import Simulator
from astra_gym.simulators.mistakes import wander

CROP = (6, 0, 90, 84)
"""The square above CarRacing's instrument panel, in its 96x96 pixels (left, top, right, bottom)."""

TRACK_HALF_WIDTH = 40 / 6
"""Of the track, in CarRacing's units."""


class _SkipZoom(gym.Wrapper):
    """Begin at the final zoom: CarRacing's camera flies in during its first second."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        _, info = self.env.reset(seed=seed, options=options)
        env: Any = self.env.unwrapped
        env.t = 1.0
        return env._render("state_pixels"), info


class _LapsGoOn(gym.Wrapper):
    """Report a finished lap as truncation: nothing in the picture tells where a lap ends."""

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated and info.get("lap_finished"):
            terminated, truncated = False, True
        return observation, reward, terminated, truncated, info


class DriveSim(Simulator):
    """CarRacing-v3 in the interface of ``AstraDrive-v0``.

    Physics, reward and pixels are CarRacing's. Three things differ: the picture is the 84x84 square above the
    instrument panel, scaled to 64x64; the camera does not fly in; a finished lap truncates the episode instead of
    terminating it. One step holds the action for a block of 4 frames at 50 frames/s, 0.08 s.

    Args:
        max_episode_blocks: time limit in blocks; None for CarRacing's own 1,000 frames.
    """

    modality = DRIVE
    """What an action means here."""

    def __init__(self, max_episode_blocks: int | None = 250, render_mode: str | None = "rgb_array", size: int = 64):
        self.check_arguments(max_episode_blocks, render_mode, size)
        try:
            import Box2D  # noqa: F401
        except ImportError as error:
            raise ImportError(
                'CarRacing needs Box2D, which is missing: pip install ".[sims]" in the astra-gym checkout'
            ) from error
        limit = None if max_episode_blocks is None else 4 * max_episode_blocks
        env = gym.make("CarRacing-v3", max_episode_steps=limit, disable_env_checker=True)
        super().__init__(_LapsGoOn(_SkipZoom(env)), render_mode, size, CROP)


@dataclass
class DriverSkill:
    """How a :class:`Driver` drives."""

    speed: float = 55.0
    """Speed aimed at on straight road (CarRacing's units a second; full gas reaches about 100)."""
    look_ahead: float = 4.0
    """Track tiles between the car and the point it steers to; more with speed."""
    caution: float = 1.0
    """How much bends slow it down; 0 keeps the speed."""
    noise: float = 0.0
    """Standard deviation of the slowly wandering steering error."""
    offset: float = 0.0
    """Standard deviation of the slowly wandering distance from the centre line, in track half-widths."""
    keys: bool = False
    """Steer, gas and brake all or nothing, as with a keyboard."""
    stunts: float = 0.0
    """Chance at each block to begin a stunt: one action held for some blocks."""
    longest_stunt: int = 16
    """Blocks of the longest stunt; the shortest has 4."""
    swerves: float = 0.0
    """Chance at each block to begin a swerve: a steering angle drawn by chance, in a third of them full lock, is held
    for 1 to 4 blocks, while gas and brake go on as before."""
    pedals: float = 0.0
    """Chance at each block to draw gas and brake anew by chance; they are held while the car is on the road, whatever
    bend is near."""
    runaway: bool = False
    """Leave the track and drive straight to the edge of the field."""

    @classmethod
    def sample(cls, rng: np.random.Generator) -> DriverSkill:
        """Draw a driver: most follow the track smoothly; some hurry, use keys, try stunts, go wild or leave it."""
        kind = str(rng.choice(list(_KINDS), p=[share for share, _, _ in _KINDS.values()]))
        _, top_speed, noise = _KINDS[kind]
        return cls(
            speed=float(rng.uniform(15, top_speed)),
            look_ahead=float(rng.uniform(3, 7)),
            caution=float(rng.uniform(0.7, 1.5)),
            noise=float(rng.uniform(0, noise)),
            offset=float(rng.uniform(0.5, 2.0) if kind == "wild" else rng.uniform(0, 0.7)),
            keys=kind == "keys",
            stunts={"stunts": 0.04, "wild": 0.08}.get(kind, 0.0),
            runaway=kind == "runaway",
        )


_KINDS = {
    "smooth": (0.45, 60, 0.15),
    "brisk": (0.22, 95, 0.15),
    "keys": (0.06, 60, 0.10),
    "stunts": (0.12, 60, 0.15),
    "wild": (0.05, 80, 0.50),
    "runaway": (0.10, 100, 0.15),
}
"""Share of the drivers that :meth:`DriverSkill.sample` draws, their highest speed and their most noise."""


class Driver:
    """Scripted driver that reads the simulator's state: track, position and speed.

    Args:
        env: a :class:`DriveSim`, possibly wrapped.
        skill: how to drive.
        seed: of the driver's own noise.
    """

    def __init__(self, env: gym.Env, skill: DriverSkill | None = None, seed: int | None = None):
        self.car_racing: Any = env.unwrapped
        self.skill = skill or DriverSkill()
        self.reset(seed)

    def reset(self, seed: int | None = None) -> None:
        """Forget the episode; call after the environment's ``reset``."""
        self.rng = np.random.default_rng(seed)
        self._steer_error = self._offset = 0.0
        self._stunt: tuple[int, np.ndarray] = (0, np.zeros(3, np.float32))
        self._swerve = (0, 0.0)
        self._pedals = (0.5, 0.0)
        self._leave_at = int(self.rng.integers(5, 40))
        self._block = 0

    def __call__(self, observation: np.ndarray | None = None) -> np.ndarray:
        """The action for the next block, ``float32 (3,)``: steer, gas, brake. The observation is not looked at."""
        skill, rng = self.skill, self.rng
        self._block += 1
        self._steer_error = wander(self._steer_error, skill.noise, rng)
        self._offset = 0.95 * self._offset + 0.31 * skill.offset * rng.standard_normal()
        blocks_left, action = self._stunt
        if blocks_left > 0:
            self._stunt = (blocks_left - 1, action)
            return action.copy()
        if rng.random() < skill.stunts:
            self._stunt = (int(rng.integers(3, skill.longest_stunt)), self._draw_stunt())
            return self._stunt[1].copy()
        if skill.runaway and self._block > self._leave_at:
            return self._leave_field()
        action = self._follow_track()
        if skill.swerves and self._swerve[0] == 0 and rng.random() < skill.swerves:
            self._swerve = (int(rng.integers(1, 5)), float(np.clip(rng.uniform(-1.5, 1.5), -1, 1)))
        blocks_left, steer = self._swerve
        if blocks_left > 0:
            self._swerve = (blocks_left - 1, steer)
            action[0] = steer
        if skill.pedals and rng.random() < skill.pedals:
            self._pedals = self._draw_pedals()
        if skill.pedals and self._is_on_road():
            action[1:] = self._pedals
        return action

    def _draw_stunt(self) -> np.ndarray:
        steer = self.rng.choice([-1.0, 0.0, 1.0, self.rng.uniform(-1, 1)])
        gas, brake = [(0.0, 0.0), (1.0, 0.0), (0.5, 0.0), (0.0, 0.8), (0.1, 0.0)][self.rng.integers(5)]
        return np.array([steer, gas, brake], np.float32)

    def _draw_pedals(self) -> tuple[float, float]:
        """Gas and brake: full gas in two of ten cases, some in six, neither in one, the brake in one."""
        kind = self.rng.random()
        if kind < 0.2:
            return 1.0, 0.0
        if kind < 0.8:
            return float(self.rng.uniform(0, 1)), 0.0
        if kind <= 0.9:
            return 0.0, 0.0
        return 0.0, float(self.rng.uniform(0.2, 0.8))

    def _is_on_road(self) -> bool:
        """Whether the car's centre is."""
        track = np.asarray(self.car_racing.track)[:, 2:4]
        distance = np.linalg.norm(track - np.array(self.car_racing.car.hull.position), axis=1).min()
        return bool(distance < TRACK_HALF_WIDTH)

    def _leave_field(self) -> np.ndarray:
        hull = self.car_racing.car.hull
        error = self._angle_to(np.array(hull.position), hull.angle)
        speed = float(np.hypot(*hull.linearVelocity))
        steer = np.clip(0.5 * hull.angularVelocity - 0.6 * error, -1, 1)
        gas = np.clip(0.06 * (self.skill.speed - speed), 0.0, 1.0) * (1.0 - 0.8 * min(abs(steer), 1.0))
        return np.array([steer, gas, 0.0], np.float32)

    def _follow_track(self) -> np.ndarray:
        skill, hull = self.skill, self.car_racing.car.hull
        track = np.asarray(self.car_racing.track)
        centre, heading = track[:, 2:4], track[:, 1]
        position = np.array(hull.position)
        speed = float(np.hypot(*hull.linearVelocity))
        nearest = int(np.argmin(((centre - position) ** 2).sum(1)))
        ahead = (nearest + int(round(skill.look_ahead + speed / 20))) % len(track)
        normal = np.array([np.cos(heading[ahead]), np.sin(heading[ahead])])
        target = centre[ahead] + self._offset * TRACK_HALF_WIDTH * normal
        error = self._angle_to(target - position, hull.angle)
        bend = max(abs(_wrap(heading[(nearest + k) % len(track)] - heading[nearest])) for k in (6, 10, 14))
        goal = skill.speed / (1.0 + skill.caution * 1.2 * bend)
        steer = np.clip(-1.6 * error + self._steer_error, -1, 1)
        gas = np.clip(0.06 * (goal - speed), 0.0, 1.0) * (1.0 - 0.6 * abs(steer))
        brake = np.clip(0.03 * (speed - 1.25 * goal), 0.0, 0.8)
        if skill.keys:
            steer = np.sign(steer) if abs(steer) > 0.25 else 0.0
            gas, brake = float(gas > 0.25), 0.8 * float(brake > 0.2)
        return np.array([steer, gas, brake], np.float32)

    @staticmethod
    def _angle_to(vector: np.ndarray, hull_angle: float) -> float:
        """Signed angle (radians, counter-clockwise) from the car's nose to ``vector``."""
        return _wrap(float(np.arctan2(-vector[0], vector[1])) - hull_angle)


def _wrap(angle: float) -> float:
    return (angle + np.pi) % (2 * np.pi) - np.pi


def mixed_driver(env: gym.Env, seed: int) -> Driver:
    """A driver of random skill for collecting varied data; the same seed gives the same driver."""
    return Driver(env, DriverSkill.sample(np.random.default_rng([seed, 1])), seed)


def runaway_driver(env: gym.Env, seed: int) -> Driver:
    """A driver that leaves the track and soon the field, at speed; the same seed gives the same driver."""
    speed = np.random.default_rng([seed, 2]).uniform(50, 100)
    return Driver(env, DriverSkill(speed=float(speed), runaway=True), seed)


def stubborn_driver(env: gym.Env, seed: int) -> Driver:
    """A driver that often holds one action for up to 40 blocks, wherever it leads; the same seed gives the same one."""
    speed = np.random.default_rng([seed, 3]).uniform(15, 60)
    return Driver(env, DriverSkill(speed=float(speed), noise=0.1, stunts=0.08, longest_stunt=40), seed)


def swerving_driver(env: gym.Env, seed: int) -> Driver:
    """A driver that steers by chance in a fifth of the blocks, so that where its car goes does not follow from what was
    to be seen, and then finds back to the track; the same seed gives the same driver."""
    speed = np.random.default_rng([seed, 5]).uniform(20, 60)
    return Driver(env, DriverSkill(speed=float(speed), swerves=0.1), seed)


def careless_driver(env: gym.Env, seed: int) -> Driver:
    """A driver whose actions tell nothing of what is yet to come into view: it follows the road, but draws gas and
    brake by chance, and the steering in a tenth of the blocks; the same seed gives the same driver."""
    return Driver(env, DriverSkill(speed=30.0, swerves=0.05, pedals=0.15), seed)
