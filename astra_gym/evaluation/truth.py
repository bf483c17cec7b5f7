"""Policies by name in the true simulators, their episodes spread over worker processes."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from astra_gym import scenarios
from astra_gym.agents.policies import Agent, make_agent
from astra_gym.agents.rollout import make_block_env
from astra_gym.simulators.replay import replay

EXPERTS = {
    "drive": "astra_gym.simulators.car_racing:Driver",
    "manipulation": "astra_gym.simulators.push:Pusher",
    "drone": "astra_gym.simulators.gates:Racer",
    "camera": "astra_gym.simulators.room:Pilot",
}
"""The scripted expert of each scenario's simulator, which reads its state."""
CHUNK = 4
"""Episodes that a worker takes at a time."""


def simulator_id(scenario: str) -> str:
    """Gymnasium id of a scenario's ground truth.

    Raises:
        ValueError: if it has none.
    """
    if scenario not in EXPERTS:
        raise ValueError(f"scenario: got {scenario!r}, those with a true simulator are {list(EXPERTS)}")
    return scenarios.simulator_id(scenario)


class Expert:
    """A simulator's scripted expert of default skill as an agent: it reads the state and looks at no picture.

    Args:
        env: the simulator that it acts in.

    Raises:
        ValueError: if ``env`` is no simulator: a dream has no state to read.
    """

    def __init__(self, env: gym.Env):
        name = env.get_wrapper_attr("modality").name
        if env.spec is None or env.spec.namespace != "AstraSim" or name not in EXPERTS:
            raise ValueError("agent: 'expert' reads the state of a true simulator and can act nowhere else")
        module, _, attribute = EXPERTS[name].partition(":")
        self._expert = getattr(importlib.import_module(module), attribute)(env)

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode; call after the simulator's ``reset``."""
        self._expert.reset(seed)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The action for the next block."""
        return self._expert(observation)


class Constant:
    """Always the same action."""

    def __init__(self, action: Sequence[float]):
        self._action = np.array(action, np.float32)

    def reset(self, seed: int | None = None) -> None:
        """Nothing to do."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The action."""
        return self._action.copy()


def make_policy(name: str, env: gym.Env) -> Agent:
    """A policy to judge.

    Args:
        name: "expert" (in a simulator), "constant:" and an action, such as "constant:0,0.5,0", or any name that
            :func:`astra_gym.agents.policies.make_agent` knows.
        env: environment of blocks whose spaces it acts in.

    Raises:
        ValueError: if there is no such policy.
    """
    if name == "expert":
        return Expert(env)
    kind, _, action = name.partition(":")
    if kind != "constant":
        return make_agent(name, env)
    try:
        numbers = [float(part) for part in action.split(",")]
    except ValueError:
        numbers = []
    if (len(numbers),) != env.action_space.shape or not np.isfinite(numbers).all():
        raise ValueError(f"policies: got {name!r}, allowed is 'constant:' and {env.action_space.shape} finite numbers")
    return Constant(numbers)


@dataclass
class Episode:
    """An episode to run in the simulator."""

    seed: int
    """Of the simulator's reset, and of the policy's own choices."""
    prefix: np.ndarray
    """Actions taken before the policy, ``float32 (n, action_dim)``."""
    seen: np.ndarray | None = None
    """What the simulator has to show then, ``uint8 (K, H, W, 3)``; None is not checked."""


def true_returns(
    pool: ProcessPoolExecutor, scenario: str, policy: str, episodes: Sequence[Episode], blocks: int
) -> np.ndarray:
    """Return of ``policy`` in the true simulator in each episode, ``float64 (N,)``.

    Args:
        pool: of worker processes, see :func:`astra_gym.processes.worker_pool`.
        scenario: of the simulator.
        policy: a name for :func:`make_policy`; each episode has its seed.
        episodes: where they begin.
        blocks: for which the policy acts at most.

    Raises:
        ValueError: if there is no such policy, or the simulator does not show what it has to.
    """
    chunks = [(scenario, policy, list(episodes[i : i + CHUNK]), blocks) for i in range(0, len(episodes), CHUNK)]
    return np.array(list(_in_order(pool.map(_run_chunk, chunks), len(episodes), f"{policy} in truth")))


def _in_order(chunks: Iterable[list[float]], total: int, label: str) -> Iterator[float]:
    with tqdm(total=total, unit="episode", desc=label, leave=False) as bar:
        for values in chunks:
            bar.update(len(values))
            yield from values


def _run_chunk(job: tuple[str, str, list[Episode], int]) -> list[float]:
    scenario, policy, episodes, blocks = job
    returns = []
    longest = max(len(episode.prefix) for episode in episodes) + blocks
    with make_block_env(simulator_id(scenario), longest) as env:
        agent = make_policy(policy, env)
        for episode in episodes:
            observation, _ = replay(env, episode.seed, episode.prefix)
            if episode.seen is not None and not np.array_equal(observation, episode.seen):
                raise ValueError(f"contexts: the simulator shows something else for seed {episode.seed}; delete them")
            agent.reset(episode.seed)
            total = 0.0
            for _ in range(blocks):
                observation, reward, terminated, truncated, _ = env.step(agent.act(observation))
                total += float(reward)
                if terminated or truncated:
                    break
            returns.append(total)
    return returns
