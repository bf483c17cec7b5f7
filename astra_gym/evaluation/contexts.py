"""What truly happened before the moments from which policies are compared."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from astra_gym.agents.rollout import make_block_env
from astra_gym.data.collect import SCRIPTED, load_policy, run_episode
from astra_gym.evaluation.truth import Episode, simulator_id
from astra_gym.files import replacing

MOST_TRIES = 4
"""Seeds tried for each start that is wanted; some episodes end within the context."""


@dataclass
class Contexts:
    """What truly happened before each of N starts, T blocks each."""

    seeds: np.ndarray
    """int64 (N,), of the simulator's resets"""
    blocks: np.ndarray
    """uint8 (N, T + 1, K, H, W, 3), the first as ``reset`` returned it"""
    actions: np.ndarray
    """float32 (N, T, action_dim); ``actions[:, t]`` led to ``blocks[:, t + 1]``"""

    def true_episodes(self) -> list[Episode]:
        """The starts in the simulator."""
        return [Episode(*rest) for rest in zip(self.seeds.tolist(), self.actions, self.blocks[:, -1], strict=True)]


def collect_contexts(
    pool: ProcessPoolExecutor, scenario: str, starts: int, length: int, first_seed: int, cache: Path | None = None
) -> Contexts:
    """Let the mixed experts act for ``length`` blocks in each of ``starts`` held-out scenes.

    Scenes whose episode ends on the way are passed over. The seeds run from ``first_seed``.

    Args:
        pool: of worker processes.
        scenario: of the simulator.
        starts: N.
        length: T.
        first_seed: validation and training have seeds below 2,000,000.
        cache: an .npz to read them from, or to keep them in.

    Raises:
        ValueError: if too many episodes end on the way.
    """
    if cache is not None and cache.exists():
        with np.load(cache) as saved:
            return Contexts(**saved)
    found: list[tuple[int, np.ndarray, np.ndarray]] = []
    jobs = ((scenario, seed, length) for seed in range(first_seed, first_seed + MOST_TRIES * starts))
    with tqdm(total=starts, unit="start", desc="contexts", leave=False) as bar:
        # A few at a time: an episode that ended calls for another one.
        while len(found) < starts and (batch := list(islice(jobs, starts - len(found)))):
            for context in pool.map(_run_context, batch):
                if context is not None:
                    found.append(context)
                    bar.update()
    if len(found) < starts:
        raise ValueError(
            f"context: of {MOST_TRIES * starts} episodes only {len(found)} last {length} blocks; take a shorter context"
        )
    seeds, blocks, actions = zip(*found, strict=True)
    contexts = Contexts(np.array(seeds), np.stack(blocks), np.stack(actions))
    if cache is not None:
        with replacing(cache) as unfinished:
            np.savez_compressed(unfinished, allow_pickle=False, **vars(contexts))
    return contexts


def _run_context(job: tuple[str, int, int]) -> tuple[int, np.ndarray, np.ndarray] | None:
    scenario, seed, length = job
    with make_block_env(simulator_id(scenario), length + 1) as env:
        block, _ = env.reset(seed=seed)
        expert = load_policy(SCRIPTED[simulator_id(scenario)])(env, seed)  # as in the world's data
        episode = run_episode(env, expert, seed, length, block)
    lasted = len(episode["actions"]) == length and not episode["terminations"][-1]
    return (seed, episode["observations"], episode["actions"].astype(np.float32)) if lasted else None
