"""Any Gymnasium environment as the ground truth of a world that was learned from it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator

import astra_gym  # noqa: F401  (registers the ids)
from astra_gym.scenarios import Scenario
from astra_gym.simulators.blocks import Simulator, make_visible

FRAMES = 4
"""Frames a block."""


class OwnSim(Simulator):
    """A Gymnasium environment with the interface of the world that was learned from it.

    Args:
        env_id: Gymnasium id, perhaps with the module that registers it; its actions are a bounded box, and it renders
            ``rgb_array`` pictures or observes them.
        max_episode_blocks: longest episode in blocks, None for no limit; it takes the place of the environment's own.
        render_mode, size: as for :class:`~astra_gym.simulators.blocks.Simulator`.

    Raises:
        ValueError: if its actions are of another kind, or an argument is wrong.
    """

    def __init__(
        self, env_id: str, max_episode_blocks: int | None = None, render_mode: str | None = None, size: int = 64
    ):
        self.check_arguments(max_episode_blocks, render_mode, size)
        env = make_visible(env_id, max_episode_steps=FRAMES * max_episode_blocks if max_episode_blocks else -1)
        fps = env.metadata.get("render_fps")
        self.modality = Scenario.of(env_id, env.action_space, fps).modality(env_id)
        super().__init__(env, render_mode, size)
        self.action_space = self.modality.action_space


def find_spec(env_id: str) -> EnvSpec:
    """What is registered under an id, after importing the module that it may name: "module:Id-v0".

    Raises:
        gymnasium.error.Error: if there is no environment of that name.
        ImportError: if there is no such module.
    """
    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)
    return gym.spec(name)


def creator_of(env_id: str) -> Callable[..., Any] | None:
    """What ``gym.make`` calls to make an environment, None where the registry does not tell; raises as
    :func:`find_spec` does."""
    entry = find_spec(env_id).entry_point
    return load_env_creator(entry) if isinstance(entry, str) else entry


def is_simulator(env_id: str) -> bool:
    """Whether ``env_id`` names a true environment instead of a learned world; raises as :func:`find_spec` does."""
    return not str(find_spec(env_id).entry_point).startswith("astra_gym.envs.")


def make_simulator(env_id: str, **options: Any) -> gym.Env:
    """Make a ground truth by its id, which is the ``simulator_id`` of an environment.

    Args:
        env_id: of a simulator (AstraSim/...) or of any other environment, which becomes an :class:`OwnSim`.
        options: "max_episode_blocks", "render_mode" and "size", as for these.
    """
    if find_spec(env_id).namespace == "AstraSim":
        return gym.make(env_id, disable_env_checker=True, **options)
    return OwnSim(env_id, **options)
