"""Let an agent act in an environment, one episode at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from astra_gym.agents.policies import Agent
from astra_gym.simulators.own import is_simulator, make_simulator


@dataclass
class Step:
    """One block of an episode."""

    block: np.ndarray
    """Its frames, ``uint8 (K, H, W, 3)``, oldest first."""
    action: np.ndarray | None
    """What led to it; None for the block that ``reset`` returned."""
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    info: dict[str, Any] = field(default_factory=dict)
    """What else the environment tells."""


def make_block_env(env_id: str, blocks: int, world: str = "small", device: str = "cpu", **options: Any) -> gym.Env:
    """Make an environment whose episodes last ``blocks`` steps at most.

    Args:
        env_id: of an Astra environment, a simulator, or any other environment that a world can be learned from.
        blocks: time limit.
        world: name or folder of the world; simulators have none.
        device: of the world.
        options: further arguments of ``gym.make``.
    """
    if is_simulator(env_id):
        return make_simulator(env_id, max_episode_blocks=blocks, **options)
    return gym.make(env_id, max_episode_steps=blocks, world=world, device=device, disable_env_checker=True, **options)


def run_episode(env: gym.Env, agent: Agent, seed: int) -> Iterator[Step]:
    """Yield the blocks of one episode as they come, from the one that ``reset(seed)`` returns on."""
    block, info = env.reset(seed=seed)
    agent.reset(seed)
    yield Step(block, None, info=info)
    over = False
    while not over:
        action = agent.act(block)
        block, reward, terminated, truncated, info = env.step(action)
        over = terminated or truncated
        yield Step(block, action, float(reward), terminated, truncated, info)
