"""Put a simulator where an episode of a world began."""

from __future__ import annotations

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
    observation, info = sim.reset(seed=start.sim_seed)
    actions = () if start.sim_actions is None else start.sim_actions
    for number, action in enumerate(actions, 1):
        observation, _, terminated, truncated, info = sim.step(action)
        if terminated or truncated:
            raise ValueError(f"start: the simulator's episode ended at action {number} of {len(actions)}")
    return observation, info
