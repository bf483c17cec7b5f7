"""The Manipulation world's ground truth: FetchPush-v4 (MuJoCo) seen close up, and a pusher of adjustable skill."""

from __future__ import annotations

import colorsys
import contextlib
import io
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import OrderEnforcing, TimeLimit

from astra_gym.actions import MANIPULATION
from astra_gym.simulators.blocks import Simulator
from astra_gym.simulators.mujoco_view import MujocoView, mujoco

try:
    with contextlib.redirect_stderr(io.StringIO()):  # it prints a notice about other environments
        from gymnasium_robotics.envs.fetch.push import MujocoFetchPushEnv
except ImportError as error:
    raise ImportError(
        'FetchPush needs gymnasium-robotics, which is missing: pip install ".[sims]" in the astra-gym checkout'
    ) from error

TABLE_TOP = 0.4
"""Height of the table's top in metres."""
BLOCK_COLOURS = (
    (0.86, 0.08, 0.08),
    (0.08, 0.25, 0.92),
    (0.95, 0.80, 0.05),
    (0.80, 0.10, 0.72),
    (0.97, 0.45, 0.05),
    (0.05, 0.78, 0.85),
)
GOAL_COLOUR = (0.10, 0.82, 0.18)
GOAL_RADIUS = 0.045
JOINT_COLOURS = ((0.13, 0.33, 0.55), (0.30, 0.31, 0.35), (0.42, 0.26, 0.20), (0.14, 0.38, 0.38), (0.36, 0.26, 0.46))
_JOINTS = ("elbow_flex_link", "wrist_flex_link")
_LIMBS = ("upperarm_roll_link", "forearm_roll_link", "wrist_roll_link", "gripper_link")
_FINGERS = ("r_gripper_finger_link", "l_gripper_finger_link")


class _CloseUp(gym.Wrapper):
    """FetchPush whose observation is a picture from a near camera; what it looks like is drawn at each reset."""

    def __init__(self, env: Any, size: int):
        super().__init__(env)
        self.fetch = env.unwrapped
        self.observation_space = spaces.Box(0, 255, (size, size, 3), np.uint8)
        model = self.fetch.model
        drawn = {f"robot0:{name}" for name in _JOINTS + _LIMBS + _FINGERS} | {"floor0", "object0"}
        for geom in range(model.ngeom):
            name = model.geom(geom).name
            if name in drawn or model.body(model.geom_bodyid[geom]).name == "table0":
                continue
            model.geom_group[geom] = 5  # MuJoCo does not draw this group: aids, and what the camera hardly sees
        model.geom("floor0").size[:2] = 5.0  # of the picture: a plane touches without end
        goal = model.site("target0")
        goal.type[:] = mujoco.mjtGeom.mjGEOM_CYLINDER
        goal.size[:2] = GOAL_RADIUS, 0.002
        goal.rgba[:3] = GOAL_COLOUR
        self.view = MujocoView(model, size)
        self.camera = mujoco.MjvCamera()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self.env.reset(seed=seed, options=options)
        self._dress(np.random.default_rng(int(self.fetch.np_random.integers(2**63))))
        return self.view.frame(self.fetch.data, self.camera), self._info()

    def step(self, action):
        _, reward, terminated, truncated, _ = self.env.step(action)
        return self.view.frame(self.fetch.data, self.camera), float(reward), terminated, truncated, self._info()

    def close(self) -> None:
        self.view.close()
        super().close()

    def _info(self) -> dict[str, Any]:
        data, goal = self.fetch.data, self.fetch.goal
        block, gripper = (data.site(name).xpos.copy() for name in ("object0", "robot0:grip"))
        return {
            "is_success": bool(self.fetch._is_success(block, goal)),
            "block": block,
            "goal": goal.copy(),
            "gripper": gripper,
        }

    def _dress(self, rng: np.random.Generator) -> None:
        """Draw colours, light and camera, and lay the goal's disc on the table."""
        model, data = self.fetch.model, self.fetch.data

        def muted(saturation: tuple[float, float], value: tuple[float, float]) -> tuple[float, float, float]:
            return colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))

        colours = {"object0": BLOCK_COLOURS[rng.integers(len(BLOCK_COLOURS))], "floor0": muted((0.1, 0.4), (0.2, 0.42))}
        joint, limb = JOINT_COLOURS[rng.integers(len(JOINT_COLOURS))], muted((0.0, 0.06), (0.78, 0.95))
        colours |= {f"robot0:{name}": joint for name in _JOINTS} | {f"robot0:{name}": limb for name in _LIMBS}
        colours |= {f"robot0:{name}": (0.1, 0.1, 0.11) for name in _FINGERS}
        for name, colour in colours.items():
            model.geom(name).rgba[:3] = colour
        model.geom_rgba[model.body("table0").geomadr[0], :3] = muted((0.08, 0.3), (0.55, 0.8))

        tilt, heading = rng.uniform(0.3, 0.7), rng.uniform(-np.pi, np.pi)
        light = model.light("light0")
        light.dir[:] = np.sin(tilt) * np.cos(heading), np.sin(tilt) * np.sin(heading), -np.cos(tilt)
        light.diffuse[:] = rng.uniform(0.4, 0.55)
        light.ambient[:] = light.specular[:] = model.vis.headlight.specular[:] = 0.0
        model.vis.headlight.ambient[:] = rng.uniform(0.28, 0.38)
        model.vis.headlight.diffuse[:] = 0.2

        self.camera.lookat[:] = 1.36, 0.75, 0.45
        self.camera.azimuth = 90.0 + rng.uniform(-12, 12)
        self.camera.elevation = rng.uniform(-48, -43)
        self.camera.distance = rng.uniform(0.73, 0.80)

        place = np.array([*self.fetch.goal[:2], TABLE_TOP + 0.002])
        model.site("target0").pos[:] = place - data.body("floor0").xpos
        data.site("target0").xpos[:] = place  # the first picture is taken before MuJoCo works it out again
        # The light's new direction, likewise.
        data.light_xdir[light.id] = light.dir


