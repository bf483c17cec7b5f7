"""What a world's heads look at: while it is shown true episodes, and while it dreams parts of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from astra_gym.bundles import Bundle, fingerprint
from astra_gym.data.episodes import Episode, data_fingerprint, read_episodes
from astra_gym.evaluation.heads import NEAR, ending_rows
from astra_gym.evaluation.heldout import ENDINGS, Clip, as_start
from astra_gym.evaluation.rollout import read_truth, roll
from astra_gym.files import replacing
from astra_gym.world import World

NEVER = 1_000_000
"""Blocks to an end that does not come."""
WORLDS = 32
"""That look at episodes at the same time."""
LONGEST_DREAM = ENDINGS[-1]
"""Blocks: what lies further ahead is not yet in sight."""


@dataclass
class SeenEpisodes:
    """Episodes of a scenario, block after block, as the heads see them."""

    scenario: str
    features: Tensor
    """float32 (N, feature_dim)"""
    code: Tensor
    """float32 (N, action_dim)"""
    lengths: list[int]
    """Blocks of each episode."""
    ends: list[int | None]
    """Which of its blocks ends each episode, None if none does. Those after it, which only a dream has, are as good."""
    dreamt: bool = False
    ending_reward: float = 0.0
    """Mean reward of the blocks that end an episode in truth."""

    @property
    def to_end(self) -> Tensor:
        """int64 (N,): how many blocks each is before one that ends its episode; large where none does."""
        ends = [NEVER if end is None else end for end in self.ends]
        each = [(end - torch.arange(length)).clamp(min=0) for length, end in zip(self.lengths, ends, strict=True)]
        return torch.cat(each)


def look_at(bundle: Bundle, scenario: str, folder: Path, run: Path, dreams: bool) -> list[SeenEpisodes]:
    """Let the heads look at a dataset's episodes as they truly were and, if there shall be ``dreams`` and the episodes
    are long enough, at dreams that begin in their midst. What they see is kept in ``run``.

    Raises:
        ValueError: if none of the episodes ends by itself.
    """
    episodes = sorted(read_episodes(folder), key=lambda episode: len(episode.actions))  # so that none waits for others
    if not any(episode.terminations[-1] for episode in episodes):
        raise ValueError(f"data: no episode in {folder} ends by itself")
    key = hashlib.sha256((fingerprint(bundle, without="heads") + data_fingerprint(folder)).encode()).hexdigest()[:12]
    kept = run / f"{scenario}-{folder.name}-{key}"
    size = bundle.transformer.config
    clips = clips_to_dream(episodes, size.window + size.summary_window) if dreams else []
    seen = [_show(bundle, scenario, episodes, kept / "true", f"look at {folder}")]
    return seen + ([_dream(bundle, scenario, clips, kept / "dreamt", f"dream of {folder}")] if clips else [])


def clips_to_dream(episodes: Sequence[Episode], context: int) -> list[Clip]:
    """From each episode that is long enough a clip that ends with it, if it ends by itself, and one that goes on.

    The world gets ``context`` true blocks and dreams 1 to 16 up to an end, 16 where none comes. Shorter clips first.
    """
    rng = np.random.default_rng(0)
    clips = []
    for episode in episodes:
        ends, blocks = bool(episode.terminations[-1]), len(episode.actions)
        if ends and blocks > context:
            future = int(rng.integers(1, min(LONGEST_DREAM, blocks - context) + 1))
            clips.append(Clip(episode, blocks - future - context + 1, context, future))
        goes_on = blocks - ends * (1 + NEAR)
        if goes_on >= context + LONGEST_DREAM:
            first = int(rng.integers(1, goes_on - context - LONGEST_DREAM + 2))
            clips.append(Clip(episode, first, context, LONGEST_DREAM))
    return sorted(clips, key=lambda clip: clip.future)


def _show(bundle: Bundle, scenario: str, episodes: Sequence[Episode], kept: Path, label: str) -> SeenEpisodes:
    world, modality = World(bundle, min(WORLDS, len(episodes)), scenario), bundle.config.modality(scenario)
    lengths = [len(episode.actions) for episode in episodes]

    def show(chosen: Sequence[int]) -> None:
        read_truth(world, modality, [episodes[i] for i in chosen], seed=chosen[0])

    features, code = _what_heads_see(world, show, lengths, kept, label)
    ends = [len(episode.actions) - 1 if episode.terminations[-1] else None for episode in episodes]
    reward = np.mean([episode.rewards[-1] for episode in episodes if episode.terminations[-1]])
    return SeenEpisodes(scenario, features, code, lengths, ends, ending_reward=float(reward))


def _dream(bundle: Bundle, scenario: str, clips: Sequence[Clip], kept: Path, label: str) -> SeenEpisodes:
    """Dreams of clips with their true actions; where one should end, the last action is held on a little longer."""
    world, modality = World(bundle, min(WORLDS, len(clips)), scenario), bundle.config.modality(scenario)
    ends = [clip.future - 1 if clip.ends else None for clip in clips]
    lengths = [clip.future + (NEAR if clip.ends else 0) for clip in clips]

    def dream(chosen: Sequence[int]) -> None:
        batch = [clips[i] for i in chosen]
        starts = [as_start(world, modality, clip) for clip in batch]
        roll(world, starts, ending_rows(batch, modality.rows), chosen[0], "dream", decode=False)

    features, code = _what_heads_see(world, dream, lengths, kept, label)
    return SeenEpisodes(scenario, features, code, lengths, ends, dreamt=True)


def _what_heads_see(
    world: World, act: Callable[[Sequence[int]], None], lengths: Sequence[int], kept: Path, label: str
) -> tuple[Tensor, Tensor]:
    """Features and code that the heads look at while ``act`` lets the world step through as many episodes as it holds,
    end to end; each part is kept as soon as it is done."""
    parts = []
    for first in tqdm(range(0, len(lengths), world.num_worlds), desc=label):
        chosen = range(first, min(first + world.num_worlds, len(lengths)))
        path = kept / f"{first:06}.pt"
        if not path.exists():
            seen = _watch(world, act, chosen)
            part = [torch.cat([each[i - first, : lengths[i]] for i in chosen]) for each in seen]
            with replacing(path) as unfinished:
                torch.save(part, unfinished)
        parts.append(torch.load(path, weights_only=True))
    features, code = (torch.cat(each) for each in zip(*parts, strict=True))
    return features, code


def _watch(world: World, act: Callable[[Sequence[int]], None], chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Features and code ``(B, S, dim)`` of the steps that ``act`` lets the world take with ``chosen`` episodes."""
    looked_at: list[tuple[Tensor, Tensor]] = []
    handle = world.bundle.heads.register_forward_pre_hook(lambda _, inputs: looked_at.append(inputs[:2]))
    try:
        act(chosen)
    finally:
        handle.remove()
    features, code = (torch.stack(kind, 1).cpu() for kind in zip(*looked_at, strict=True))
    return features, code
