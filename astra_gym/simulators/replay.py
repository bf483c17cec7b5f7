"""Put a simulator where an episode of a world began."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

if TYPE_CHECKING:
    from astra_gym.bundles import Start


def replay_start(sim: gym.Env, start: Start) -> tuple[np.ndarray, dict[str, Any]]:
    """Reset ``sim`` and drive it to the moment at which ``start`` begins.

    Args:
        sim: simulator of the scenario that ``start`` was taken from.
        start: a start of a bank, with the seed and the actions that lead to it in the simulator.

    Returns:
        The newest block, ``uint8 (frames, H, W, 3)``, and the simulator's info.

    Raises:
        ValueError: if ``start`` has no counterpart in the simulator (it came from an image or a video), or if the
            simulator's episode ends on the way.
    """
    if start.sim_seed is None:
        raise ValueError("start: it came from an image or a video, which has no counterpart in the simulator")
    return replay(sim, start.sim_seed, () if start.sim_actions is None else start.sim_actions)


def replay(sim: gym.Env, seed: int, actions: Sequence[np.ndarray] | np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Reset ``sim`` with ``seed`` and take ``actions``; its newest observation and info.

    Raises:
        ValueError: if the episode ends on the way.
    """
    observation, info = sim.reset(seed=seed)
    for number, action in enumerate(actions, 1):
        observation, _, terminated, truncated, info = sim.step(action)
        if terminated or truncated:
            raise ValueError(f"start: the simulator's episode ended at action {number} of {len(actions)}")
    return observation, info