class PushSim(Simulator):
    """
    ## Description
    FetchPush-v4 of gymnasium-robotics in the interface of ``AstraManipulation-v0``: a robot arm pushes a block over a
    table to a goal, the green disc. Physics and reward are FetchPush's own. The picture is that of a camera close to
    the table, with the robot to its left, of which the arm alone is drawn.

    ## Action Space
    ``Box(-1, 1, (4,), float32)``: motion of the gripper's target along the table's axes, dx (right in the picture), dy
    (away from the viewer) and dz (up), 1 = 5 cm a frame, of which the arm makes about 3.3 cm; and the gripper, which
    FetchPush keeps closed, so that this number does nothing. One step holds the action for a block of 4 frames at 25
    frames/s, 0.16 s. Values out of bounds are clipped; a wrong shape or a number that is not finite raises a
    ``ValueError``.

    ## Observation Space
    ``Box(0, 255, (4, size, size, 3), uint8)``: the block's 4 RGB frames, oldest first. After ``reset`` all are the
    first frame.

    ## Rewards
    FetchPush's dense reward, minus the distance in metres of the block's centre from the goal, summed over the
    block's 4 frames.

    ## Starting State
    Block and goal lie where FetchPush draws them from the seed. The seed also decides the colours of block, table,
    floor and arm, the light, and the camera's azimuth (within 12 degrees), elevation and distance.

    ## Episode End
    - Termination: never. A block that falls off the table lies on the floor, and the gripper may leave the picture.
    - Truncation: after ``max_episode_blocks``.

    ## Info
    - ``"is_success"``: whether the block's centre is within 5 cm of the goal.
    - ``"block"``, ``"goal"``, ``"gripper"``: their positions in metres, ``float64 (3,)``.

    ## Arguments
    - ``max_episode_blocks``: time limit in blocks; None for no limit.
    - ``render_mode``: None or "rgb_array", which renders the newest frame.
    - ``size``: side of a frame in pixels.
    """

    modality = MANIPULATION
    """What an action means here."""

    def __init__(self, max_episode_blocks: int | None = 50, render_mode: str | None = "rgb_array", size: int = 64):
        self.check_arguments(max_episode_blocks, render_mode, size)
        env: gym.Env = OrderEnforcing(MujocoFetchPushEnv(reward_type="dense"))
        if max_episode_blocks is not None:
            env = TimeLimit(env, 4 * max_episode_blocks)
        super().__init__(_CloseUp(env, size), render_mode, size)
        self.action_space = MANIPULATION.action_space


