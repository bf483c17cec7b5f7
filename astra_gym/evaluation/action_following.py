"""Whether generated frames show the actions that were given: an inverse-dynamics network reads them back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from astra_gym.actions import Modality
from astra_gym.bundles import Bundle
from astra_gym.data.episodes import Episode, read_episodes
from astra_gym.evaluation import camera_pose
from astra_gym.evaluation.fidelity import reconstruct
from astra_gym.evaluation.heldout import Clip, as_start, choose_clips, episodes_of
from astra_gym.evaluation.intervals import estimate
from astra_gym.evaluation.inverse_dynamics import InverseDynamics
from astra_gym.evaluation.rollout import roll
from astra_gym.evaluation.routing import expert_use, routed_as
from astra_gym.world import World

BLOCKS = 9
"""Dreamt blocks of a clip; the action of the last one is not read, since no block follows it."""
LEAST_TRUE = 0.2
"""R² that a number of the action must have on true frames to count: what does not show there cannot be followed."""


def judge_actions(
    bundle: Bundle,
    modality: Modality,
    episodes: Sequence[Episode],
    reader: InverseDynamics,
    clips: int,
    context: int,
    batch: int,
    seed: int,
    others: Sequence[Path] = (),
) -> dict[str, Any]:
    """Read the actions of held-out clips from true frames, from their dreams, and from dreams that get other actions.

    The score of a number is R², 1 less the squared error over the variance; below 0, the mean action would be a better
    guess. Beside the dream stand the true frames, these sent through the autoencoder, and dreams without actions (rows
    of zeros), with another clip's actions, without noise on the history, and with another scenario's experts.

    Args:
        bundle: the world.
        modality: of the scenario.
        episodes: held out.
        reader: trained on true frames of the scenario.
        clips: most clips.
        context: true blocks before the dream.
        batch: worlds rolled at a time.
        seed: of the choice of clips and of the first world.
        others: datasets ``<scenario>/val`` of the world's other scenarios; the first one's experts are swapped in.
            Without any, that dream is left out.
    """
    chosen = choose_clips(episodes, clips, context, BLOCKS, seed)
    given = np.stack([clip.future_actions for clip in chosen])
    made = _variants(bundle, modality, chosen, given, min(batch, len(chosen)), seed, others)
    newest = np.stack([clip.context_blocks[-1:] for clip in chosen])
    said = {name: reader.read(np.concatenate([newest, blocks], 1)) for name, blocks in made.items()}
    commanded, counted = given[:, :-1], np.ones((len(chosen), BLOCKS - 1), bool)
    if modality.name == "camera":
        counted = _free(chosen)
    figures = score(commanded, said, counted, seed, episodes_of(chosen))
    figures |= {"clips": len(chosen), "labels": list(modality.labels)}
    if modality.name == "camera":
        shown = {name: made[name] for name in ("true frames", "autoencoder", "dream")}
        figures["poses"] = camera_pose.judge_poses(chosen, commanded, shown, counted, seed)
    if others:
        figures["swapped_with"] = others[0].parent.name
    return figures


def score(
    commanded: np.ndarray, said: dict[str, np.ndarray], counted: np.ndarray, seed: int, groups: Sequence[int]
) -> dict[str, Any]:
    """R² of every number and their mean, with 95 % intervals from resampled episodes.

    Args:
        commanded: actions ``(N, S, action_dim)``.
        said: by the frames' name, with "true frames" and "dream" among them, the actions read from them.
        counted: ``bool (N, S)``, which blocks count.
        seed: of the intervals.
        groups: of each clip, the number of its episode.

    Returns:
        "r2" by name and number, None where a number is constant; "counts", which numbers reach :data:`LEAST_TRUE` on
        true frames; "mean" over those by name, and "share_of_true", the dream's mean as a share of the true frames',
        both None if no number counts.
    """

    def r2(name: str, clips: np.ndarray) -> np.ndarray:
        return r_squared(said[name][clips][counted[clips]], commanded[clips][counted[clips]])

    everyone = np.arange(len(commanded))
    values = {name: r2(name, everyone) for name in said}
    counts = values["true frames"] >= LEAST_TRUE
    figures: dict[str, Any] = {
        "blocks": int(counted.sum()),
        "least_true": LEAST_TRUE,
        "counts": counts.tolist(),
        "r2": {name: [None if np.isnan(x) else float(x) for x in each] for name, each in values.items()},
        "mean": None,
        "share_of_true": None,
    }
    if counts.any():

        def mean(name: str, clips: np.ndarray) -> float:
            return float(np.nanmean(r2(name, clips)[counts]))

        def share(clips: np.ndarray) -> float:
            return mean("dream", clips) / mean("true frames", clips)

        figures["mean"] = {name: estimate(partial(mean, name), groups, seed) for name in said}
        figures["share_of_true"] = estimate(share, groups, seed)
    return figures


def r_squared(said: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """1 less squared error over variance, for each number of actions ``(n, action_dim)``; NaN where it is constant."""
    error = np.square(said - wanted).sum(0)
    variance = np.square(wanted - wanted.mean(0)).sum(0)
    return np.where(variance > 1e-9, 1 - error / np.maximum(variance, 1e-9), np.nan)


def _variants(
    bundle: Bundle,
    modality: Modality,
    clips: Sequence[Clip],
    actions: np.ndarray,
    batch: int,
    seed: int,
    others: Sequence[Path],
) -> dict[str, np.ndarray]:
    """What follows each clip's newest block, truly and in dreams, ``uint8 (N, BLOCKS, K, H, W, 3)`` by name."""
    name, rows = modality.name, modality.rows(actions)
    world = World(bundle, batch, modality=name)
    quiet = replace(bundle, config=replace(bundle.config, flow=replace(bundle.config.flow, history_noise=0.0)))
    starts = [as_start(world, modality, clip) for clip in clips]

    def dream(
        label: str, rows: np.ndarray, world: World = world, within: Callable[[], AbstractContextManager] = nullcontext
    ) -> np.ndarray:
        return roll(world, starts, rows, seed, f"actions: {label}", within).blocks

    truth = np.stack([clip.future_blocks for clip in clips])
    made = {
        "true frames": truth,
        "autoencoder": reconstruct(world, truth),
        "dream": dream("dream", rows),
        "action hidden": dream("hidden", np.zeros_like(rows)),
        # Clips stand in the episodes' order, so half their number further on there is another episode.
        "shuffled actions": dream("shuffled", np.roll(rows, len(clips) // 2, 0)),
        "no history noise": dream("no history noise", rows, World(quiet, batch, modality=name)),
    }
    if others:
        encoder = bundle.transformer.action_encoder
        swapped = partial(routed_as, encoder, _use_of(bundle, others[0]))
        made["swapped experts"] = dream("swapped experts", rows, within=swapped)
    return made


def _use_of(bundle: Bundle, folder: Path) -> Tensor:
    return expert_use(bundle, bundle.config.modality(folder.parent.name), list(read_episodes(folder)))


def _free(clips: Sequence[Clip]) -> np.ndarray:
    """In which future blocks but the last the simulator's camera moved as commanded, ``bool (N, BLOCKS - 1)``."""
    free = {id(clip.episode): camera_pose.followed(clip.episode) for clip in clips}
    return np.stack([free[id(clip.episode)][clip.now : clip.now + BLOCKS - 1] for clip in clips])
