"""Agents by name: what drives when nobody sits at the keyboard."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import gymnasium as gym
import numpy as np

from astra_gym.actions import CAMERA, DRIVE, DRONE, MANIPULATION, MODALITIES, Modality

NAMES = ("random", "scripted", "learned", "planner")
SUFFIXES = (".zip", ".safetensors", ".json")


class Agent(Protocol):
    """Acts on what it sees, one action a block."""

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode; the seed fixes the agent's own random choices."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The action for the next block, given the newest one, ``uint8 (K, H, W, 3)``, oldest frame first."""


def correct(agent: Agent, action: np.ndarray) -> None:
    """Tell ``agent`` that another action was done than it last gave, if it counts on its own (it has ``correct``)."""
    if (hear := getattr(agent, "correct", None)) is not None:
        hear(action)


class RandomAgent:
    """Random actions, uniform in the action space, each held for 1 to 8 blocks.

    Args:
        space: bounded action space.
        seed: of the choices, until ``reset`` brings another one.
    """

    def __init__(self, space: gym.spaces.Box, seed: int | None = None):
        self.low, self.high = space.low, space.high
        self.rng = np.random.default_rng(seed)
        self.blocks_left = 0
        """For which the action under way is still held."""
        self._action = np.zeros(space.shape, np.float32)

    def reset(self, seed: int | None = None) -> None:
        """Begin anew; with a seed also the choices."""
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.blocks_left = 0

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The action held at the moment; the observation is not looked at."""
        if self.blocks_left == 0:
            self._action = self.rng.uniform(self.low, self.high).astype(np.float32)
            self.blocks_left = int(self.rng.integers(1, 9))
        self.blocks_left -= 1
        return self._action.copy()


class SkilledAgent:
    """An agent that for a share of the time acts at random instead, in the stretches of :class:`RandomAgent`.

    Args:
        agent: acts the rest of the time, and always looks.
        random: acts for a share of 1 - ``skill`` of its stretches.
        skill: from 0, which is ``random``, to 1, which is ``agent``.
        seed: of the choice of stretches, until ``reset`` brings another one.

    Raises:
        ValueError: if the skill is another number.
    """

    def __init__(self, agent: Agent, random: RandomAgent, skill: float, seed: int | None = None):
        if not 0 <= skill <= 1:
            raise ValueError(f"skill: got {skill}, allowed are numbers from 0 to 1")
        self.agent, self.random, self.skill = agent, random, skill
        self.meant = np.zeros(random.low.shape, np.float32)
        """What the agent would have done in the block that was last acted on."""
        self.rng = _choices(seed)
        self._at_random = False

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode; with a seed also the choices."""
        if seed is not None:
            self.rng = _choices(seed)
        self.agent.reset(seed)
        self.random.reset(seed)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The agent's action for a block, or a random one."""
        if self.random.blocks_left == 0:
            self._at_random = bool(self.rng.random() >= self.skill)
        random, self.meant = self.random.act(observation), self.agent.act(observation)
        if not self._at_random:
            return self.meant
        self.correct(random)
        return random

    def correct(self, action: np.ndarray) -> None:
        """Hear that another action was done than ``act`` gave."""
        correct(self.agent, action)


def _choices(seed: int | None) -> np.random.Generator:
    """Of when to act at random: other numbers than those that :class:`RandomAgent` draws its actions from."""
    return np.random.default_rng(None if seed is None else [seed, 1])


def check_agent(name: str) -> None:
    """Raise a ValueError if :func:`make_agent` knows nobody called ``name``."""
    skilled = name.startswith("scripted:") and _is_share(name.removeprefix("scripted:"))
    if not (name in NAMES or skilled or (Path(name).suffix in SUFFIXES and Path(name).is_file())):
        raise ValueError(
            f"agent: got {name!r}, allowed are 'random', 'scripted', 'scripted:0.5' or another skill from 0 to 1, "
            "'learned', 'planner' and the path of an existing .zip, .safetensors or .json"
        )


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def make_agent(name: str, env: gym.Env, seed: int = 0) -> Agent:
    """The agent called ``name`` for ``env``.

    Args:
        name: "random", "scripted", "scripted:0.5" (at random half of the time, see :class:`SkilledAgent`), "learned"
            (the policy that comes with the package: by PPO for Drive, else by imitation), "planner",
            the path of a policy that ``train-agent`` has learned (.zip) or ``export-agent`` has written (.safetensors),
            or the path of a planner's settings (.json).
        env: environment that observes blocks of frames.
        seed: of the agent's random choices.

    Raises:
        ValueError: if there is no such agent, or it cannot act in ``env``.
    """
    shape = env.observation_space.shape or ()
    if len(shape) != 4:
        raise ValueError(f"env: got observations of shape {shape}, allowed are blocks of frames (K, H, W, 3)")
    check_agent(name)
    if name == "random" or name.startswith("scripted:"):
        assert isinstance(env.action_space, gym.spaces.Box)
        random = RandomAgent(env.action_space, seed)
        if name == "random":
            return random
        skill = float(name.removeprefix("scripted:"))
        return SkilledAgent(scripted_agent(env.get_wrapper_attr("modality")), random, skill, seed)
    if name == "scripted":
        return scripted_agent(env.get_wrapper_attr("modality"))
    if name == "planner" or name.endswith(".json"):
        from astra_gym.agents.planner import Planner, PlannerConfig

        return Planner(env, PlannerConfig() if name == "planner" else PlannerConfig.load(Path(name)), seed)
    if name == "learned":
        from astra_gym.agents.learned import shipped_agent

        name = str(shipped_agent(env.get_wrapper_attr("modality").name))
    from astra_gym.agents.sb3 import SB3Agent

    return SB3Agent(name, env)


def scripted_agent(modality: Modality) -> Agent:
    """The agent that acts by what it sees in the scenario of ``modality``.

    Raises:
        ValueError: if there is none, as for the released weights, whose actions mean something else.
    """
    if modality == DRIVE:
        from astra_gym.agents.lane_follower import LaneFollower

        return LaneFollower()
    if modality == MANIPULATION:
        from astra_gym.agents.block_pusher import BlockPusher

        return BlockPusher()
    if modality == DRONE:
        from astra_gym.agents.gate_follower import GateFollower

        return GateFollower()
    if modality == CAMERA:
        from astra_gym.agents.goal_seeker import GoalSeeker

        return GoalSeeker()
    raise ValueError(
        f"agent: 'scripted' can act in {', '.join(MODALITIES)} with the bundled world's actions, "
        f"but the environment's actions are {modality.labels} of {modality.name!r}"
    )
