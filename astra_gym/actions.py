"""Modalities: what an action means in each scenario, and how it becomes the row of numbers that the model reads."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from gymnasium import spaces


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
        actions = np.asarray(actions, np.float32)
        if actions.ndim == 0 or actions.shape[-1] != self.action_dim:
            raise ValueError(f"action: expected {self.action_dim} numbers {self.labels}, got shape {actions.shape}")
        if not np.isfinite(actions).all():
            raise ValueError(f"action: every number must be finite, got {actions.tolist()}")
        clipped = np.clip(actions, self.low, self.high)
        known = np.ones((*actions.shape[:-1], 1), np.float32)
        centred = (clipped - np.array(self.centre, np.float32)) / np.array(self.scale, np.float32)
        return np.concatenate([centred, known], -1).astype(np.float32)

    def actions(self, rows: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`rows` for actions within bounds: ``(..., row_dim)`` to ``(..., action_dim)``."""
        return np.asarray(rows)[..., :-1] * np.array(self.scale, np.float32) + np.array(self.centre, np.float32)

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

MODALITIES = {modality.name: modality for modality in (DRIVE,)}
