"""Clips of held-out episodes: scenes that training never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from astra_gym.actions import Modality
from astra_gym.bundles import Start
from astra_gym.data.episodes import Episode
from astra_gym.world import World


@dataclass
class Clip:
    """Context blocks that the world is shown, and the future blocks that it has to foresee."""

    episode: Episode
    first: int
    """Index of the first context block in the episode, at least 1."""
    context: int
    future: int

    @property
    def now(self) -> int:
        """Index of the newest context block."""
        return self.first + self.context - 1

    @property
    def ends(self) -> bool:
        """Whether its last future block ends the episode."""
        return self.now + self.future == len(self.episode.actions) and bool(self.episode.terminations[-1])

    @property
    def context_blocks(self) -> np.ndarray:
        return self.episode.blocks[self.first : self.now + 1]

    @property
    def future_blocks(self) -> np.ndarray:
        return self.episode.blocks[self.now + 1 : self.now + 1 + self.future]

    @property
    def future_actions(self) -> np.ndarray:
        return self.episode.actions[self.now : self.now + self.future]

    @property
    def future_rewards(self) -> np.ndarray:
        return self.episode.rewards[self.now : self.now + self.future]


def motion(episode: Episode) -> np.ndarray:
    """Mean grey levels by which the newest frame changes from block to block, ``float (T,)``."""
    newest = episode.blocks[:, -1].astype(np.int16)
    return np.abs(newest[1:] - newest[:-1]).mean((1, 2, 3))


def choose_clips(episodes: Sequence[Episode], count: int, context: int, future: int, seed: int) -> list[Clip]:
    """At most ``count`` clips with motion, as evenly from the episodes as can be, in the episodes' order.

    A clip has motion if nine in ten of its blocks, context and future, change by at least half a grey level on average:
    a car that stands still, or lies on plain grass, tells nothing. No clip ends its episode, and no block is the future
    of two.

    Raises:
        ValueError: if the episodes hold no such clip.
    """
    rng = np.random.default_rng(seed)
    found: list[list[Clip]] = []
    for episode in episodes:
        moving = motion(episode) > 0.5
        length = context + future
        blocks = len(episode.actions) - int(episode.terminations[-1])
        taken: list[int] = []
        for first in rng.permutation(np.arange(1, blocks - length + 2)):
            moves = moving[first - 1 : first - 1 + length].mean() >= 0.9
            if moves and all(abs(first - other) >= future for other in taken):
                taken.append(int(first))
        found.append([Clip(episode, first, context, future) for first in taken])
    chosen: list[list[Clip]] = [[] for _ in episodes]
    for place in range(max(map(len, found), default=0)):
        for clips, kept in zip(found, chosen, strict=True):
            if place < len(clips) and sum(map(len, chosen)) < count:
                kept.append(clips[place])
    if not any(chosen):
        raise ValueError(
            f"data: no held-out episode has {context + future} blocks in a row that move; collect longer ones"
        )
    return [clip for kept in chosen for clip in kept]


def opening_clips(episodes: Sequence[Episode], count: int, context: int) -> list[Clip]:
    """Contexts that begin with their episode and do not end it, of the first ``count`` episodes that are long enough.

    Raises:
        ValueError: if there is none.
    """
    long = [episode for episode in episodes if len(episode.actions) > context]
    if not long:
        raise ValueError(f"data: no held-out episode is longer than the context of {context} blocks")
    return [Clip(episode, 1, context, 0) for episode in long[:count]]


def episodes_of(clips: Sequence[Clip]) -> list[int]:
    """A number for each clip, the same for those of one episode."""
    numbers: dict[int, int] = {}
    return [numbers.setdefault(id(clip.episode), len(numbers)) for clip in clips]


ENDINGS = (1, 2, 4, 8, 16)
"""Blocks before its end at which an episode is left to the world."""


def ending_clips(episodes: Sequence[Episode], context: int, futures: Sequence[int] = ENDINGS) -> list[Clip]:
    """Clips whose last future block ends the episode, for each length in ``futures`` that fits."""
    clips = []
    for episode in episodes:
        for future in futures if episode.terminations[-1] else ():
            first = len(episode.actions) - future - context + 1
            if first >= 1:
                clips.append(Clip(episode, first, context, future))
    return clips


def as_start(world: World, modality: Modality, clip: Clip) -> Start:
    """The world's beginning that a clip's context makes, with its counterpart in the simulator."""
    frames = clip.context_blocks
    return Start(
        latents=world.encode(frames.reshape(-1, *frames.shape[2:])).float().cpu(),
        rows=torch.from_numpy(modality.rows(clip.episode.actions[clip.first - 1 : clip.now])),
        sim_seed=clip.episode.seed,
        sim_actions=clip.episode.actions[: clip.now],
    )
