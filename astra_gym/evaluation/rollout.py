"""Roll worlds forward in batches, on their own history or on the true one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from astra_gym.actions import Modality
from astra_gym.bundles import Start
from astra_gym.data.episodes import Episode, encode_blocks
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


def roll(
    world: World,
    starts: Sequence[Start],
    rows: np.ndarray,
    seed: int,
    label: str,
    while_stepping: Callable[[], AbstractContextManager[object]] = nullcontext,
    decode: bool = True,
) -> Rollout:
    """Roll from each start with its own actions, as many at a time as ``world`` holds.

    Start ``i`` has the seed ``seed + i``. A last, smaller batch is filled up with repeats of its last start.

    Args:
        world: of any number of worlds; all of them are reset.
        starts: ``N`` beginnings.
        rows: ``float32 (N, S, row_dim)``.
        seed: of the first start.
        label: of the progress bar.
        while_stepping: makes a context in which the blocks are generated; the starts are taken in outside of it.
        decode: without it there are no ``blocks``, which saves the time to make them.
    """
    size, steps = world.num_worlds, rows.shape[1]
    parts = []
    with tqdm(total=-(-len(starts) // size) * steps, unit="block", desc=label, leave=False) as bar:
        for begin in range(0, len(starts), size):
            batch = np.minimum(np.arange(begin, begin + size), len(starts) - 1)
            world.reset([starts[i] for i in batch], [seed + int(i) for i in batch])
            made = []
            with while_stepping():
                for step in range(steps):
                    made.append(world.step(rows[batch, step], decode=decode))
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


@dataclass
class Reading:
    """What the heads say of ``S`` blocks in a row."""

    rewards: np.ndarray
    """float32 (S,)"""
    terminated: np.ndarray
    """bool (S,)"""


def read_truth(world: World, modality: Modality, episodes: Sequence[Episode], seed: int) -> list[Reading]:
    """Show the world whole episodes, as many at a time as it holds, and read the heads after each true block.

    Args:
        world: of any number of worlds; all of them are reset.
        modality: of the episodes' actions.
        episodes: of any lengths.
        seed: of the first episode's world.
    """
    size, readings = world.num_worlds, []
    for begin in tqdm(range(0, len(episodes), size), desc="heads on true frames", leave=False):
        batch = [episodes[min(i, len(episodes) - 1)] for i in range(begin, begin + size)]
        longest = max(len(episode.actions) for episode in batch)
        # A shorter episode goes on with its last block, which is not read.
        places = [np.minimum(np.arange(longest + 1), len(episode.actions)) for episode in batch]
        latents = [encode_blocks(world.bundle.autoencoder, episode.blocks) for episode in batch]
        rows = [modality.rows(episode.actions) for episode in batch]
        unknown = torch.zeros(1, modality.row_dim)
        world.reset([Start(each[:1], unknown) for each in latents], list(range(seed + begin, seed + begin + size)))
        said = [
            world.observe(
                torch.stack([each[place[t]] for each, place in zip(latents, places, strict=True)]),
                np.stack([each[place[t] - 1] for each, place in zip(rows, places, strict=True)]),
            )
            for t in range(1, longest + 1)
        ]
        rewards, terminated = (np.stack(part, 1) for part in zip(*said, strict=True))
        for i, episode in enumerate(batch[: len(episodes) - begin]):
            length = len(episode.actions)
            readings.append(Reading(rewards[i, :length], terminated[i, :length]))
    return readings
