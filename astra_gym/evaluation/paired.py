"""Paired starts: a policy goes on from the same moments in the dream and in the true simulator."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from astra_gym.actions import MODALITIES, Modality
from astra_gym.agents.policies import Agent
from astra_gym.agents.rollout import make_block_env
from astra_gym.data.episodes import Episode as RecordedEpisode
from astra_gym.evaluation.contexts import Contexts, collect_contexts
from astra_gym.evaluation.heldout import Clip, as_start
from astra_gym.evaluation.ledger import Ledger, policy_key
from astra_gym.evaluation.truth import make_policy, simulator_id, true_returns
from astra_gym.processes import worker_pool

if TYPE_CHECKING:
    from astra_gym.bundles import Bundle, Start
    from astra_gym.world import World


def dream_starts(contexts: Contexts, world: World, modality: Modality) -> list[Start]:
    """The starts in the world: the encoded contexts, but for the blocks of the resets, which no action led to."""
    count, length = contexts.actions.shape[:2]
    nothing = np.zeros(length, np.float32)
    episodes = [
        RecordedEpisode(int(contexts.seeds[i]), contexts.blocks[i], contexts.actions[i], nothing, nothing > 0)
        for i in range(count)
    ]
    return [as_start(world, modality, Clip(episode, 1, length, 0)) for episode in episodes]


def dream_returns(
    world: World,
    modality: Modality,
    starts: Sequence[Start],
    seeds: Sequence[int],
    agents: Sequence[Agent],
    blocks: int,
) -> np.ndarray:
    """Return of a policy in the world from each start, ``float64 (N,)``; a world that terminates stops earning.

    Args:
        world: of any number of worlds; they are reset, as many starts at a time as it holds.
        modality: of the actions.
        starts: N.
        seeds: of each one's world and agent.
        agents: the policy, once for each world.
        blocks: for which it acts.
    """
    size, returns = world.num_worlds, np.zeros(len(starts))
    with tqdm(total=-(-len(starts) // size) * blocks, unit="block", desc="dream", leave=False) as bar:
        for begin in range(0, len(starts), size):
            batch = np.minimum(np.arange(begin, begin + size), len(starts) - 1)  # the last one is filled up
            seen = world.reset([starts[i] for i in batch], [int(seeds[i]) for i in batch])
            for agent, i in zip(agents, batch, strict=True):
                agent.reset(int(seeds[i]))
            earned, alive = np.zeros(size), np.ones(size, bool)
            for _ in range(blocks):
                actions = np.stack([agent.act(block) for agent, block in zip(agents, seen, strict=True)])
                step = world.step(modality.rows(actions))
                earned += np.where(alive, step.reward, 0.0)
                alive &= ~step.terminated
                seen = step.frames
                bar.update()
            returns[begin : begin + size] = earned[: len(starts) - begin]
    return returns


class PairedStarts:
    """N moments of held-out episodes from which policies go on, in the world and in its simulator.

    Contexts are collected on first use and kept in ``output``, as are all returns: those in truth serve every world,
    those in the dream the weights that they were measured with.

    Args:
        bundle: the world.
        scenario: in which to act.
        starts: N.
        context: true blocks before each start, shown to the world.
        blocks: for which a policy acts.
        first_seed: of the scenes.
        batch: worlds at a time.
        output: folder for ``contexts_*.npz`` and ``returns_*.json``.

    Raises:
        ValueError: on a number below 1, a scenario without simulator or weights, or another run's ``output``.
    """

    def __init__(
        self,
        bundle: Bundle,
        scenario: str,
        starts: int,
        context: int,
        blocks: int,
        first_seed: int,
        batch: int,
        output: Path,
    ):
        for name, value in (("starts", starts), ("context", context), ("blocks", blocks), ("batch", batch)):
            if value < 1:
                raise ValueError(f"{name}: got {value}, allowed are whole numbers from 1")
        simulator_id(scenario)
        if scenario not in bundle.starts:
            raise ValueError(f"scenario: got {scenario!r}, this world was trained for {list(bundle.starts)}")
        from astra_gym.bundles import fingerprint

        self.scenario, self.modality = scenario, MODALITIES[scenario]
        self.starts, self.context, self.blocks = starts, context, blocks
        self.first_seed, self.batch = first_seed, min(batch, starts)
        self.weights = fingerprint(bundle)
        self._bundle, self._output = bundle, output
        settings = {"starts": starts, "context": context, "blocks": blocks, "first_seed": first_seed}
        self._ledger = Ledger(output / f"returns_{scenario}.json", settings)
        self._contexts: Contexts | None = None
        self._dream: tuple[World, list[Start]] | None = None

    def returns(self, policies: Sequence[str], workers: int) -> tuple[np.ndarray, np.ndarray]:
        """Each policy's returns ``(P, N)`` in the dream and in truth; what is known already is not measured again.

        Args:
            policies: names for :func:`make_policy`.
            workers: processes for the simulator.

        Raises:
            ValueError: if there is no such policy.
        """
        with make_block_env(simulator_id(self.scenario), 1) as env:
            for name in policies:  # before hours of work
                make_policy(name, env)
        with worker_pool(workers) as pool:
            truth = [self._in_truth(pool, name) for name in tqdm(policies, "truth", unit="policy")]
            self._load_contexts(pool)
        dream = [self._in_dream(name) for name in tqdm(policies, "dream", unit="policy")]
        return np.array(dream), np.array(truth)

    def _load_contexts(self, pool: ProcessPoolExecutor) -> Contexts:
        if self._contexts is None:
            name = f"contexts_{self.scenario}_{self.first_seed}_{self.starts}x{self.context}.npz"
            self._contexts = collect_contexts(
                pool, self.scenario, self.starts, self.context, self.first_seed, self._output / name
            )
        return self._contexts

    def _in_truth(self, pool: ProcessPoolExecutor, policy: str) -> np.ndarray:
        def measure() -> np.ndarray:
            return true_returns(pool, self.scenario, policy, self._load_contexts(pool).true_episodes(), self.blocks)

        return self._ledger.measured(f"truth {policy_key(policy, self.scenario)}", measure)

    def _in_dream(self, policy: str) -> np.ndarray:
        def measure() -> np.ndarray:
            world, starts = self._world()
            assert self._contexts is not None
            with make_block_env(simulator_id(self.scenario), 1) as env:  # its spaces are the world's
                agents = [make_policy(policy, env) for _ in range(world.num_worlds)]
            return dream_returns(world, self.modality, starts, self._contexts.seeds.tolist(), agents, self.blocks)

        return self._ledger.measured(f"dream {self.weights} {policy_key(policy, self.scenario)}", measure)

    def _world(self) -> tuple[World, list[Start]]:
        from astra_gym.world import World

        if self._dream is None:
            assert self._contexts is not None
            world = World(self._bundle, self.batch, self.scenario)
            self._dream = world, dream_starts(self._contexts, world, self.modality)
        return self._dream
