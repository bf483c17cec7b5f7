"""Whether reward and termination, read from dreamt or from true frames, are those of the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from astra_gym.data.episodes import Episode
from astra_gym.evaluation.heldout import Clip, episodes_of
from astra_gym.evaluation.intervals import estimate
from astra_gym.evaluation.metrics import correlation
from astra_gym.evaluation.rollout import Reading, Rollout

SUMMED_BLOCKS = 8
NEAR = 2
"""A termination within this many blocks of the true one is a hit."""


def judge_reward(readings: Sequence[Reading], truths: Sequence[np.ndarray]) -> dict[str, Any]:
    """Compare rewards with the true ones, in blocks that neither end an episode nor are said to.

    Args:
        readings: of any lengths.
        truths: true rewards of the same blocks, or of fewer: the reading's further blocks are left out.

    Returns:
        Pearson correlations per block, and of sums over 8 blocks in a row (or as many as there are); means.
    """
    size = min(SUMMED_BLOCKS, max(map(len, truths)))
    said, true, said_sums, true_sums = [], [], [], []
    for reading, truth in zip(readings, truths, strict=True):
        goes_on, rewards = ~reading.terminated[: len(truth)], reading.rewards[: len(truth)]
        said.append(rewards[goes_on])
        true.append(truth[goes_on])
        for begin in range(0, len(truth) - size + 1, size):
            window = slice(begin, begin + size)
            if goes_on[window].all():
                said_sums.append(rewards[window].sum())
                true_sums.append(truth[window].sum())
    said_rewards, true_rewards = np.concatenate(said), np.concatenate(true)
    return {
        "correlation_per_block": correlation(said_rewards, true_rewards),
        "correlation_of_sums": correlation(np.array(said_sums), np.array(true_sums)),
        "summed_blocks": size,
        "blocks": len(true_rewards),
        "mean": float(said_rewards.mean()),
        "true_mean": float(true_rewards.mean()),
    }


def dreamt_reward(rollout: Rollout, clips: Sequence[Clip]) -> dict[str, Any]:
    """:func:`judge_reward` of the first 8 dreamt blocks of each clip: later ones need not show what truly came."""
    readings = [Reading(*each) for each in zip(rollout.rewards, rollout.terminated, strict=True)]
    return judge_reward(readings, [clip.future_rewards[:SUMMED_BLOCKS] for clip in clips])


def true_reward(readings: Sequence[Reading], episodes: Sequence[Episode]) -> dict[str, Any]:
    """:func:`judge_reward` of whole true episodes."""
    return judge_reward(readings, [episode.rewards[: _blocks_before_end(episode)] for episode in episodes])


def judge_termination(
    said: Sequence[np.ndarray], ends: Sequence[int | None], groups: Sequence[int] | None = None
) -> dict[str, Any]:
    """Precision, recall and F1 of termination over whole rollouts, the last with its interval.

    A rollout whose true episode ends is a hit if its first termination lies within two blocks of the true one. An
    earlier one, or any in a rollout whose true episode goes on, is a false alarm.

    Args:
        said: of each rollout, ``bool (S,)``: in which blocks the world terminates.
        ends: of each rollout, the block that truly ends the episode, None if none does.
        groups: of each rollout, which episode it is of; None if all are of different ones.

    Returns:
        Among others the numbers of rollouts that end ("endings") and of episodes among them ("ended_episodes"). There
        is no interval where all resampled rollouts have the same F1, as where all ends are seen.
    """
    groups = list(range(len(ends))) if groups is None else groups
    counted = np.zeros((len(ends), 3), int)  # of each rollout: whether it is a hit, a false alarm, and an ending
    for place, (terminated, end) in enumerate(zip(said, ends, strict=True)):
        predicted = np.flatnonzero(terminated if end is None else terminated[: end + 1 + NEAR])
        hit = end is not None and len(predicted) > 0 and predicted[0] >= end - NEAR
        counted[place] = hit, len(predicted) > 0 and not hit, end is not None
    hits, alarms, endings = counted.sum(0).tolist()
    f1 = estimate(lambda places: _f1(counted[places]), groups)
    low, high = f1["interval"]
    return {
        "f1": f1["value"],
        "f1_interval": [None, None] if low == high else [low, high],
        "precision": hits / (hits + alarms) if hits + alarms else None,
        "recall": hits / endings if endings else None,
        "endings": endings,
        "ended_episodes": len({group for group, end in zip(groups, ends, strict=True) if end is not None}),
        "hits": hits,
        "false_alarms": alarms,
        "rollouts": len(said),
        "tolerance_blocks": NEAR,
    }


def _f1(counted: np.ndarray) -> float:
    """Of rollouts' hits, false alarms and endings ``int (N, 3)``; NaN where there are none of them."""
    hits, alarms, endings = counted.sum(0)
    return 2 * hits / total if (total := hits + alarms + endings) else float("nan")


def dreamt_termination(
    ending: Rollout, clips: Sequence[Clip], going_on: Rollout, others: Sequence[Clip]
) -> dict[str, Any]:
    """:func:`judge_termination` of dreams, and recall by how long before the end they began.

    Begun one block before the end, the head alone is judged; begun earlier, also whether the world leads to that end,
    which it cannot know where what ends the episode was not yet in view.

    Args:
        ending: rollouts of ``clips`` for at least ``NEAR`` blocks beyond each clip's end.
        clips: each ends with the end of its episode.
        going_on: rollouts of ``others``, whose true episodes go on.
    """
    ends = [clip.future - 1 for clip in clips]
    said = [*ending.terminated, *going_on.terminated]
    figures = judge_termination(said, [*ends, *[None] * len(others)], episodes_of([*clips, *others]))
    begun: dict[int, list[int]] = {}
    for number, clip in enumerate(clips):
        begun.setdefault(clip.future, []).append(number)
    figures["recall_by_blocks_before_end"] = {
        str(future): judge_termination([ending.terminated[i] for i in these], [ends[i] for i in these])["recall"]
        for future, these in sorted(begun.items())
    }
    return figures


def true_termination(readings: Sequence[Reading], episodes: Sequence[Episode]) -> dict[str, Any]:
    """:func:`judge_termination` of whole true episodes."""
    ends = [_blocks_before_end(episode) if episode.terminations[-1] else None for episode in episodes]
    return judge_termination([reading.terminated for reading in readings], ends)


def _blocks_before_end(episode: Episode) -> int:
    """Blocks that an episode's actions lead to, less the one that ends it, if one does."""
    return len(episode.actions) - int(episode.terminations[-1])


def ending_rows(clips: Sequence[Clip], rows_of: Any) -> np.ndarray:
    """Model rows of each ending clip's true actions, the last one held on, ``float32 (N, S, row_dim)``.

    Args:
        clips: of any lengths; ``S`` is the longest and ``NEAR`` blocks more.
        rows_of: actions to rows, ``Modality.rows``.
    """
    steps = max(clip.future for clip in clips) + NEAR
    return np.stack([rows_of(clip.future_actions[np.minimum(np.arange(steps), clip.future - 1)]) for clip in clips])
