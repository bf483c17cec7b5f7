"""Modalities: what an action means in each scenario, and how it becomes the row of numbers that the model reads."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from gymnasium import spaces

from astra_gym.camera import motion_poses, pose_motions, pose_rows, rows_to_poses


@dataclass(frozen=True)
class Modality:
    """One kind of action.

    A model row is the action in physical units, shifted and scaled to about one, followed by a flag that says that the
    action is known. The row of zeros stands for an unknown action: it conditions the frames of a given image or video,
    replaces dropped actions in training and makes the action-free pass of guidance.
    """

    name: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    labels: tuple[str, ...]
    """Short name of each number, with its unit if it has one."""
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    """A row holds (action - centre) / scale."""
    fps: int = 50
    """Frames of video a second of the world's time."""
    key_bindings: dict[tuple[str, ...], tuple[float, ...]] = field(default_factory=dict)
    """Keyboard keys (pygame's names) to what each adds to the action while it is held."""

    @property
    def action_dim(self) -> int:
        return len(self.low)

    @property
    def row_dim(self) -> int:
        return self.action_dim + 1

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(np.array(self.low, np.float32), np.array(self.high, np.float32), dtype=np.float32)

    def rows(self, actions: np.ndarray) -> np.ndarray:
        """Actions ``(..., action_dim)`` in physical units to model rows ``float32 (..., row_dim)``.

        Raises:
            ValueError: on a wrong last dimension or a value that is not finite.
        """
        clipped = self.checked(actions)
        known = np.ones((*clipped.shape[:-1], 1), np.float32)
        centred = (clipped - np.array(self.centre, np.float32)) / np.array(self.scale, np.float32)
        return np.concatenate([centred, known], -1).astype(np.float32)

    def checked(self, actions: np.ndarray) -> np.ndarray:
        """Actions ``(..., action_dim)`` clipped to the bounds, refused where they are malformed as in :meth:`rows`."""
        actions = np.asarray(actions, np.float32)
        if actions.ndim == 0 or actions.shape[-1] != self.action_dim:
            raise ValueError(f"action: expected {self.action_dim} numbers {self.labels}, got shape {actions.shape}")
        if not np.isfinite(actions).all():
            raise ValueError(f"action: every number must be finite, got {actions.tolist()}")
        return np.clip(actions, self.low, self.high).astype(np.float32)

    def actions(self, rows: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`rows` for actions within bounds: ``(..., row_dim)`` to ``(..., action_dim)``."""
        return np.asarray(rows)[..., :-1] * np.array(self.scale, np.float32) + np.array(self.centre, np.float32)

    def check_shape(self, action: np.ndarray) -> None:
        """Raise a ValueError if ``action`` is not one action, ``(action_dim,)``."""
        if np.shape(action) != (self.action_dim,):
            labels = ", ".join(self.labels)
            raise ValueError(f"action: got shape {np.shape(action)}, allowed is {(self.action_dim,)}: {labels}")

    def from_keys(self, pressed: set[str]) -> np.ndarray:
        """The action for a set of held keys, ``float32 (action_dim,)``; opposite keys cancel."""
        action = np.zeros(self.action_dim, np.float32)
        for keys, effect in self.key_bindings.items():
            if pressed.intersection(keys):
                action += np.array(effect, np.float32)
        return np.clip(action, self.low, self.high).astype(np.float32)


DRIVE = Modality(
    name="drive",
    low=(-1.0, 0.0, 0.0),
    high=(1.0, 1.0, 1.0),
    labels=("steer (-1 left, 1 right)", "gas", "brake"),
    centre=(0.0, 0.0, 0.0),
    scale=(1.0, 1.0, 1.0),
    key_bindings={
        ("left", "a"): (-1.0, 0.0, 0.0),
        ("right", "d"): (1.0, 0.0, 0.0),
        ("up", "w"): (0.0, 1.0, 0.0),
        ("down", "s"): (0.0, 0.0, 0.8),
    },
)
"""CarRacing-v3's action: full steering turns the front wheels 0.4 rad, gas and brake run from 0 to 1."""

MANIPULATION = Modality(
    name="manipulation",
    low=(-1.0, -1.0, -1.0, -1.0),
    high=(1.0, 1.0, 1.0, 1.0),
    labels=("dx (1 = 5 cm a frame)", "dy", "dz", "gripper"),
    centre=(0.0, 0.0, 0.0, 0.0),
    scale=(1.0, 1.0, 1.0, 1.0),
    fps=25,
    key_bindings={
        ("up", "w"): (0.0, 0.4, 0.0, 0.0),
        ("down", "s"): (0.0, -0.4, 0.0, 0.0),
        ("left", "a"): (-0.4, 0.0, 0.0, 0.0),
        ("right", "d"): (0.4, 0.0, 0.0, 0.0),
        ("e",): (0.0, 0.0, 0.4, 0.0),
        ("q",): (0.0, 0.0, -0.4, 0.0),
    },
)
"""FetchPush-v4's action: how far the gripper's target moves in a frame, along the table's axes; the gripper is held
closed, so its number does nothing."""

DRONE = Modality(
    name="drone",
    low=(-1.0, -1.0, -1.0, -1.5),
    high=(2.0, 1.0, 1.0, 1.5),
    labels=("forward (m/s)", "left (m/s)", "up (m/s)", "turn left (rad/s)"),
    centre=(0.0, 0.0, 0.0, 0.0),
    scale=(2.0, 1.0, 1.0, 1.5),
    fps=20,
    key_bindings={
        ("up", "w"): (1.5, 0.0, 0.0, 0.0),
        ("down", "s"): (-1.0, 0.0, 0.0, 0.0),
        ("left",): (0.0, 0.0, 0.0, 1.0),
        ("right",): (0.0, 0.0, 0.0, -1.0),
        ("a",): (0.0, 1.0, 0.0, 0.0),
        ("d",): (0.0, -1.0, 0.0, 0.0),
        ("e",): (0.0, 0.0, 1.0, 0.0),
        ("q",): (0.0, 0.0, -1.0, 0.0),
    },
)
"""Velocities that a quadrotor's controller follows, in the drone's own level frame."""


class CameraModality(Modality):
    """A camera's velocities, told to the model as the relative pose that they make in one block of 4 frames.

    As for the released Astra weights, a row holds that pose's upper three rows, flattened (see
    :func:`astra_gym.camera.pose_rows`), here less those of a camera at rest, scaled, and the flag.
    """

    BLOCK_FRAMES = 4

    @property
    def row_dim(self) -> int:
        return 13

    def rows(self, actions: np.ndarray) -> np.ndarray:
        clipped = self.checked(actions)
        rows = pose_rows(motion_poses(clipped * (self.BLOCK_FRAMES / self.fps)))
        rows[..., :12] = (rows[..., :12] - _AT_REST) / self._row_scale()
        rows[..., 12] = 1.0
        return rows

    def actions(self, rows: np.ndarray) -> np.ndarray:
        rows = np.array(rows, np.float64)
        rows[..., :12] = rows[..., :12] * self._row_scale() + _AT_REST
        return pose_motions(rows_to_poses(rows)) * (self.fps / self.BLOCK_FRAMES)

    def _row_scale(self) -> np.ndarray:
        """Of a pose's numbers: the largest turn in the rotation's places, the largest way in the translation's."""
        farthest = max(self.high[:3]) * self.BLOCK_FRAMES / self.fps
        turn = max(self.high[3:]) * self.BLOCK_FRAMES / self.fps
        return np.tile([turn, turn, turn, farthest], 3)


_AT_REST = np.eye(4)[:3].reshape(12)

CAMERA = CameraModality(
    name="camera",
    low=(-1.0, -1.0, -1.0, -1.2, -1.2, -0.6),
    high=(1.0, 1.0, 1.0, 1.2, 1.2, 0.6),
    labels=(
        "right (m/s)",
        "up (m/s)",
        "forward (m/s)",
        "turn left (rad/s)",
        "look up (rad/s)",
        "roll (rad/s)",
    ),
    centre=(0.0,) * 6,
    scale=(1.0,) * 6,
    fps=20,
    key_bindings={
        ("w",): (0.0, 0.0, 1.0, 0.0, 0.0, 0.0),
        ("s",): (0.0, 0.0, -1.0, 0.0, 0.0, 0.0),
        ("a",): (-1.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        ("d",): (1.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        ("e",): (0.0, 1.0, 0.0, 0.0, 0.0, 0.0),
        ("q",): (0.0, -1.0, 0.0, 0.0, 0.0, 0.0),
        ("left",): (0.0, 0.0, 0.0, 1.0, 0.0, 0.0),
        ("right",): (0.0, 0.0, 0.0, -1.0, 0.0, 0.0),
        ("up",): (0.0, 0.0, 0.0, 0.0, 0.8, 0.0),
        ("down",): (0.0, 0.0, 0.0, 0.0, -0.8, 0.0),
    },
)
"""A free camera's velocities along its own axes."""

MODALITIES = {modality.name: modality for modality in (DRIVE, MANIPULATION, DRONE, CAMERA)}
"""Every scenario's modality by its name."""
