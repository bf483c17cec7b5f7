"""Whether the camera moves in frames as it was told to: its pose is read back from them, by what it left behind.

The simulator knows how far away everything in the last true frame is. A pose is read from a later frame, true or
dreamt, as the one from which those places would look most like it: direct visual odometry.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import gymnasium as gym
import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from astra_gym.actions import CAMERA
from astra_gym.camera import motion_poses
from astra_gym.data.episodes import Episode
from astra_gym.evaluation.heldout import Clip, episodes_of
from astra_gym.evaluation.intervals import Estimate, estimate
from astra_gym.evaluation.metrics import luminance

BLOCKS = 4
"""After which the pose is compared with the commanded one."""
LEAST_TURN, LEAST_WAY = np.deg2rad(4.0), 0.1
"""Rad and metres that a camera must turn and move by for the error of its rotation and of its direction to count."""
SAME_TURN, SAME_WAY = np.deg2rad(0.3), 0.005
"""Rad and metres within which the simulator's camera must have made the commanded motion of a block."""
_BLURS = (2.5, 1.2, 0.7)
"""Coarse to fine, in pixels."""
_ITERATIONS = 6
"""Most at each blur."""
_NOISE = 4.0
"""Grey levels; larger differences count as outliers, such as what came into sight or was invented."""
_EDGE = 2
"""Pixels at the border of the picture that are not looked at."""


def block_poses(actions: np.ndarray) -> np.ndarray:
    """Relative poses ``float64 (..., 4, 4)`` of a camera that makes actions ``(..., 6)`` freely for a block each."""
    return np.linalg.matrix_power(motion_poses(np.asarray(actions) / CAMERA.fps), CAMERA.BLOCK_FRAMES)


def true_poses(episode: Episode) -> np.ndarray:
    """Poses of the simulator's camera at the end of each block, ``float64 (T + 1, 4, 4)``, without drawing them."""
    with gym.make("AstraSim/Camera-v0", max_episode_blocks=None, disable_env_checker=True) as sim:
        room: Any = sim.unwrapped
        sim.reset(seed=episode.seed)
        poses = [room.pose]
        for action in episode.actions:
            _move(room, action)
            poses.append(room.pose)
    return np.stack(poses)


def followed(episode: Episode) -> np.ndarray:
    """In which blocks nothing kept the simulator's camera from the commanded motion, ``bool (T,)``."""
    poses = true_poses(episode)
    made, wanted = np.linalg.inv(poses[:-1]) @ poses[1:], block_poses(episode.actions)
    way = np.linalg.norm(made[:, :3, 3] - wanted[:, :3, 3], axis=-1)
    return (_angle(np.linalg.inv(made) @ wanted) < SAME_TURN) & (way < SAME_WAY)


def depth_and_focal(clip: Clip) -> tuple[np.ndarray, float]:
    """Metres to what a clip's newest true frame shows, ``float32 (H, W)``, and the camera's focal length in pixels."""
    with gym.make("AstraSim/Camera-v0", max_episode_blocks=None, disable_env_checker=True) as sim:
        room: Any = sim.unwrapped
        _, info = sim.reset(seed=clip.episode.seed)
        for action in clip.episode.actions[: clip.now]:
            _move(room, action)
        depth = room.depth()
    return depth, float(info["intrinsics"][0, 0])


def _move(room: Any, action: np.ndarray) -> None:
    for _ in range(CAMERA.BLOCK_FRAMES):
        room.move(motion_poses(action / CAMERA.fps))


def track(first: np.ndarray, depth: np.ndarray, frames: np.ndarray, focal: float) -> np.ndarray:
    """Poses of the camera in frames in a row, relative to the one that took the first frame.

    Iterated, weighted least squares on the luminance, coarse to fine, each frame from the pose of the one before.

    Args:
        first: ``uint8 (H, W, 3)``.
        depth: of its pixels in metres, ``(H, W)``.
        frames: those that follow it, ``uint8 (F, H, W, 3)``, little by little.
        focal: length in pixels.

    Returns:
        ``float64 (F, 4, 4)``.
    """
    tracker = _Tracker(first, depth, focal)
    inverse, poses = np.eye(4), []
    for frame in frames:
        inverse = tracker.refine(frame, inverse)
        poses.append(np.linalg.inv(inverse))
    return np.stack(poses)


