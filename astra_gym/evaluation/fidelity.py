"""How close the world stays to what really happened, against the number of blocks it has dreamt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from astra_gym.bundles import Start
from astra_gym.evaluation.heldout import Clip, episodes_of
from astra_gym.evaluation.intervals import estimate_mean
from astra_gym.evaluation.metrics import gradient_magnitude, psnr, squared_error, ssim
from astra_gym.evaluation.rollout import Rollout, roll
from astra_gym.world import World


@dataclass
class Fidelity:
    """The figures, and the default world's rollout for whatever else can be read from it."""

    figures: dict[str, Any]
    rollout: Rollout


def judge_fidelity(
    worlds: dict[int, World],
    default: int,
    clips: Sequence[Clip],
    starts: Sequence[Start],
    rows: np.ndarray,
    horizons: Sequence[int],
    seed: int,
) -> Fidelity:
    """Roll held-out clips with their true actions and compare every block with the true frames.

    Beside the world stand three baselines: the last true context frame repeated; the world driven by another clip's
    actions (the default number of steps); and the autoencoder's reconstruction of the true frames, the ceiling.

    Args:
        worlds: by their number of denoising steps, of the clips' scenario.
        default: the number of steps at which the world is used.
        clips: in the episodes' order, each with the same number of future blocks.
        starts: of the clips.
        rows: of their future actions, ``float32 (N, S, row_dim)``.
        horizons: blocks ahead at which the measures are taken, each at most ``S``.
        seed: of the first clip's world.
    """
    truth = np.stack([clip.future_blocks for clip in clips])
    rollouts = {steps: roll(world, starts, rows, seed, f"{steps} steps") for steps, world in worlds.items()}
    # Clips stand in the episodes' order, so half their number further on there is another episode.
    other = np.roll(np.arange(len(clips)), len(clips) // 2)
    shuffled = roll(worlds[default], starts, rows[other], seed, "shuffled actions")
    last = np.stack([clip.context_blocks[-1, -1] for clip in clips])
    variants = {name_of(steps): rollout.blocks for steps, rollout in rollouts.items()} | {
        "copy last": np.broadcast_to(last[:, None, None], truth.shape),
        "shuffled actions": shuffled.blocks,
        "autoencoder": reconstruct(worlds[default], truth),
    }
    figures: dict[str, Any] = {"horizons": list(horizons), "clips": len(clips), "default": name_of(default)}
    for measure in ("psnr", "psnr_interval", "ssim", "sharpness"):
        figures[measure] = {}
    episodes = episodes_of(clips)
    places = np.array(horizons) - 1
    true_gradient = gradient_magnitude(truth[:, places]).mean((0, 2))
    for name, blocks in tqdm(variants.items(), desc="compare", leave=False):
        decibels = psnr(squared_error(blocks[:, places], truth[:, places]))
        estimates = [estimate_mean(each, seed, groups=episodes) for each in decibels.T]
        figures["psnr"][name] = [each["value"] for each in estimates]
        figures["psnr_interval"][name] = [each["interval"] for each in estimates]
        figures["sharpness"][name] = (gradient_magnitude(blocks[:, places]).mean((0, 2)) / true_gradient).tolist()
        figures["ssim"][name] = [float(ssim(blocks[:, place], truth[:, place]).mean()) for place in places]
    return Fidelity(figures, rollouts[default])


def name_of(steps: int) -> str:
    """What a world with ``steps`` denoising steps is called in figures."""
    return f"world, {steps} step" + ("s" if steps > 1 else "")


def reconstruct(world: World, blocks: np.ndarray) -> np.ndarray:
    """Blocks ``uint8 (N, S, K, H, W, 3)`` through the autoencoder and back."""
    frames = blocks.reshape(len(blocks), -1, *blocks.shape[-3:])
    return np.stack([world.decode(world.encode(video)) for video in frames])
