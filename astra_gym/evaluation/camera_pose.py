"""Whether a camera's motion, read back from frames, is the commanded one."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from astra_gym.actions import CAMERA
from astra_gym.camera import motion_poses
from astra_gym.data.episodes import Episode
from astra_gym.evaluation.intervals import Estimate, estimate

SEGMENT = 4
"""Blocks in a row whose motions are put together before they are compared."""
LEAST_TURN, LEAST_WAY = np.deg2rad(4.0), 0.1
"""Rad and metres that a segment must turn and move by for the error of its rotation and of its direction to count."""
SAME_TURN, SAME_WAY = np.deg2rad(0.3), 0.005
"""Rad and metres within which the simulator's camera must have made the commanded motion of a block."""


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
            for _ in range(CAMERA.BLOCK_FRAMES):
                room.move(motion_poses(action / CAMERA.fps))
            poses.append(room.pose)
    return np.stack(poses)


def followed(episode: Episode) -> np.ndarray:
    """In which blocks nothing kept the simulator's camera from the commanded motion, ``bool (T,)``."""
    poses = true_poses(episode)
    turn, way = _errors(np.linalg.inv(poses[:-1]) @ poses[1:], block_poses(episode.actions))
    return (turn < SAME_TURN) & (way < SAME_WAY)


def judge_poses(commanded: np.ndarray, said: dict[str, np.ndarray], counted: np.ndarray, seed: int) -> dict[str, Any]:
    """Errors of motions read from frames, put together over segments of :data:`SEGMENT` blocks.

    Args:
        commanded: actions ``(N, S, 6)``.
        said: by the frames' name, the actions read from them, ``(N, S, 6)``.
        counted: ``bool (N, S)``; a segment counts if all its blocks do.
        seed: of the intervals.

    Returns:
        For each name the median error of the rotation as a share of the commanded rotation, and of the direction of
        the translation in degrees, each with its 95 % interval; and the numbers of segments.
    """
    length = min(SEGMENT, commanded.shape[1])
    wanted, usable = _segments(commanded, length), _windows(counted, length).all(-1)
    rotation, way = _angle(wanted), np.linalg.norm(wanted[..., :3, 3], axis=-1)
    turns, moves = usable & (rotation > LEAST_TURN), usable & (way > LEAST_WAY)
    figures: dict[str, Any] = {"segment_blocks": length, "turns": int(turns.sum()), "moves": int(moves.sum())}
    for name, actions in said.items():
        seen = _segments(actions, length)
        share = _angle(np.linalg.inv(seen) @ wanted) / np.maximum(rotation, 1e-9)
        degrees = np.rad2deg(_between(seen[..., :3, 3], wanted[..., :3, 3]))
        figures[name] = {
            "rotation_error": _median(share, turns, seed),
            "direction_degrees": _median(degrees, moves, seed),
        }
    return figures


def _median(errors: np.ndarray, counted: np.ndarray, seed: int) -> Estimate | None:
    """Of the counted ones, with an interval from resampled clips; None if none counts."""
    if not counted.any():
        return None

    def median(clips: np.ndarray) -> float:
        some = errors[clips][counted[clips]]
        return float(np.median(some)) if len(some) else float("nan")

    return estimate(median, len(errors), seed)


def _windows(values: np.ndarray, length: int) -> np.ndarray:
    """Windows ``(N, S - length + 1, length)`` of ``values (N, S)``."""
    return np.lib.stride_tricks.sliding_window_view(values, length, axis=1)


def _segments(actions: np.ndarray, length: int) -> np.ndarray:
    """Relative poses of all ``length`` blocks in a row, ``(N, S - length + 1, 4, 4)``."""
    poses = block_poses(actions)
    count = poses.shape[1] - length + 1
    total = poses[:, :count]
    for step in range(1, length):
        total = total @ poses[:, step : step + count]
    return total


def _angle(poses: np.ndarray) -> np.ndarray:
    """Angle in rad of the rotations of ``poses (..., 4, 4)``."""
    return np.arccos(np.clip((np.trace(poses[..., :3, :3], axis1=-2, axis2=-1) - 1) / 2, -1, 1))


def _between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angle in rad between vectors ``(..., 3)``."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.arccos(np.clip((a * b).sum(-1) / np.maximum(lengths, 1e-12), -1, 1))


def _errors(seen: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angle in rad and distance in metres between relative poses."""
    return _angle(np.linalg.inv(seen) @ wanted), np.linalg.norm(seen[..., :3, 3] - wanted[..., :3, 3], axis=-1)
