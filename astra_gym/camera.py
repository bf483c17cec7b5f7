"""Camera motion: presets, pose files, and the rows by which the released model is told of them.

Poses of a path are 4x4 extrinsic matrices, world to camera, with OpenCV's axes: x right, y down, z forward. Their rows
then have the signs of the presets: forward is -z, a turn left is positive about y. Only sideways they have the opposite
sign: the released script and :func:`motion_poses` count a step to the left as -x.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

PRESETS = {
    1: "forward",
    2: "turn left in place",
    3: "turn right in place",
    4: "forward and left",
    5: "forward and right",
    6: "forward in an S",
    7: "turn left, then right",
}
SPEED = 0.03
"""Of the presets, a latent frame: in the scene's unit of length, and in radians."""
DRIFT = 0.01
"""To the left, in the second bend of the S."""
POSE_STRIDE = 4
"""Video frames, and so poses, for each latent frame after the first."""
RIGID_TOLERANCE = 1e-3


def pose_rows(relative: np.ndarray) -> np.ndarray:
    """Relative poses ``(..., 4, 4)`` or ``(..., 3, 4)`` to rows ``float32 (..., 13)``; the mask is 0."""
    relative = np.asarray(relative, np.float32)[..., :3, :]
    flat = relative.reshape(*relative.shape[:-2], 12)
    return np.concatenate([flat, np.zeros((*flat.shape[:-1], 1), np.float32)], -1)


def rows_to_poses(rows: np.ndarray) -> np.ndarray:
    """The inverse of :func:`pose_rows`: rows ``(..., 13)`` to relative poses ``float32 (..., 4, 4)``."""
    rows = np.asarray(rows, np.float32)
    poses = np.broadcast_to(np.eye(4, dtype=np.float32), (*rows.shape[:-1], 4, 4)).copy()
    poses[..., :3, :] = rows[..., :12].reshape(*rows.shape[:-1], 3, 4)
    return poses


def still_rows(count: int) -> np.ndarray:
    """Rows of a camera that does not move, ``float32 (count, 13)``."""
    return pose_rows(np.broadcast_to(np.eye(4), (count, 4, 4)))


def preset_rows(preset: int, frames: int) -> np.ndarray:
    """Rows of a preset for ``frames`` latent frames, ``float32 (frames, 13)``.

    They are rounded to bfloat16, as the released script does.

    Raises:
        ValueError: on an unknown preset.
    """
    if preset not in PRESETS:
        names = ", ".join(f"{number} ({name})" for number, name in PRESETS.items())
        raise ValueError(f"preset: got {preset!r}, allowed are {names}")
    relative = np.stack([_preset_pose(preset, i, frames) for i in range(frames)])
    return _to_bfloat16(pose_rows(relative))


def _preset_pose(preset: int, frame: int, frames: int) -> np.ndarray:
    first_part = frames // 2
    turn = {1: 0, 2: 1, 3: -1, 4: 1, 5: -1}.get(preset, 1 if frame < first_part else -1)
    pose = yaw_matrix(SPEED * turn)
    if preset in (1, 4, 5, 6):
        pose[2, 3] = -SPEED
    if preset == 6 and first_part <= frame < first_part + (frames - first_part) // 3:
        pose[0, 3] = -DRIFT
    return pose


