"""From held keys to smooth actions."""

from __future__ import annotations

import numpy as np

from astra_gym.actions import Modality


class Keyboard:
    """Turns the keys that are held into an action that moves smoothly.

    What the held keys ask for (``modality.from_keys``) is a target. Each number of the action moves towards its target
    at a steady pace: from rest to full in ``rise`` seconds, and back to rest in ``fall`` seconds when the key is let go
    or the opposite key is pressed. So a short tap gives a small correction, a held key full lock, and letting go
    straightens the wheel quickly. A key that was pressed and released between two actions counts as held for one of
    them. Seconds are those of the world, not of the wall: a slow machine steers alike.

    Args:
        modality: gives the key bindings and the action's bounds.
        seconds: of the world that an action lasts.
        rise: seconds from rest to full.
        fall: seconds from full to rest.
    """

    def __init__(self, modality: Modality, seconds: float, rise: float = 0.32, fall: float = 0.16):
        self.modality = modality
        self.keys = {key for keys in modality.key_bindings for key in keys}
        self.action = np.zeros(modality.action_dim, np.float32)
        full = np.maximum(np.abs(modality.low), np.abs(modality.high))
        self._rise, self._fall = full * seconds / rise, full * seconds / fall
        self._held: set[str] = set()
        self._tapped: set[str] = set()

    def press(self, key: str) -> None:
        """A key (pygame's name) went down; keys without a binding are ignored."""
        if key in self.keys:
            self._held.add(key)
            self._tapped.add(key)

    def release(self, key: str) -> None:
        """A key went up."""
        self._held.discard(key)

    def release_all(self) -> None:
        """Every key went up, for instance because the window lost the focus."""
        self._held.clear()
        self._tapped.clear()

    def rest(self) -> None:
        """Begin anew at rest, as an episode does; held keys stay held."""
        self.action = np.zeros_like(self.action)

    def sample(self) -> np.ndarray:
        """Move on by one action and return it, ``float32 (action_dim,)``."""
        target = self.modality.from_keys(self._held | self._tapped)
        self._tapped.clear()
        outwards = (self.action * target >= 0) & (np.abs(target) > np.abs(self.action))
        pace = np.where(outwards, self._rise, self._fall)
        # A key for the other side first brings the number to rest.
        goal = np.where(self.action * target < 0, 0.0, target)
        self.action = (self.action + np.clip(goal - self.action, -pace, pace)).astype(np.float32)
        return self.action.copy()
