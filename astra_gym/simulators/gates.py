"""The Drone world's ground truth: a MuJoCo quadrotor in a course of gates, and a racer of adjustable skill."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from astra_gym.actions import DRONE
from astra_gym.simulators import quadrotor
from astra_gym.simulators.blocks import Simulator
from astra_gym.simulators.gates_scene import FIELD, OPENING, Course, Gate, draw_course
from astra_gym.simulators.mistakes import wander
from astra_gym.simulators.mujoco_view import MujocoView, mujoco

CEILING = 5.0
"""Flying higher ends the episode, in m."""
GATE_BONUS = 5.0
CRASH_REWARD = -10.0
STEPS_PER_FRAME = 10
"""Steps of physics a frame, 5 ms each."""


class GateCourse(gym.Env[np.ndarray, np.ndarray]):
    """The course frame by frame; :class:`DroneSim` makes blocks of it and has the page.

    Args:
        size: side of the square frames in pixels.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": DRONE.fps}

    def __init__(self, size: int = 64):
        self.render_mode = "rgb_array"
        self.size = size
        self.action_space = DRONE.action_space
        self.observation_space = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.controller = quadrotor.FlightController()
        self._begun = False
        self._view: MujocoView | None = None
        self._frame = np.zeros(self.observation_space.shape, np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Draw a new course; the drone hovers before the first gate."""
        super().reset(seed=seed)
        self.course: Course = draw_course(self.np_random)
        self.model = mujoco.MjModel.from_xml_string(self.course.xml)
        self.data = mujoco.MjData(self.model)
        self.data.qpos[:3] = self.course.start
        self.data.qpos[3:7] = np.cos(self.course.start_yaw / 2), 0, 0, np.sin(self.course.start_yaw / 2)
        self.next_gate = self.gates_passed = 0
        self._paint_gates()
        self.close()
        self._begun = True
        self._frame = self._draw()
        return self._frame.copy(), self._info()

    def step(self, action: np.ndarray):
        """Fly for one frame.

        Raises:
            ResetNeeded: before the first ``reset``.
        """
        if not self._begun:
            raise ResetNeeded("call reset() before step(): no episode has begun")
        command = tuple(action.tolist())
        before, gate = self.position, self.gate
        crashed = False
        for _ in range(STEPS_PER_FRAME):
            self.controller.control(self.data, command)
            mujoco.mj_step(self.model, self.data)
            crashed = crashed or self.data.ncon > 0
        after = self.position
        crashed = crashed or after[2] > CEILING or max(abs(after[0]), abs(after[1])) > FIELD
        reward = float(np.linalg.norm(gate.centre - before) - np.linalg.norm(gate.centre - after))
        if crashed:
            reward = CRASH_REWARD
        elif gate.crossed(before, after):
            reward += GATE_BONUS
            self.gates_passed += 1
            self.next_gate = (self.next_gate + 1) % len(self.course.gates)
            self._paint_gates()
        self._frame = self._draw()
        return self._frame.copy(), reward, bool(crashed), False, self._info()

    def render(self) -> np.ndarray:
        """The newest frame, ``uint8 (size, size, 3)``."""
        if not self._begun:
            raise ResetNeeded("call reset() before render(): no episode has begun")
        return self._frame.copy()

    def close(self) -> None:
        """Free the graphics memory; the next frame takes it again."""
        if self._view is not None:
            self._view.close()
            self._view = None

    @property
    def gate(self) -> Gate:
        """The next gate to pass."""
        return self.course.gates[self.next_gate]

    @property
    def position(self) -> np.ndarray:
        """Of the drone, ``float64 (3,)`` in m; the field's middle is 0, z is up."""
        return self.data.qpos[:3].copy()

    @property
    def velocity(self) -> np.ndarray:
        """Of the drone along the field's axes, ``float64 (3,)`` in m/s."""
        return self.data.qvel[:3].copy()

    @property
    def heading(self) -> float:
        """Direction of the drone's nose on the map, in rad counter-clockwise from x."""
        return quadrotor.heading(self.data)

    def _paint_gates(self) -> None:
        signal, dull = self.model.material("signal").id, self.model.material("dull").id
        for gate in range(len(self.course.gates)):
            for bar in range(4):
                self.model.geom(f"gate{gate}_{bar}").matid = signal if gate == self.next_gate else dull

    def _draw(self) -> np.ndarray:
        if self._view is None:
            self._view = MujocoView(self.model, self.size, fog=True)
        self.data.mocap_pos[0] = self.data.qpos[:3]
        self.data.mocap_quat[0] = np.cos(self.heading / 2), 0, 0, np.sin(self.heading / 2)
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        return self._view.frame(self.data, "eye")

    def _info(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "velocity": self.velocity,
            "heading": self.heading,
            "next_gate": self.next_gate,
            "gates_passed": self.gates_passed,
        }


class DroneSim(Simulator):
    """
    ## Description
    A quadrotor flies a winding closed course of gates, seen by its forward camera: the ground truth of `AstraDrone-v0`,
    with the same interface. MuJoCo computes the flight of its body (0.5 kg, four motors, 200 steps a second); a flight
    controller turns the velocities asked for into thrusts, so they are reached after about a quarter of a second. The
    camera hangs in a gimbal: it turns with the drone, stays level and looks 7 degrees below the horizon; it sees 85
    degrees. The next gate to pass is bright orange-red, the others are of a dull colour.

    ## Action Space
    `Box([-1, -1, -1, -1.5], [2, 1, 1, 1.5], (4,), float32)`: velocities in the drone's own level frame. One step holds
    the action for a block of 4 frames at 20 frames/s: 0.2 s.

    | Num | Action | Min | Max | Unit |
    |-----|--------|-----|-----|------|
    | 0 | forward | -1 | 2 | m/s |
    | 1 | left | -1 | 1 | m/s |
    | 2 | up | -1 | 1 | m/s |
    | 3 | turn left | -1.5 | 1.5 | rad/s |

    Values out of bounds are clipped. A wrong shape or a number that is not finite raises a `ValueError`.

    ## Observation Space
    `Box(0, 255, (4, 64, 64, 3), uint8)`: the block's RGB frames, oldest first.

    ## Rewards
    The sum over the block's frames of the progress towards the centre of the next gate in m, and 5 for passing through
    it, from either side. The frame of a crash counts -10 instead.

    ## Starting State
    The seed draws everything: 9 to 11 gates 4 to 6 m apart at heights of 1.2 to 2.4 m, what stands on and around the
    field, colours and light. The drone hovers 3 to 4.5 m before the first gate and roughly faces it.

    ## Episode End
    - Termination: the drone crashes. It touches a gate, an obstacle or the ground, climbs above 5 m, or leaves the
      tiled field of 28 m x 28 m.
    - Truncation: after `max_episode_blocks`. The course is closed, so it has no end.

    ## Arguments
    - `max_episode_blocks`: time limit in blocks; None for no limit.
    - `render_mode`: `"rgb_array"` renders the newest frame; None does too.
    - `size`: side of the frames in pixels.

    ## Info
    - `"position"`, `"velocity"`: of the drone along the field's axes, z up, in m and m/s, `float64 (3,)`.
    - `"heading"`: of its nose, in rad counter-clockwise from x.
    - `"next_gate"`: number of the next gate, `"gates_passed"`: how many have been passed.
    """

    modality = DRONE
    """What an action means here."""

    def __init__(self, max_episode_blocks: int | None = 150, render_mode: str | None = "rgb_array", size: int = 64):
        self.check_arguments(max_episode_blocks, render_mode, size)
        course: gym.Env = GateCourse(size)
        if max_episode_blocks is not None:
            course = gym.wrappers.TimeLimit(course, 4 * max_episode_blocks)
        super().__init__(course, render_mode, size)


@dataclass
class RacerSkill:
    """How a :class:`Racer` flies."""

    speed: float = 1.4
    """Aimed at, in m/s."""
    noise: float = 0.0
    """Standard deviation of the slowly wandering error of every command, as a share of its bounds."""
    offset: float = 0.0
    """Standard deviation of the slowly wandering distance from the gate's axis, in m."""
    caution: float = 1.0
    """How much it slows down where it does not yet face the gate or is off its axis; 0 keeps the speed."""
    stunts: float = 0.0
    """Chance at each block to begin a stunt: a random command, held for 3 to 10 blocks."""
    stubborn: bool = False
    """Hold the command of a stunt wherever it leads, up to the bounds and for up to 20 blocks."""
    explorer: bool = False
    """Roam about by random commands and care for no gate, only for what is in the way."""
    crash_at: int | None = None
    """Block from which on it tries to crash."""

    @classmethod
    def sample(cls, rng: np.random.Generator) -> RacerSkill:
        """Draw a racer: most fly the course at varied speed; some try stunts, some roam about, a few crash."""
        kind = str(rng.choice(list(_KINDS), p=list(_KINDS.values())))
        return cls(
            speed=float(rng.uniform(0.5, 1.8)),
            noise=float(rng.uniform(0, 0.2)),
            offset=float(rng.uniform(0, 0.2)),
            caution=float(rng.uniform(0.6, 1.5)),
            stunts=0.04 if kind == "stunts" else 0.0,
            explorer=kind in ("explorer", "explorer crash"),
            crash_at=int(rng.integers(4, 110)) if kind in ("crash", "explorer crash") else None,
        )


_KINDS = {"racer": 0.45, "stunts": 0.15, "explorer": 0.20, "crash": 0.15, "explorer crash": 0.05}
"""Share of the racers that :meth:`RacerSkill.sample` draws."""


class Racer:
    """Scripted pilot that reads the simulator's state: gates, position and heading.

    Args:
        env: a :class:`DroneSim`, possibly wrapped.
        skill: how to fly.
        seed: of the racer's own noise.
    """

    def __init__(self, env: gym.Env, skill: RacerSkill | None = None, seed: int | None = None):
        self.sim: Any = env.unwrapped
        self.skill = skill or RacerSkill()
        self.reset(seed)

    def reset(self, seed: int | None = None) -> None:
        """Forget the episode; call after the environment's ``reset``."""
        self.rng = np.random.default_rng(seed)
        self._error, self._offset = np.zeros(4), np.zeros(2)
        self._stunt: tuple[int, np.ndarray] = (0, np.zeros(4))
        self._roaming = np.zeros(4)
        self._way_down = str(self.rng.choice(["gate", "ground", "straight"]))
        self._block = 0

    def __call__(self, observation: np.ndarray | None = None) -> np.ndarray:
        """The action for the next block, ``float32 (4,)``. The observation is not looked at."""
        skill, rng = self.skill, self.rng
        self._block += 1
        self._error = wander(self._error, skill.noise, rng)
        self._offset = 0.9 * self._offset + 0.44 * skill.offset * rng.standard_normal(2)
        if skill.crash_at is not None and self._block >= skill.crash_at:
            action = self._crash()
        elif skill.explorer or self._stunt[0] > 0 or rng.random() < skill.stunts:
            action = self._hold() if skill.stubborn else self._roam()
        else:
            action = self._race() + self._error * (2.0, 1.0, 1.0, 0.6)
        return np.clip(action, DRONE.low, DRONE.high).astype(np.float32)

    def _race(self) -> np.ndarray:
        """Join the axis of the next gate, then fly along it through the gate."""
        gate, position = self.sim.gate, self.sim.position
        to_gate = gate.centre - position
        along = float(to_gate @ gate.normal)
        through = gate.normal if along >= 0 else -gate.normal
        off_axis = float(np.linalg.norm(to_gate - along * gate.normal))
        if abs(along) < 0.8 and off_axis > 0.55:
            aim = gate.centre - 2.5 * through  # beside the gate: go back and try again
        else:
            aim = gate.centre - max(0.5 * abs(along) - 0.3, -0.6) * through
        sideways = np.array([-gate.normal[1], gate.normal[0], 0.0])
        aim = aim + np.clip(self._offset[0], -0.4, 0.4) * sideways + (0, 0, np.clip(self._offset[1], -0.4, 0.4))
        bearing = self._angle_to(gate.centre + 1.5 * through)
        doubt = abs(bearing) + 0.5 * min(off_axis / (abs(along) + 0.3), 2.0)
        speed = self.skill.speed / (1.0 + self.skill.caution * doubt)
        direction = (aim - position) / max(float(np.linalg.norm(aim - position)), 1e-6)
        return np.array([*self._level(speed * direction), np.clip(1.5 * bearing, -0.8, 0.8)])

    def _roam(self) -> np.ndarray:
        """A smooth random command, held for some blocks; away from what is in the way."""
        blocks_left, goal = self._stunt
        if blocks_left == 0:
            goal = self.rng.uniform(DRONE.low, DRONE.high) * (0.6, 0.6, 0.6, 0.4) * (self.rng.random(4) < 0.6)
            blocks_left = int(self.rng.integers(3, 11))
        self._roaming = self._roaming + 0.6 * (goal - self._roaming)
        velocity = self._from_level(self._roaming[:3])
        if self._blocked(velocity):
            to_middle = np.array([0.0, 0.0, 2.0]) - self.sim.position
            way_out = to_middle / np.linalg.norm(to_middle)
            velocity = way_out if not self._blocked(way_out) else -velocity
            self._roaming[:3] = self._level(velocity)
            goal = np.array([*self._roaming[:3], goal[3]])
        self._stunt = (blocks_left - 1, goal)
        return self._roaming

    def _hold(self) -> np.ndarray:
        """One random command: each axis at rest, anywhere within its bounds, or at one of them."""
        blocks_left, command = self._stunt
        if blocks_left == 0:
            anywhere = self.rng.uniform(DRONE.low, DRONE.high)
            bound = np.where(self.rng.random(4) < 0.5, DRONE.low, DRONE.high)
            command = np.choose(self.rng.choice(3, 4, p=(0.4, 0.4, 0.2)), (np.zeros(4), anywhere, bound))
            blocks_left = int(self.rng.integers(3, 21))
        self._stunt = (blocks_left - 1, command)
        return command

    def _crash(self) -> np.ndarray:
        """Into the next gate's bar, down to the ground, or straight on until something is there."""
        if self._way_down == "straight":
            return np.array([self.skill.speed, 0.0, 0.0, 0.0])
        if self._way_down == "ground":
            return np.array([0.7 * self.skill.speed, 0.0, -0.6, 0.0])
        gate = self.sim.gate
        bar = gate.centre + (OPENING / 2 + 0.15) * np.array([-gate.normal[1], gate.normal[0], 0.0])
        to_bar = bar - self.sim.position
        return np.array([*self._level(self.skill.speed * to_bar / np.linalg.norm(to_bar)), 2.0 * self._angle_to(bar)])

    def _blocked(self, velocity: np.ndarray) -> bool:
        """Whether something is in the way of flying at ``velocity`` (along the field's axes) for about a second."""
        position, speed = self.sim.position, float(np.linalg.norm(velocity))
        if speed < 0.05:
            return False
        ahead = position + velocity
        if max(abs(ahead[0]), abs(ahead[1])) > FIELD - 0.5 or not 0.6 < ahead[2] < CEILING - 0.5:
            return True
        hit = np.zeros(1, np.int32)
        drone = self.sim.model.body("drone").id
        distance = mujoco.mj_ray(self.sim.model, self.sim.data, position, velocity / speed, None, 1, drone, hit)
        return 0 <= distance < 0.6 + speed

    def _angle_to(self, point: np.ndarray) -> float:
        """Angle by which the drone must turn left to face ``point``, in rad."""
        x, y, _ = point - self.sim.position
        return float((np.arctan2(y, x) - self.sim.heading + np.pi) % (2 * np.pi) - np.pi)

    def _level(self, velocity: np.ndarray) -> np.ndarray:
        """From the field's axes to the drone's level frame, made slower where that is beyond the bounds."""
        cos, sin = np.cos(self.sim.heading), np.sin(self.sim.heading)
        x, y, z = velocity
        level = np.array([cos * x + sin * y, cos * y - sin * x, z])
        bound = np.where(level > 0, DRONE.high[:3], -np.array(DRONE.low[:3]))
        return level / max(1.0, float((np.abs(level) / bound).max()))

    def _from_level(self, velocity: np.ndarray) -> np.ndarray:
        cos, sin = np.cos(self.sim.heading), np.sin(self.sim.heading)
        forward, left, up = velocity
        return np.array([cos * forward - sin * left, sin * forward + cos * left, up])


def mixed_racer(env: gym.Env, seed: int) -> Racer:
    """A racer of random skill for collecting varied data; the same seed gives the same racer."""
    return Racer(env, RacerSkill.sample(np.random.default_rng([seed, 1])), seed)


def stubborn_racer(env: gym.Env, seed: int) -> Racer:
    """A racer that often holds one command for up to 20 blocks, past gates and into them; the same seed gives the same
    one."""
    speed = np.random.default_rng([seed, 2]).uniform(0.5, 1.8)
    return Racer(env, RacerSkill(speed=float(speed), noise=0.1, offset=0.1, stunts=0.12, stubborn=True), seed)


def crashing_racer(env: gym.Env, seed: int) -> Racer:
    """A racer that flies or roams for a while and then tries to crash; the same seed gives the same one."""
    rng = np.random.default_rng([seed, 7])
    skill = RacerSkill.sample(rng)
    roams, crash_at = bool(rng.random() < 0.3), int(rng.integers(2, 36))
    return Racer(env, replace(skill, explorer=roams, stunts=0.0, crash_at=crash_at), seed)