def rotation_yxz(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """The rotation ``(3, 3)`` about z by ``roll``, then about x by ``pitch``, then about y by ``yaw``."""
    (cy, cp, cr), (sy, sp, sr) = np.cos((yaw, pitch, roll)), np.sin((yaw, pitch, roll))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def angles_yxz(rotation: np.ndarray) -> np.ndarray:
    """The inverse of :func:`rotation_yxz` while the pitch is within a quarter turn: ``(3,)`` of yaw, pitch, roll."""
    yaw = np.arctan2(rotation[0, 2], rotation[2, 2])
    roll = np.arctan2(rotation[1, 0], rotation[1, 1])
    return np.array([yaw, np.arcsin(np.clip(-rotation[1, 2], -1, 1)), roll])


def motion_poses(motions: np.ndarray) -> np.ndarray:
    """Motions ``(..., 6)`` of a camera to its relative poses ``float64 (..., 4, 4)``.

    A motion is right, up, forward in units of length and turn left, look up, roll in radians, along the camera's axes.
    """
    motions = np.asarray(motions, np.float64)
    poses = np.broadcast_to(np.eye(4), (*motions.shape[:-1], 4, 4)).copy()
    # x is right, y up, -z forward; turning left is positive about y, looking up about x.
    poses[..., :3, 3] = motions[..., :3] * (1, 1, -1)
    for place in np.ndindex(motions.shape[:-1]):
        yaw, pitch, roll = motions[place][3:]
        poses[place][:3, :3] = rotation_yxz(yaw, pitch, roll)
    return poses


def pose_motions(poses: np.ndarray) -> np.ndarray:
    """The inverse of :func:`motion_poses`: ``(..., 4, 4)`` to ``(..., 6)``."""
    poses = np.asarray(poses, np.float64)
    motions = np.empty((*poses.shape[:-2], 6))
    motions[..., :3] = poses[..., :3, 3] * (1, 1, -1)
    for place in np.ndindex(poses.shape[:-2]):
        motions[place][3:] = angles_yxz(poses[place][:3, :3])
    return motions


def yaw_matrix(angle: float) -> np.ndarray:
    """Pose ``float64 (4, 4)`` of a turn about the y axis; positive turns left."""
    pose = np.eye(4)
    pose[0, 0] = pose[2, 2] = np.cos(angle)
    pose[0, 2], pose[2, 0] = np.sin(angle), -np.sin(angle)
    return pose


def _to_bfloat16(values: np.ndarray) -> np.ndarray:
    import torch

    return torch.from_numpy(values).bfloat16().float().numpy()


def relative_poses(extrinsics: np.ndarray, stride: int = POSE_STRIDE) -> np.ndarray:
    """Motion from each latent frame to the next: ``pose[i + stride] @ inv(pose[i])``.

    Args:
        extrinsics: ``(P, 4, 4)``, one a video frame (stride 4) or a latent frame (stride 1).
        stride: poses a latent frame.

    Returns:
        ``float64 ((P - 1) // stride, 4, 4)``.
    """
    poses = np.asarray(extrinsics, np.float64)[::stride]
    return poses[1:] @ np.linalg.inv(poses[:-1])


def relative_pose_vectors(vectors: np.ndarray) -> np.ndarray:
    """Motion between poses given as 7-vectors, translation and quaternion x, y, z, w, as SpatialVID has them.

    R = R2 R1^-1 and t = R1^T (t2 - t1), ``float64 (P - 1, 4, 4)`` from ``(P, 7)``.
    """
    vectors = np.asarray(vectors, np.float64)
    rotations = quaternion_matrix(vectors[:, [6, 3, 4, 5]])
    relative = np.tile(np.eye(4), (len(vectors) - 1, 1, 1))
    relative[:, :3, :3] = rotations[1:] @ rotations[:-1].transpose(0, 2, 1)
    relative[:, :3, 3] = np.einsum("pji,pj->pi", rotations[:-1], vectors[1:, :3] - vectors[:-1, :3])
    return relative


def quaternion_matrix(quaternions: np.ndarray) -> np.ndarray:
    """Rotation matrices ``(..., 3, 3)`` of quaternions w, x, y, z of any length but zero."""
    w, x, y, z = np.moveaxis(quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def path_rows(poses: np.ndarray) -> np.ndarray:
    """Rows of a camera path, ``float32 (F, 13)``: the motion from each latent frame to the next.

    Args:
        poses: extrinsics ``(P, 4, 4)``, one a video frame, or SpatialVID's 7-vectors ``(P, 7)``, one a latent frame.

    Raises:
        ValueError: on another shape, a number that is not finite, or a pose that is not rigid, which it names.
    """
    try:
        poses = np.asarray(poses, np.float64)
    except (TypeError, ValueError):
        raise ValueError("poses: they are no array of numbers") from None
    is_vectors = poses.ndim == 2 and poses.shape[1] == 7
    if len(poses) < 2 or not (is_vectors or (poses.ndim == 3 and poses.shape[1:] == (4, 4))):
        raise ValueError(f"poses: got shape {poses.shape}, allowed are (P, 4, 4) and (P, 7) with at least 2 poses")
    for i, pose in enumerate(poses):
        if not np.isfinite(pose).all():
            raise ValueError(f"poses: pose {i} is not finite")
        if is_vectors:
            if np.linalg.norm(pose[3:]) < RIGID_TOLERANCE:
                raise ValueError(f"poses: pose {i} is not rigid: its quaternion is zero")
            continue
        rotation = pose[:3, :3]
        is_rotation = (
            np.allclose(rotation @ rotation.T, np.eye(3), atol=RIGID_TOLERANCE) and np.linalg.det(rotation) > 0
        )
        if not is_rotation or not np.allclose(pose[3], [0, 0, 0, 1], atol=RIGID_TOLERANCE):
            raise ValueError(f"poses: pose {i} is not rigid: a rotation and a translation, last row 0 0 0 1")
    return pose_rows(relative_pose_vectors(poses) if is_vectors else relative_poses(poses))


def load_poses(path: str | Path) -> np.ndarray:
    """Poses for :func:`path_rows` from a file.

    Args:
        path: ``.npy``; or ``.npz`` or ``.json`` with them under "extrinsic" or as the only entry; a ``.json`` may also
            be the bare list.

    Raises:
        ValueError: if the file cannot be read.
    """
    path = Path(path)
    try:
        if path.suffix == ".json":
            content = json.loads(path.read_text())
        elif path.suffix in (".npy", ".npz"):
            content = np.load(path, allow_pickle=False)
        else:
            raise ValueError("allowed are .npy, .npz and .json")
        if not isinstance(content, (list, np.ndarray)):
            keys = list(content)
            content = content["extrinsic" if "extrinsic" in keys or len(keys) != 1 else keys[0]]
        return np.asarray(content, np.float64)
    except (OSError, ValueError, KeyError, EOFError, TypeError) as error:
        raise ValueError(f"poses: cannot read {str(path)!r} ({error})") from None


def nuscenes_rows(poses: Sequence[dict]) -> np.ndarray:
    """Rows ``float32 (P, 8)`` of nuScenes key frames, one a latent frame.

    Translation from the first key frame, the rotation w, x, y, z as it is, and the mask, 0.

    Args:
        poses: entries of a scene's ``keyframe_poses``, with "translation" and "rotation".

    Raises:
        ValueError: naming the entry that lacks one, has another length or is not finite.
    """
    vectors = []
    for i, pose in enumerate(poses):
        try:
            vector = np.array([*pose["translation"], *pose["rotation"]], np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"keyframe_poses: entry {i} has no translation and rotation ({error})") from None
        if vector.shape != (7,) or not np.isfinite(vector).all():
            raise ValueError(f"keyframe_poses: entry {i} is not 3 and 4 finite numbers")
        vectors.append(vector)
    if not vectors:
        raise ValueError("keyframe_poses: there are none")
    rows = np.zeros((len(vectors), 8), np.float32)
    rows[:, :7] = vectors
    rows[:, :3] = np.array(vectors)[:, :3] - vectors[0][:3]
    return rows
