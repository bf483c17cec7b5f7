"""A replay buffer for frames that fits into memory and goes to disk whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from astra_gym.files import replacing

_STORED = ("observations", "actions", "rewards", "dones", "cut")


def shift_randomly(images: np.ndarray, pixels: int) -> np.ndarray:
    """Images ``(B, C, H, W)``, each moved by up to ``pixels`` along both axes, its border repeated."""
    height, width = images.shape[-2:]
    padded = np.pad(images, ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels)), mode="edge")
    places = np.random.randint(2 * pixels + 1, size=(len(images), 2))
    return np.stack([image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, places, strict=True)])


class BlockReplayBuffer(ReplayBuffer):
    """Keeps every observation once, 49,152 bytes for a block of 4 frames of 64x64: 0.98 GB for 20,000 blocks.

    The observation after a step is that of the next row. Where a time limit or an interruption cuts an episode, that is
    another episode's: such steps are not drawn. (With its own saving of memory SB3 would take them for the end.)

    To be given to SAC with ``optimize_memory_usage=True`` and ``handle_timeout_termination=False``.

    Args:
        args, kwargs: SB3's own.
        shift: most pixels by which a drawn image is moved, so that a policy does not learn the images by heart
            (Kostrikov et al., "Image Augmentation Is All You Need", 2020).
    """

    def __init__(self, *args: Any, shift: int = 3, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.shift = shift
        self.cut = np.zeros((self.buffer_size, self.n_envs), np.bool_)

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Keep a step of every environment."""
        self.cut[self.pos] = [info.get("TimeLimit.truncated", False) for info in infos]
        super().add(obs, next_obs, action, reward, done, infos)

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """Steps drawn evenly from those that can be; nothing is normalised.

        Raises:
            RuntimeError: if there is none yet.
        """
        drawable = ~self.cut
        drawable[self.pos] = False  # it holds the observation after the newest step
        if not self.full:
            drawable[self.pos :] = False
        places = np.flatnonzero(drawable)
        if not len(places):
            raise RuntimeError("the replay buffer has no step to learn from yet; let learning start later")
        steps, envs = np.divmod(places[np.random.randint(len(places), size=batch_size)], self.n_envs)
        batch = (
            shift_randomly(self.observations[steps, envs], self.shift),
            self.actions[steps, envs],
            shift_randomly(self.observations[(steps + 1) % self.buffer_size, envs], self.shift),
            self.dones[steps, envs, None],
            self.rewards[steps, envs, None],
        )
        return ReplayBufferSamples(*map(self.to_torch, batch))

    def save(self, path: Path) -> None:
        """Write what is in it, as ``.npz``, so that a kill at any moment leaves the old file or the new one."""
        rows = self.buffer_size if self.full else self.pos
        kept = {name: getattr(self, name)[:rows] for name in _STORED}
        with replacing(path) as unfinished:
            np.savez(unfinished, allow_pickle=False, pos=self.pos, full=self.full, **kept)

    def load(self, path: Path) -> None:
        """Take in what was written; the episodes under way then are cut.

        Raises:
            ValueError: if it was of another size or number of environments.
        """
        with np.load(path, allow_pickle=False) as saved:
            rows, envs = saved["rewards"].shape
            full, pos = bool(saved["full"]), int(saved["pos"])
            if envs != self.n_envs or (rows != self.buffer_size if full else rows >= self.buffer_size):
                raise ValueError(
                    f"buffer_size: {path} has {rows} steps of {envs} environments, allowed are the num_envs and "
                    f"buffer_size that it was made with, here {self.buffer_size} steps of {self.n_envs}"
                )
            for name in _STORED:
                getattr(self, name)[:rows] = saved[name]
        self.full, self.pos = full, pos
        if rows:
            self.cut[pos - 1] = True
