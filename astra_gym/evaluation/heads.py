"""Whether reward and termination, read from what the world generated, are those of the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from astra_gym.evaluation.heldout import Clip
from astra_gym.evaluation.metrics import correlation
from astra_gym.evaluation.rollout import Rollout

SUMMED_BLOCKS = 8
NEAR = 2
"""A termination within this many blocks of the true one is a hit."""


def judge_reward(rollout: Rollout, clips: Sequence[Clip]) -> dict[str, Any]:
    """Compare the rewards of dreamt blocks with the true ones; no block of the clips ends an episode.

    Returns:
        Pearson correlations over clips and blocks (the first 8 and all), and of the sum over the first 8 blocks; means.
    """
    truth = np.stack([clip.future_rewards for clip in clips])
    near, true_near = rollout.rewards[:, :SUMMED_BLOCKS], truth[:, :SUMMED_BLOCKS]
    return {
        "correlation_per_block": correlation(near, true_near),
        "correlation_per_block_all": correlation(rollout.rewards, truth),
        "correlation_of_sums": correlation(near.sum(1), true_near.sum(1)),
        "summed_blocks": SUMMED_BLOCKS,
        "mean": float(rollout.rewards.mean()),
        "true_mean": float(truth.mean()),
    }


def judge_termination(ending: Rollout, clips: Sequence[Clip], going_on: Rollout) -> dict[str, Any]:
    """Precision and recall of termination over whole rollouts, and recall by how long before the end they began.

    Begun one block before the end, the head alone is judged; begun earlier, also whether the world leads to that end,
    which it cannot know where what ends the episode was not yet in view. A rollout whose true episode ends is a hit if
    its first termination lies within two blocks of the true one. An earlier one, or any in a rollout whose true episode
    goes on, is a false alarm.

    Args:
        ending: rollouts of ``clips`` for at least ``NEAR`` blocks beyond each clip's end.
        clips: each ends with the end of its episode.
        going_on: rollouts whose true episodes go on.
    """
    hits = alarms = 0
    found: dict[int, list[bool]] = {}
    for clip, terminated in zip(clips, ending.terminated, strict=True):
        predicted = np.flatnonzero(terminated[: clip.future + NEAR])
        hit = len(predicted) > 0 and bool(predicted[0] >= clip.future - 1 - NEAR)
        hits, alarms = hits + int(hit), alarms + int(len(predicted) > 0 and not hit)
        found.setdefault(clip.future, []).append(hit)
    false_alarms = int(going_on.terminated.any(1).sum())
    reported = hits + alarms + false_alarms
    return {
        "precision": hits / reported if reported else None,
        "recall": hits / len(clips) if len(clips) else None,
        "recall_by_blocks_before_end": {str(future): float(np.mean(hit)) for future, hit in sorted(found.items())},
        "endings": len(clips),
        "hits": hits,
        "false_alarms": alarms + false_alarms,
        "rollouts": len(clips) + len(going_on.terminated),
        "tolerance_blocks": NEAR,
    }


def ending_rows(clips: Sequence[Clip], rows_of: Any) -> np.ndarray:
    """Model rows of each ending clip's true actions, the last one held on, ``float32 (N, S, row_dim)``.

    Args:
        clips: of any lengths; ``S`` is the longest and ``NEAR`` blocks more.
        rows_of: actions to rows, ``Modality.rows``.
    """
    steps = max(clip.future for clip in clips) + NEAR
    return np.stack([rows_of(clip.future_actions[np.minimum(np.arange(steps), clip.future - 1)]) for clip in clips])