@dataclass
class PusherSkill:
    """How a :class:`Pusher` moves. An action of 1 moves the gripper 13 cm a block."""

    speed: float = 0.35
    """Length of its longest actions."""
    noise: float = 0.0
    """Standard deviation of the slowly wandering error of its actions."""
    precision: float = 0.015
    """Distance in metres from its target at which the block may rest."""
    hop: float = 0.0
    """Chance to go over the block rather than around it to get behind it."""
    places: float = 0.0
    """Chance to choose a random place to push the block to, at the beginning and at each block where the last target is
    reached; else the target is the goal. The gripper rests where the target is reached."""
    strays: float = 0.0
    """Chance at each block to begin a stray: one motion that it holds, or rest, for 2 to 6 blocks."""
    stray_speed: float = 0.5
    """Length of the longest strays along each axis."""

    @classmethod
    def sample(cls, rng: np.random.Generator) -> PusherSkill:
        """Draw a pusher: most push, slow or fast, to the goal and to other places; some explore, few go wild."""
        kind = str(rng.choice(list(_KINDS), p=[share for share, *_ in _KINDS.values()]))
        _, top_speed, noise, places, strays, stray_speed = _KINDS[kind]
        return cls(
            speed=float(rng.uniform(0.18, top_speed)),
            noise=float(rng.uniform(0, noise)),
            precision=float(rng.uniform(0.01, 0.035)),
            hop=float(rng.choice([0.0, 0.3, 1.0])),
            places=places,
            strays=strays,
            stray_speed=float(rng.uniform(0.3, stray_speed)),
        )


_KINDS = {
    "goal": (0.45, 0.40, 0.05, 0.3, 0.03, 0.5),
    "places": (0.27, 0.50, 0.06, 1.0, 0.05, 0.5),
    "explore": (0.23, 0.40, 0.10, 0.5, 0.6, 1.0),
    "wild": (0.05, 0.60, 0.20, 0.5, 1.0, 1.0),
}
"""Share of the pushers that :meth:`PusherSkill.sample` draws, top speed, most noise, places, strays, stray speed."""

METRES_PER_ACTION = 0.132
"""How far the gripper moves in a block for an action of 1."""
PUSH_HEIGHT, SAFE_HEIGHT = 0.42, 0.50
"""Of the gripper in metres: to push, and to pass over the block."""
REACH_LOW, REACH_HIGH = np.array([1.16, 0.54, -np.inf]), np.array([1.55, 0.92, 0.54])
"""Where strays stay, metres: inside the picture; below, the table stops them."""
PLACES_LOW, PLACES_HIGH = np.array([1.20, 0.60]), np.array([1.47, 0.90])
"""Where the block is pushed, metres."""


