"""What becomes of a world that lives on its own history: does it keep its sharpness and its colours?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from astra_gym.actions import Modality
from astra_gym.data.episodes import Episode
from astra_gym.evaluation.fidelity import reconstruct
from astra_gym.evaluation.heldout import Clip, as_start
from astra_gym.evaluation.metrics import fine_detail, gradient_magnitude
from astra_gym.evaluation.pictures import save_grid
from astra_gym.world import World

WINDOW = 8
"""A measure "after n blocks" is the mean over the blocks n - 7 to n: what single frames show differs too much."""
STRIP = (1, 25, 125, 250, 500, 1000)
"""Blocks in the picture; four frames a block."""
SHOWN = 8
"""Worlds in the picture."""

Measures = dict[str, Callable[[np.ndarray], Any]]
"""Of frames ``uint8 (..., H, W, 3)``, by name."""


def colour(frames: np.ndarray) -> dict[str, list[float]]:
    """Mean and standard deviation of red, green and blue."""
    values = frames.reshape(-1, 3)
    return {"mean": values.mean(0).round(2).tolist(), "std": values.std(0).round(2).tolist()}


def _mean(measure: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], float]:
    return lambda frames: float(measure(frames).mean())


MEASURES: Measures = {"gradient": _mean(gradient_magnitude), "detail": _mean(fine_detail), "colour": colour}
"""Of any scenario."""


def judge_drift(
    world: World,
    modality: Modality,
    clips: Sequence[Clip],
    episodes: Sequence[Episode],
    horizons: Sequence[int],
    seed: int,
    output: Path,
) -> dict[str, Any]:
    """Let worlds run on with the actions of held-out episodes, and compare with true frames.

    Each world goes on with the actions of its own episode, and then with those of the episodes after it. So long as all
    their own episodes last, the true frames are those of the same moments; after that, all that those episodes show.

    Args:
        world: of as many worlds as there are clips.
        modality: of the scenario.
        clips: the beginning of each world.
        episodes: held out.
        horizons: blocks after which to measure.
        seed: of the first world.
        output: folder for the picture.
    """
    world.reset([as_start(world, modality, clip) for clip in clips], [seed + number for number in range(len(clips))])
    rows = modality.rows(np.stack([actions_from(clip, episodes, max(horizons)) for clip in clips]))
    steps = tqdm(rows.swapaxes(0, 1), unit="block", desc=f"drift: {modality.name}", leave=False)
    dreamt = np.stack([world.step(each).frames[:, -1] for each in steps], 1)
    save_strip(output / f"drift_{modality.name}.png", dreamt, "Held-out actions on the world's own history")
    own = [clip.episode for clip in clips]
    shown = np.concatenate([episode.blocks[1:, -1] for episode in own])
    truth = []
    for horizon in horizons:
        lasts = all(clip.now + horizon < len(clip.episode.blocks) for clip in clips)
        moments = [clip.episode.blocks[window(horizon, clip.now + 1), -1] for clip in clips]
        truth.append(np.concatenate(moments) if lasts else shown)
    return against_truth(world, dreamt, truth, own, horizons, MEASURES)


def actions_from(clip: Clip, episodes: Sequence[Episode], count: int) -> np.ndarray:
    """``count`` actions: those of a clip's episode from its newest block on, then those of the episodes after it."""
    place = next(i for i, episode in enumerate(episodes) if episode is clip.episode)
    parts, length = [clip.episode.actions[clip.now :]], len(clip.episode.actions) - clip.now
    while length < count:
        place = (place + 1) % len(episodes)
        parts.append(episodes[place].actions)
        length += len(parts[-1])
    return np.concatenate(parts)[:count]


def window(horizon: int, first: int = 0) -> slice:
    """The blocks over which a measure after ``horizon`` blocks is taken, where ``first`` is the place of the first."""
    return slice(first + max(0, horizon - WINDOW), first + horizon)


def course(frames: np.ndarray, horizons: Sequence[int], measures: Measures) -> dict[str, list]:
    """Each measure of the newest frames ``(N, S, H, W, 3)`` in the window up to each horizon."""
    return {name: [measure(frames[:, window(horizon)]) for horizon in horizons] for name, measure in measures.items()}


def against_truth(
    world: World,
    dreamt: np.ndarray,
    truth: Sequence[np.ndarray],
    episodes: Sequence[Episode],
    horizons: Sequence[int],
    measures: Measures,
) -> dict[str, Any]:
    """The course of the measures in a dream, and its sharpness and detail as shares of those of true frames.

    Sharpness is the mean gradient magnitude, detail the mean Laplacian.

    Args:
        world: for its autoencoder.
        dreamt: newest frames ``uint8 (N, S, H, W, 3)``.
        truth: true frames ``uint8 (n, H, W, 3)`` to compare with at each horizon.
        episodes: of whose blocks some are sent through the autoencoder alone.
        horizons: blocks after which to measure.
        measures: those of :data:`MEASURES` and others.
    """
    seen = course(dreamt, horizons, measures)
    true = {name: [measure(frames) for frames in truth] for name, measure in MEASURES.items()}
    sample = np.concatenate([episode.blocks[1::16] for episode in episodes])
    decoded, sample = reconstruct(world, sample[None])[0, :, -1], sample[:, -1]
    return {
        "blocks": list(horizons),
        "window_blocks": WINDOW,
        "worlds": len(dreamt),
        "gradient_true": true["gradient"],
        "detail_true": true["detail"],
        "colour_true": true["colour"],
        "autoencoder_ratio_to_true": MEASURES["gradient"](decoded) / MEASURES["gradient"](sample),
        "autoencoder_detail_ratio_to_true": MEASURES["detail"](decoded) / MEASURES["detail"](sample),
        "ratio_to_true": [a / b for a, b in zip(seen["gradient"], true["gradient"], strict=True)],
        "detail_ratio_to_true": [a / b for a, b in zip(seen["detail"], true["detail"], strict=True)],
        "dream": seen,
    }


def save_strip(path: Path, frames: np.ndarray, title: str) -> None:
    """A picture of newest frames ``(N, S, H, W, 3)``, a row for each of the first worlds."""
    frames, blocks = frames[:SHOWN], [block for block in STRIP if block <= frames.shape[1]]
    save_grid(
        path,
        frames[:, [block - 1 for block in blocks]],
        [f"world {number + 1}" for number in range(len(frames))],
        [f"frame {4 * block}" for block in blocks],
        title,
    )