class _Tracker:
    """Fits poses to frames; a pose is held as its inverse, which takes places of the first camera to the new one."""

    def __init__(self, first: np.ndarray, depth: np.ndarray, focal: float):
        grey = luminance(first)
        rows, columns = np.mgrid[: len(grey), : len(grey)][:, _EDGE:-_EDGE, _EDGE:-_EDGE].reshape(2, -1)
        self._middle, self._focal = (len(grey) - 1) / 2, focal
        right, up = (columns - self._middle) / focal, (self._middle - rows) / focal
        self._places = depth[rows, columns, None] * np.stack([right, up, -np.ones_like(right)], -1)
        self._seen = [gaussian_filter(grey, blur)[rows, columns] for blur in _BLURS]
        self._last = len(grey) - 1 - _EDGE

    def refine(self, frame: np.ndarray, inverse: np.ndarray) -> np.ndarray:
        """The inverse pose near ``inverse`` from which the places look most like ``frame``."""
        grey = luminance(frame)
        for blur, seen in zip(_BLURS, self._seen, strict=True):
            picture = gaussian_filter(grey, blur)
            down, across = np.gradient(picture)
            for _ in range(_ITERATIONS):
                change = self._step(picture, across, down, seen, inverse)
                turned = np.eye(4)
                turned[:3, :3], turned[:3, 3] = Rotation.from_rotvec(change[3:]).as_matrix(), change[:3]
                inverse = turned @ inverse
                if np.abs(change).max() < 1e-4:
                    break
        return inverse

    def _step(
        self, picture: np.ndarray, across: np.ndarray, down: np.ndarray, seen: np.ndarray, inverse: np.ndarray
    ) -> np.ndarray:
        """A small motion (3 metres, 3 rad) of the places that brings them closer to the picture."""
        x, y, z = (self._places @ inverse[:3, :3].T + inverse[:3, 3]).T
        away = np.maximum(-z, 0.05)
        column, row = self._middle + self._focal * x / away, self._middle - self._focal * y / away
        inside = (z < -0.05) & (np.minimum(column, row) > _EDGE) & (np.maximum(column, row) < self._last)
        if inside.sum() < 100:
            return np.zeros(6)
        x, y, z, away, column, row = (each[inside] for each in (x, y, z, away, column, row))
        value, right, below = (
            map_coordinates(each, [row, column], order=1, mode="nearest") for each in (picture, across, down)
        )
        error = value - seen[inside]
        error -= np.median(error)  # the dream may be a little brighter
        # How the luminance changes as a place moves along each axis, and about it.
        by_x, by_y = self._focal / away * right, -self._focal / away * below
        by_z = (by_x * x + by_y * y) / away
        slopes = np.stack([by_x, by_y, by_z, y * by_z - z * by_y, z * by_x - x * by_z, x * by_y - y * by_x], -1)
        weight = 1 / np.maximum(np.abs(error), _NOISE)
        normal = slopes.T @ (slopes * weight[:, None])
        normal += np.diag(np.diag(normal) * 1e-3 + 1e-3)
        return -np.linalg.solve(normal, slopes.T @ (error * weight))


def judge_poses(
    clips: Sequence[Clip], actions: np.ndarray, blocks: dict[str, np.ndarray], counted: np.ndarray, seed: int
) -> dict[str, Any]:
    """Errors of poses read from frames :data:`BLOCKS` blocks ahead, or as many as there are.

    Args:
        clips: of the camera's scenario.
        actions: commanded, ``(N, S, 6)``.
        blocks: by the frames' name, what followed each clip's newest block, ``uint8 (N, S or more, K, H, W, 3)``.
        counted: ``bool (N, S)``; a clip counts if all its blocks do.
        seed: of the intervals.

    Returns:
        For each name the median error of the rotation as a share of the commanded rotation, and of the direction of
        the translation in degrees; and the numbers of clips that turn and move enough to count.
    """
    ahead = min(BLOCKS, actions.shape[1])
    wanted = reduce(np.matmul, np.moveaxis(block_poses(actions[:, :ahead]), 1, 0))
    rotation, way = _angle(wanted), np.linalg.norm(wanted[:, :3, 3], axis=-1)
    usable = counted[:, :ahead].all(1)
    turns, moves = usable & (rotation > LEAST_TURN), usable & (way > LEAST_WAY)
    poses = {name: np.tile(np.eye(4), (len(clips), 1, 1)) for name in blocks}
    for place in tqdm(np.flatnonzero(turns | moves), desc="camera poses", leave=False):
        depth, focal = depth_and_focal(clips[place])
        for name, each in blocks.items():
            frames = each[place, :ahead].reshape(-1, *each.shape[3:])
            poses[name][place] = track(clips[place].context_blocks[-1, -1], depth, frames, focal)[-1]
    episodes = np.array(episodes_of(clips))
    figures: dict[str, Any] = {"blocks": ahead, "turns": int(turns.sum()), "moves": int(moves.sum())}
    for name, seen in poses.items():
        share = _angle(np.linalg.inv(seen) @ wanted) / np.maximum(rotation, 1e-9)
        degrees = np.rad2deg(_between(seen[:, :3, 3], wanted[:, :3, 3]))
        figures[name] = {
            "rotation_error": _median(share, turns, episodes, seed),
            "direction_degrees": _median(degrees, moves, episodes, seed),
        }
    return figures


def _median(errors: np.ndarray, counted: np.ndarray, episodes: np.ndarray, seed: int) -> Estimate | None:
    """Of those clips that are counted; None if there are none."""
    if not counted.any():
        return None
    errors = errors[counted]
    return estimate(lambda places: float(np.median(errors[places])), episodes[counted].tolist(), seed)


def _angle(poses: np.ndarray) -> np.ndarray:
    """Angle in rad of the rotations of ``poses (..., 4, 4)``."""
    return np.arccos(np.clip((np.trace(poses[..., :3, :3], axis1=-2, axis2=-1) - 1) / 2, -1, 1))


def _between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angle in rad between vectors ``(..., 3)``."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.arccos(np.clip((a * b).sum(-1) / np.maximum(lengths, 1e-12), -1, 1))
