"""Actions in physical units for the released weights, and the rows that their modalities read.

The released model makes 20 frames a second, a latent frame every 0.2 s. Its rows tell of a motion from one latent frame
to the next ("sekai", "openx"), or of the place reached since the beginning ("nuscenes"). A row's mask is set later.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astra_gym.actions import Modality
from astra_gym.camera import angles_yxz, motion_poses, pose_motions, pose_rows, rotation_yxz, rows_to_poses

SECONDS_PER_LATENT = 0.2
_RELEASED_SIGNS = (1, 1, 1, 1, -1, 1)
"""The released model's poses look up by a negative turn about x, as its overlay of held keys shows."""


@dataclass(frozen=True)
class ReleasedModality(Modality):
    """An action that is held for some latent frames.

    ``centre`` and ``scale`` are not used: the released rows are in the model's own units.
    """

    model_modality: str = "sekai"
    """The modality of the released model that takes the rows."""

    @property
    def row_dim(self) -> int:
        return 13

    def rows_after(self, last: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Rows of the latent frames that follow.

        Args:
            last: row ``(row_dim,)`` of the newest latent frame.
            actions: ``(F, action_dim)``, one a latent frame; clipped to the bounds.

        Returns:
            ``float32 (F, row_dim)``.
        """
        return pose_rows(self._poses(self._checked(actions)))

    def actions_after(self, last: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`rows_after` for actions within bounds: ``(F, row_dim)`` to ``(F, action_dim)``."""
        return self._motions(rows_to_poses(rows))

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        actions = np.asarray(actions, np.float64)
        if actions.ndim != 2 or actions.shape[1] != self.action_dim:
            raise ValueError(f"action: expected {self.action_dim} numbers {self.labels}, got shape {actions.shape[1:]}")
        if not np.isfinite(actions).all():
            raise ValueError(f"action: every number must be finite, got {actions.tolist()}")
        return np.clip(actions, self.low, self.high)

    def _poses(self, actions: np.ndarray) -> np.ndarray:
        """Actions ``(F, 6)`` to relative poses ``(F, 4, 4)``: x, y, z a second and turns about y, x, z a second."""
        return motion_poses(actions * _RELEASED_SIGNS * SECONDS_PER_LATENT)

    def _motions(self, poses: np.ndarray) -> np.ndarray:
        return pose_motions(poses) * _RELEASED_SIGNS / SECONDS_PER_LATENT


class DroneModality(ReleasedModality):
    """Velocities and yaw rate of a drone, whose camera stays level; trained as "sekai"."""

    METRES_PER_UNIT = 10.0
    """Scenes have no known scale: with this one, 1.5 m/s is the speed of the presets."""

    def _poses(self, actions: np.ndarray) -> np.ndarray:
        forward, left, up, yaw = actions.T
        still = np.zeros_like(yaw)
        metres = np.stack([-left, up, forward], -1) / self.METRES_PER_UNIT
        return super()._poses(np.concatenate([metres, np.stack([yaw, still, still], -1)], -1))

    def _motions(self, poses: np.ndarray) -> np.ndarray:
        right, up, forward, yaw, _, _ = super()._motions(poses).T
        metres = np.stack([forward, -right, up], -1) * self.METRES_PER_UNIT
        return np.concatenate([metres, yaw[:, None]], -1)


class ArmModality(ReleasedModality):
    """Motion of an arm's end effector, as it is in the rows: no camera axes, a latent frame at a time."""

    def _poses(self, actions: np.ndarray) -> np.ndarray:
        poses = np.tile(np.eye(4), (len(actions), 1, 1))
        poses[:, :3, 3] = actions[:, :3]
        poses[:, :3, :3] = [rotation_yxz(yaw, pitch, roll) for roll, pitch, yaw in actions[:, 3:]]
        return poses

    def _motions(self, poses: np.ndarray) -> np.ndarray:
        angles = np.array([angles_yxz(pose[:3, :3])[::-1] for pose in poses])
        return np.concatenate([poses[:, :3, 3], angles], -1)


class StreetModality(ReleasedModality):
    """Speed and yaw rate of a car on level ground; its rows hold the place and the heading, as nuScenes has them.

    x is forward at the beginning and y left, in metres; the quaternion w, x, y, z turns about z.
    """

    @property
    def row_dim(self) -> int:
        return 8

    def rows_after(self, last: np.ndarray, actions: np.ndarray) -> np.ndarray:
        rows = np.zeros((len(actions), 8), np.float64)
        x, y, heading = last[0], last[1], 2 * np.arctan2(last[6], last[3])
        for row, (speed, yaw_rate) in zip(rows, self._checked(actions), strict=True):
            middle = heading + yaw_rate * SECONDS_PER_LATENT / 2  # of the arc
            x += speed * SECONDS_PER_LATENT * np.cos(middle)
            y += speed * SECONDS_PER_LATENT * np.sin(middle)
            heading += yaw_rate * SECONDS_PER_LATENT
            row[:7] = x, y, last[2], np.cos(heading / 2), 0, 0, np.sin(heading / 2)
        return rows.astype(np.float32)

    def actions_after(self, last: np.ndarray, rows: np.ndarray) -> np.ndarray:
        places = np.concatenate([np.asarray(last)[None], rows]).astype(np.float64)
        heading = 2 * np.arctan2(places[:, 6], places[:, 3])
        turn = (np.diff(heading) + np.pi) % (2 * np.pi) - np.pi
        middle = heading[:-1] + turn / 2
        dx, dy = np.diff(places[:, 0]), np.diff(places[:, 1])
        speed = dx * np.cos(middle) + dy * np.sin(middle)
        return np.stack([speed, turn], -1) / SECONDS_PER_LATENT


CAMERA = ReleasedModality(
    name="camera",
    low=(-0.5,) * 6,
    high=(0.5,) * 6,
    labels=(
        "right (scene units/s)",
        "up (scene units/s)",
        "forward (scene units/s)",
        "turn left (rad/s)",
        "look up (rad/s)",
        "roll (rad/s)",
    ),
    centre=(0.0,) * 6,
    scale=(1.0,) * 6,
    key_bindings={
        ("w",): (0.0, 0.0, 0.15, 0.0, 0.0, 0.0),
        ("s",): (0.0, 0.0, -0.15, 0.0, 0.0, 0.0),
        ("a",): (-0.15, 0.0, 0.0, 0.0, 0.0, 0.0),
        ("d",): (0.15, 0.0, 0.0, 0.0, 0.0, 0.0),
        ("left",): (0.0, 0.0, 0.0, 0.15, 0.0, 0.0),
        ("right",): (0.0, 0.0, 0.0, -0.15, 0.0, 0.0),
        ("up",): (0.0, 0.0, 0.0, 0.0, 0.15, 0.0),
        ("down",): (0.0, 0.0, 0.0, 0.0, -0.15, 0.0),
    },
)
"""A free camera. The presets move at 0.15 units/s and turn at 0.15 rad/s."""

DRONE = DroneModality(
    name="drone",
    low=(-5.0, -5.0, -5.0, -0.5),
    high=(5.0, 5.0, 5.0, 0.5),
    labels=("forward (m/s)", "left (m/s)", "up (m/s)", "turn left (rad/s)"),
    centre=(0.0,) * 4,
    scale=(1.0,) * 4,
    key_bindings={
        ("w",): (1.5, 0.0, 0.0, 0.0),
        ("s",): (-1.5, 0.0, 0.0, 0.0),
        ("a",): (0.0, 1.5, 0.0, 0.0),
        ("d",): (0.0, -1.5, 0.0, 0.0),
        ("up",): (0.0, 0.0, 1.5, 0.0),
        ("down",): (0.0, 0.0, -1.5, 0.0),
        ("left",): (0.0, 0.0, 0.0, 0.15),
        ("right",): (0.0, 0.0, 0.0, -0.15),
    },
)

MANIPULATION = ArmModality(
    name="manipulation",
    low=(-0.05, -0.05, -0.05, -0.25, -0.25, -0.25),
    high=(0.05, 0.05, 0.05, 0.25, 0.25, 0.25),
    labels=("dx (m)", "dy (m)", "dz (m)", "roll (rad)", "pitch (rad)", "yaw (rad)"),
    centre=(0.0,) * 6,
    scale=(1.0,) * 6,
    key_bindings={
        ("w",): (0.02, 0.0, 0.0, 0.0, 0.0, 0.0),
        ("s",): (-0.02, 0.0, 0.0, 0.0, 0.0, 0.0),
        ("a",): (0.0, 0.02, 0.0, 0.0, 0.0, 0.0),
        ("d",): (0.0, -0.02, 0.0, 0.0, 0.0, 0.0),
        ("up",): (0.0, 0.0, 0.02, 0.0, 0.0, 0.0),
        ("down",): (0.0, 0.0, -0.02, 0.0, 0.0, 0.0),
        ("left",): (0.0, 0.0, 0.0, 0.0, 0.0, 0.1),
        ("right",): (0.0, 0.0, 0.0, 0.0, 0.0, -0.1),
    },
    model_modality="openx",
)
"""Motion a latent frame. The released rows have no place for a gripper."""

STREET = StreetModality(
    name="street",
    low=(-5.0, -0.5),
    high=(20.0, 0.5),
    labels=("speed (m/s)", "turn left (rad/s)"),
    centre=(0.0,) * 2,
    scale=(1.0,) * 2,
    key_bindings={
        ("up", "w"): (5.0, 0.0),
        ("down", "s"): (-2.0, 0.0),
        ("left", "a"): (0.0, 0.3),
        ("right", "d"): (0.0, -0.3),
    },
    model_modality="nuscenes",
)
