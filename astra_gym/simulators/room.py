"""The Camera world's ground truth: a camera that flies through a furnished MuJoCo room, and a pilot for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from astra_gym.actions import CAMERA
from astra_gym.camera import angles_yxz, motion_poses, pose_motions, rotation_yxz
from astra_gym.simulators.blocks import Simulator
from astra_gym.simulators.mujoco_view import MujocoView, intrinsics, mujoco
from astra_gym.simulators.room_scene import RoomScene, build_room

RADIUS = 0.25
"""Of the ball about the camera that stays out of walls and things, in metres."""
MAX_PITCH, MAX_ROLL = np.deg2rad((60.0, 30.0))
"""Farthest that the camera looks up or down, and leans."""
HALF_REWARD_DISTANCE = 1.2
"""Metres from the goal view at which a frame is worth half."""
REWARD_ANGLE = np.deg2rad(30.0)
"""Angle between line of sight and target at which a frame is worth 1/e."""

BLOCK_SECONDS = 4 / CAMERA.fps

_UPRIGHT = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""Turns a level camera's axes (y up) into the room's (z up)."""


class Room(gym.Env[np.ndarray, np.ndarray]):
    """The room frame by frame; see :class:`CameraSim`, which shows it block by block."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": CAMERA.fps}
    render_mode = "rgb_array"

    def __init__(self, size: int = 64):
        self.size = size
        self.action_space = CAMERA.action_space
        self.observation_space = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.pose = np.eye(4)
        """Of the camera, camera to world, OpenGL axes."""
        self.scene: RoomScene
        self._view: MujocoView | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.close()
        self.scene = build_room(self.np_random)
        self.model = self.scene.spec.compile()
        self.data = mujoco.MjData(self.model)
        mujoco.mj_forward(self.model, self.data)
        self._view = MujocoView(self.model, self.size)
        self._intrinsics = intrinsics(self.model, "eye", self.size)
        self.pose = self.scene.goal.copy()
        self._goal_picture = self._frame()
        while self.closeness() > 0.25:
            position = self.scene.free_point(self.np_random, 2 * RADIUS, 1.0, 1.8)
            x, y = self.np_random.uniform(-0.35, 0.35, 2) * self.scene.size[:2] - position[:2]
            self.pose = level_pose(position, np.arctan2(-x, y), self.np_random.uniform(-0.2, 0.2))
        self._picture = self._frame()
        return self._picture, self._info()

    def step(self, action: np.ndarray):
        if self._view is None:
            raise ResetNeeded("call reset() before step(): no episode has begun")
        self.move(motion_poses(action / CAMERA.fps))
        self._picture = self._frame()
        return self._picture, self.closeness(), False, False, self._info()

    def move(self, motion: np.ndarray) -> None:
        """Move the camera by a relative pose as far as walls, things and the limits of pitch and roll let it."""
        wanted = self.pose @ motion
        yaw, pitch, roll = pose_angles(wanted)
        pitch, roll = np.clip(pitch, -MAX_PITCH, MAX_PITCH), np.clip(roll, -MAX_ROLL, MAX_ROLL)
        self.pose = level_pose(self._slide(self.pose[:3, 3], wanted[:3, 3]), yaw, pitch, roll)

    def _slide(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """``end``, pushed out of what it touches; ``start`` where it is wedged in."""
        probes = np.concatenate([np.zeros((1, 3)), 1e-4 * np.eye(3), -1e-4 * np.eye(3)])
        for _ in range(8):
            clearances = self.scene.clearance(end + probes)
            missing = RADIUS - clearances[0]
            if missing <= 0:
                return end
            outward = clearances[1:4] - clearances[4:]
            end = end + (missing + 1e-6) * outward / max(float(np.linalg.norm(outward)), 1e-9)
        return start

    def closeness(self) -> float:
        """How near the camera is to the goal view, in [0, 1]; see :class:`CameraSim`."""
        away = self.scene.panel - self.pose[:3, 3]
        right, up, back = (away @ self.pose[:3, :3]).T
        edge = -back * self._intrinsics[0, 2] / self._intrinsics[0, 0]
        seen = (back < 0) & (np.abs(right) < edge) & (np.abs(up) < edge)
        if not seen.any():
            return 0.0
        for number in np.flatnonzero(seen):
            reach = mujoco.mj_ray(self.model, self.data, self.pose[:3, 3].copy(), away[number], None, True, -1, None)
            seen[number] = reach > 0.98
        ahead = -self.pose[:3, 2] @ away.mean(0) / np.linalg.norm(away.mean(0))
        angle = np.arccos(np.clip(ahead, -1, 1)) / REWARD_ANGLE
        distance = np.linalg.norm(self.pose[:3, 3] - self.scene.goal[:3, 3]) / HALF_REWARD_DISTANCE
        return float(seen.mean() * np.exp(-(angle**2)) / (1 + distance**2))

    def depth(self) -> np.ndarray:
        """Distances in metres of what the camera sees, along its line of sight, ``float32 (size, size)``."""
        if self._view is None:
            raise ResetNeeded("call reset() before depth(): no episode has begun")
        self._frame()
        return self._view.depth(self.data, "eye")

    def _frame(self) -> np.ndarray:
        assert self._view is not None
        self.data.mocap_pos[0] = self.pose[:3, 3]
        mujoco.mju_mat2Quat(self.data.mocap_quat[0], np.ascontiguousarray(self.pose[:3, :3]).ravel())
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        return self._view.frame(self.data, "eye")

    def _info(self) -> dict[str, Any]:
        return {"pose": self.pose.copy(), "intrinsics": self._intrinsics.copy(), "goal": self._goal_picture.copy()}

    def render(self) -> np.ndarray:
        """The newest frame, ``uint8 (size, size, 3)``."""
        if self._view is None:
            raise ResetNeeded("call reset() before render(): no episode has begun")
        return self._picture.copy()

    def close(self) -> None:
        """Free the graphics memory."""
        if self._view is not None:
            self._view.close()
            self._view = None


class CameraSim(Simulator):
    """
    ## Description
    A camera flies freely through a furnished room, drawn by MuJoCo: the ground truth of `AstraCamera-v0`, with the same
    interface. Each room has its own size (about 5 x 5 x 2.8 m), colours, light, posters and 5 to 9 things that stand
    in it. One of the walls carries the target, a glowing magenta square with an orange middle; nothing else has these
    colours. The goal view is 1.3 m straight in front of the target.

    ## Action Space
    `Box(6,), float32`, velocities along the camera's own axes: right, up, forward (-1 to 1 m/s), turn left, look up
    (-1.2 to 1.2 rad/s), roll (-0.6 to 0.6 rad/s). One step holds the action for a block of 4 frames at 20 frames/s,
    0.2 s; in each frame the pose is multiplied by `astra_gym.camera.motion_poses(action / 20)`. Three things keep the
    camera from following, so the truth about its motion is `info["pose"]`, not the action: a ball of 0.25 m about it
    slides along walls and things, and it neither looks up or down by more than 60 degrees nor leans by more than 30.
    Values out of bounds are clipped. A wrong shape or a number that is not finite raises a `ValueError`.

    ## Observation Space
    `Box(0, 255, (4, 64, 64, 3), uint8)`: the block's RGB frames, oldest first, 77 degrees wide and high.

    ## Rewards
    The sum of the block's frames, at most 4. A frame is worth
    `seen * exp(-(angle / 30 deg)^2) / (1 + (distance / 1.2 m)^2)`: the share of the target that is
    within the picture and not hidden, the angle between the line of sight and the target's middle, and the distance
    from the goal view. It is 1 at the goal view and 0 out of sight.

    ## Starting State
    A room that the seed alone decides, and a free place in it at a height of 1 to 1.8 m, looking level (within 12
    degrees) into the room, where a frame is worth at most 0.25.

    ## Episode End
    It never terminates; it is truncated after `max_episode_blocks`.

    ## Arguments
    - `max_episode_blocks`: time limit in blocks, None for none.
    - `render_mode`: None or "rgb_array"; `render()` gives the newest frame in either.
    - `size`: side of the frames in pixels.

    ## Info
    - `"pose"`: camera to world, `float64 (4, 4)`, of the newest frame. The camera looks along -z, x is right, y up; in
      the world z is up, metres.
    - `"intrinsics"`: pinhole matrix, `float64 (3, 3)`, in pixels.
    - `"goal"`: picture of the goal view, `uint8 (size, size, 3)`.
    """

    modality = CAMERA
    """What an action means here."""

    def __init__(self, max_episode_blocks: int | None = 100, render_mode: str | None = "rgb_array", size: int = 64):
        self.check_arguments(max_episode_blocks, render_mode, size)
        env: gym.Env = Room(size)
        if max_episode_blocks is not None:
            env = gym.wrappers.TimeLimit(env, 4 * max_episode_blocks)
        super().__init__(env, render_mode, size)


@dataclass
class PilotSkill:
    """How a :class:`Pilot` flies."""

    purpose: str = "goal"
    """"goal" flies to the goal view and stays, "visit" leaves it after a while, "wander" flies from view to view,
    "explore" holds random actions that lead to free places, "wild" any random actions."""
    speed: float = 0.8
    """Highest speed in m/s."""
    turn: float = 0.9
    """Highest turning rate in rad/s."""
    smooth: float = 0.5
    """How much of the last action is kept in the next, from 0 to 1."""
    noise: float = 0.0
    """Standard deviation of the slowly wandering error, as a share of each bound of the action."""
    roll: float = 0.0
    """Chance that a view to fly to is tilted."""
    hold: int = 8
    """Most blocks for which "explore" holds an action."""

    @classmethod
    def sample(cls, rng: np.random.Generator) -> PilotSkill:
        """Draw a pilot: most wander smoothly; some seek the goal, stay or leave it, some explore, few are wild."""
        kind = str(rng.choice(list(_KINDS), p=[share for share, _, _, _ in _KINDS.values()]))
        _, speed, turn, noise = _KINDS[kind]
        return cls(
            purpose=kind,
            speed=float(rng.uniform(0.4, 1.0) * speed),
            turn=float(rng.uniform(0.4, 1.0) * turn),
            smooth=float(rng.uniform(0.3, 0.8)),
            noise=float(rng.uniform(0.0, noise)),
            roll=0.1,
            hold=3 if kind == "wild" else 8,
        )


_KINDS = {
    "wander": (0.50, 0.6, 0.4, 0.06),
    "goal": (0.10, 0.7, 0.5, 0.06),
    "visit": (0.14, 0.7, 0.5, 0.06),
    "explore": (0.22, 0.6, 0.4, 0.03),
    "wild": (0.04, 1.0, 1.0, 0.20),
}
"""Share of the pilots that :meth:`PilotSkill.sample` draws, their highest speed, turning rate and noise."""


class Pilot:
    """Scripted pilot that reads the simulator's state: the camera's pose, the goal and what stands in the room.

    Args:
        env: a :class:`CameraSim`, possibly wrapped.
        skill: how to fly.
        seed: of the pilot's own choices.
    """

    BOUNDS = np.array(CAMERA.high)

    def __init__(self, env: gym.Env, skill: PilotSkill | None = None, seed: int | None = None):
        self.room: Any = env.unwrapped
        self.skill = skill or PilotSkill()
        if self.skill.purpose not in _KINDS:
            raise ValueError(f"purpose: got {self.skill.purpose!r}, allowed are {list(_KINDS)}")
        self.reset(seed)

    def reset(self, seed: int | None = None) -> None:
        """Forget the episode; call after the environment's ``reset``."""
        self.rng = np.random.default_rng(seed)
        self._action, self._error = np.zeros(6), np.zeros(6)
        self._views: list[np.ndarray] = []
        """Poses still to fly to, the next one first."""
        self._patience = 0
        self._block = 0
        self._leave_at = int(self.rng.integers(20, 60))

    def __call__(self, observation: np.ndarray | None = None) -> np.ndarray:
        """The action for the next block, ``float32 (6,)``. The observation is not looked at."""
        skill, rng = self.skill, self.rng
        self._block += 1
        self._error = 0.9 * self._error + 0.44 * skill.noise * rng.standard_normal(6)
        wanted = self._explore() if skill.purpose in ("explore", "wild") else self._fly()
        self._action = skill.smooth * self._action + (1 - skill.smooth) * wanted
        return np.clip(self._action + self._error * self.BOUNDS, -self.BOUNDS, self.BOUNDS).astype(np.float32)

    def _explore(self) -> np.ndarray:
        """A random action on a random choice of axes, held for some blocks."""
        self._patience -= 1
        if self._patience <= 0:
            self._patience = int(self.rng.integers(1, self.skill.hold + 1))
            for _ in range(20):
                axes = self.rng.random(6) < (0.5, 0.4, 0.6, 0.6, 0.4, 0.2)
                limits = self.BOUNDS * np.repeat([self.skill.speed, self.skill.turn], 3)
                self._held = axes * self.rng.uniform(-1, 1, 6) * limits
                if self.skill.purpose == "wild" or self._leads_somewhere(self._held * self._patience * BLOCK_SECONDS):
                    break
        return self._held

    def _leads_somewhere(self, motion: np.ndarray) -> bool:
        """Whether the camera would then be off the walls and nearly level, where there is something to see."""
        pose = self.room.pose @ motion_poses(motion)
        _, pitch, roll = pose_angles(pose)
        return abs(pitch) < 0.6 and abs(roll) < 0.35 and self.room.scene.is_free(pose[:3, 3], 2 * RADIUS)

    def _fly(self) -> np.ndarray:
        """Velocities towards the next view, slower where it is near."""
        self._patience -= 1
        seeks_goal = self.skill.purpose == "goal" or (self.skill.purpose == "visit" and self._block < self._leave_at)
        if seeks_goal:
            if not self._views or self._views[-1] is not self.room.scene.goal or self._patience <= 0:
                self._head_for(self.room.scene.goal)
        elif not self._views or self._patience <= 0:
            self._head_for(self._draw_view())
        pose, view = self.room.pose, self._views[0]
        way = pose[:3, :3].T @ (view[:3, 3] - pose[:3, 3])
        turn = (pose_angles(view) - pose_angles(pose) + np.pi) % (2 * np.pi) - np.pi
        distance, angle = float(np.linalg.norm(way)), float(np.linalg.norm(turn))
        if distance < 0.15 and (len(self._views) > 1 or (angle < 0.1 and not seeks_goal)):
            self._views.pop(0)
        way *= min(2.0, self.skill.speed / max(distance, 1e-6))
        turn *= min(2.0, self.skill.turn / max(angle, 1e-6)) * BLOCK_SECONDS
        turned = level_pose(pose[:3, 3], *(pose_angles(pose) + turn))
        rates = pose_motions(np.linalg.inv(pose) @ turned)[3:] / BLOCK_SECONDS
        return np.concatenate([way * (1, 1, -1), rates])

    def _head_for(self, view: np.ndarray) -> None:
        """Plan the way to ``view``: straight, or past a free place from which it can be reached."""
        scene, start = self.room.scene, self.room.pose[:3, 3]
        self._views, self._patience = [view], 40
        if scene.is_way_free(start, view[:3, 3], 0.9 * RADIUS):
            return
        for _ in range(60):
            stop = scene.free_point(self.rng, 1.2 * RADIUS)
            if scene.is_way_free(start, stop, 0.9 * RADIUS) and scene.is_way_free(stop, view[:3, 3], 0.9 * RADIUS):
                break
        via = view.copy()
        via[:3, 3] = stop
        self._views.insert(0, via)

    def _draw_view(self) -> np.ndarray:
        """A free place, looking across the room, at times at the target; sometimes tilted."""
        scene, rng = self.room.scene, self.rng
        position = scene.free_point(rng, 2 * RADIUS)
        looks_at = scene.panel.mean(0) if rng.random() < 0.2 else position
        while np.linalg.norm(looks_at - position) < 0.5:
            looks_at = rng.uniform([-0.5, -0.5, 0.2], [0.5, 0.5, 0.8]) * scene.size
            if np.linalg.norm(looks_at - position) < 1.8:
                looks_at = position
        x, y, z = looks_at - position
        roll = rng.uniform(-0.45, 0.45) if rng.random() < self.skill.roll else 0.0
        return level_pose(position, np.arctan2(-x, y), np.arctan2(z, np.hypot(x, y)), roll)


def level_pose(position: np.ndarray, yaw: float, pitch: float, roll: float = 0.0) -> np.ndarray:
    """Pose ``float64 (4, 4)`` of a camera that looks along y where all angles (radians) are 0; up and left positive."""
    pose = np.eye(4)
    pose[:3, :3] = _UPRIGHT @ rotation_yxz(yaw, pitch, roll)
    pose[:3, 3] = position
    return pose


def pose_angles(pose: np.ndarray) -> np.ndarray:
    """The yaw, pitch and roll that :func:`level_pose` was given, ``(3,)``."""
    return angles_yxz(_UPRIGHT.T @ pose[:3, :3])


def mixed_pilot(env: gym.Env, seed: int) -> Pilot:
    """A pilot of random skill for collecting varied data; the same seed gives the same pilot."""
    return Pilot(env, PilotSkill.sample(np.random.default_rng([seed, 1])), seed)
