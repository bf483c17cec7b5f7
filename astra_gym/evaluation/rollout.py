"""Roll worlds forward in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from astra_gym.bundles import Start
from astra_gym.world import World


@dataclass
class Rollout:
    """What ``N`` worlds made of ``S`` actions each."""

    blocks: np.ndarray
    """uint8 (N, S, K, H, W, 3)"""
    rewards: np.ndarray
    """float32 (N, S)"""
    terminated: np.ndarray
    """bool (N, S)"""


def roll(world: World, starts: Sequence[Start], rows: np.ndarray, seed: int, label: str) -> Rollout:
    """Roll from each start with its own actions, as many at a time as ``world`` holds.

    Start ``i`` has the seed ``seed + i``. A last, smaller batch is filled up with repeats of its last start.

    Args:
        world: of any number of worlds; all of them are reset.
        starts: ``N`` beginnings.
        rows: ``float32 (N, S, row_dim)``.
        seed: of the first start.
        label: of the progress bar.
    """
    size, steps = world.num_worlds, rows.shape[1]
    parts = []
    with tqdm(total=-(-len(starts) // size) * steps, unit="block", desc=label, leave=False) as bar:
        for begin in range(0, len(starts), size):
            batch = np.minimum(np.arange(begin, begin + size), len(starts) - 1)
            world.reset([starts[i] for i in batch], [seed + int(i) for i in batch])
            made = []
            for step in range(steps):
                made.append(world.step(rows[batch, step]))
                bar.update()
            real = slice(0, min(size, len(starts) - begin))
            parts.append(
                Rollout(
                    np.stack([step.frames[real] for step in made], 1),
                    np.stack([step.reward[real] for step in made], 1),
                    np.stack([step.terminated[real] for step in made], 1),
                )
            )
    return Rollout(
        np.concatenate([part.blocks for part in parts]),
        np.concatenate([part.rewards for part in parts]),
        np.concatenate([part.terminated for part in parts]),
    )