class Pusher:
    """Scripted pusher that reads the simulator's state: where gripper, block and goal are.

    Args:
        env: a :class:`PushSim`, possibly wrapped.
        skill: how to move.
        seed: of the pusher's own noise.
    """

    def __init__(self, env: gym.Env, skill: PusherSkill | None = None, seed: int | None = None):
        self.fetch: Any = env.unwrapped
        self.skill = skill or PusherSkill()
        self.reset(seed)

    def reset(self, seed: int | None = None) -> None:
        """Forget the episode; call after the environment's ``reset``."""
        self.rng = np.random.default_rng(seed)
        self._error = np.zeros(3)
        self._stray: tuple[int, np.ndarray] = (0, np.zeros(3))
        self._fingers: tuple[int, float] = (0, 0.0)
        self._pushing = self._hopping = False
        self._place = self._draw_place()

    def __call__(self, observation: np.ndarray | None = None) -> np.ndarray:
        """The action for the next block, ``float32 (4,)``: dx, dy, dz, gripper. The observation is not looked at."""
        skill, rng = self.skill, self.rng
        self._error = 0.8 * self._error + 0.6 * skill.noise * rng.standard_normal(3)
        gripper, block = (self.fetch.data.site(name).xpos for name in ("robot0:grip", "object0"))
        blocks_left, motion = self._stray
        if blocks_left == 0 and rng.random() < skill.strays:
            blocks_left, motion = int(rng.integers(2, 7)), self._draw_stray()
        if blocks_left > 0:
            motion = self._turn_back(motion, gripper)
            self._stray = (blocks_left - 1, motion)
            self._pushing = False
        elif block[2] < TABLE_TOP:  # it fell: nothing is left to push
            motion = np.zeros(3)
        else:
            motion = self._push(gripper, block[:2], self.fetch.goal[:2] if self._place is None else self._place)
        return np.clip([*(motion + self._error), self._move_fingers()], -1, 1).astype(np.float32)

    def _move_fingers(self) -> float:
        """What the fingers are told, without effect: some number for some blocks."""
        blocks_left, fingers = self._fingers
        if blocks_left == 0:
            blocks_left, fingers = int(self.rng.integers(1, 10)), float(self.rng.uniform(-1, 1))
        self._fingers = (blocks_left - 1, fingers)
        return fingers

    @staticmethod
    def _turn_back(motion: np.ndarray, gripper: np.ndarray) -> np.ndarray:
        """``motion``, turned round along each axis on which it would leave the reach."""
        after = gripper + METRES_PER_ACTION * motion
        return np.where(after < REACH_LOW, np.abs(motion), np.where(after > REACH_HIGH, -np.abs(motion), motion))

    def _draw_place(self) -> np.ndarray | None:
        """Where to push next, ``(2,)``; None for the goal."""
        return self.rng.uniform(PLACES_LOW, PLACES_HIGH) if self.rng.random() < self.skill.places else None

    def _draw_stray(self) -> np.ndarray:
        if self.rng.random() < 0.15:
            return np.zeros(3)
        return self.skill.stray_speed * self.rng.random() ** 0.5 * self.rng.uniform(-1, 1, 3)

    def _push(self, gripper: np.ndarray, block: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Go behind the block and push it to ``target``."""
        distance = float(np.linalg.norm(target - block))
        if distance < self.skill.precision:
            self._pushing, self._place = False, self._draw_place()
            return np.zeros(3)
        ahead = (target - block) / distance
        side = np.array([-ahead[1], ahead[0]])
        offset = gripper[:2] - block
        along, beside = float(offset @ ahead), float(offset @ side)
        lowered = gripper[2] < PUSH_HEIGHT + 0.02
        if self._pushing:
            self._pushing = abs(beside) < 0.03 and along < -0.02
        else:
            self._pushing = lowered and abs(beside) < 0.012 and -0.10 < along < -0.03
            self._hopping = bool(self._hopping or (along > -0.03 and self.rng.random() < self.skill.hop))
        if self._pushing:
            gap = max(-along - 0.04, 0.0)
            way = min(distance + gap, self.skill.speed * METRES_PER_ACTION) * ahead - beside * side
            return self._towards(np.array([*way, PUSH_HEIGHT - gripper[2]]))
        behind = block - 0.065 * ahead
        to_behind = behind - gripper[:2]
        if np.linalg.norm(to_behind) < 0.015:
            self._hopping = False
            return self._towards(np.array([*to_behind, PUSH_HEIGHT - gripper[2]]))
        if self._hopping or not lowered:
            rising = gripper[2] < SAFE_HEIGHT - 0.015 and np.linalg.norm(offset) < 0.08
            return self._towards(np.array([*(0.0 * to_behind if rising else to_behind), SAFE_HEIGHT - gripper[2]]))
        return self._towards(np.array([*(self._around(offset, ahead) + block - gripper[:2]), PUSH_HEIGHT - gripper[2]]))

    @staticmethod
    def _around(offset: np.ndarray, ahead: np.ndarray) -> np.ndarray:
        """The next point, seen from the block, on the way around it to the place behind it."""
        angle, wanted = np.arctan2(offset[1], offset[0]), np.arctan2(-ahead[1], -ahead[0])
        turn = (wanted - angle + np.pi) % (2 * np.pi) - np.pi
        if abs(turn) < 0.5:
            return -0.065 * ahead
        angle += np.clip(turn, -0.7, 0.7)
        return 0.095 * np.array([np.cos(angle), np.sin(angle)])

    def _towards(self, way: np.ndarray) -> np.ndarray:
        """The motion that makes ``way`` (metres) in a block, or as much of it as the speed allows."""
        motion = way / METRES_PER_ACTION
        return motion * min(1.0, self.skill.speed / max(float(np.linalg.norm(motion)), 1e-6))


def mixed_pusher(env: gym.Env, seed: int) -> Pusher:
    """A pusher of random skill for collecting varied data; the same seed gives the same pusher."""
    return Pusher(env, PusherSkill.sample(np.random.default_rng([seed, 1])), seed)
