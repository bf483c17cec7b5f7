"""What an option of the environment costs in fidelity, in dB on held-out scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from astra_gym.bundles import Start
from astra_gym.data.episodes import read_episodes
from astra_gym.evaluation.bench_race import DEFAULT, world_contender
from astra_gym.evaluation.bench_stages import world_of
from astra_gym.evaluation.heldout import as_start, choose_clips
from astra_gym.evaluation.metrics import psnr, squared_error
from astra_gym.evaluation.rollout import roll

if TYPE_CHECKING:
    from astra_gym.evaluation.bench_world import BenchWorldArgs

REFERENCE = "reference, float32"
BATCH = 32


def judge_options(args: BenchWorldArgs, scenario: str, options: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Fidelity with each of the options, with the default settings, and with those in float32, the reference.

    All dream the same clips with the same actions and the same noise.

    Returns:
        By name, at each of ``args.horizons``: ``psnr``, mean over the clips, ``difference`` to the reference's, and
        the ``standard_error`` of that. ``reference`` is its name.
    """
    episodes = list(read_episodes(args.data / scenario / "val"))
    clips = choose_clips(episodes, args.clips, args.context, max(args.horizons), args.seed)
    places = np.array(args.horizons) - 1
    truth = np.stack([clip.future_blocks for clip in clips])[:, places]
    starts: list[Start] = []
    rows = np.zeros(0)
    decibels: dict[str, np.ndarray] = {}
    for name, option in {REFERENCE: {"dtype": "float32"}, DEFAULT: {}, **options}.items():
        envs = world_contender(args.world, scenario, min(BATCH, len(clips)), args.device, option).envs
        world = world_of(envs)
        if not starts:
            modality = world.bundle.config.modality(scenario)
            starts = [as_start(world, modality, clip) for clip in clips]
            rows = modality.rows(np.stack([clip.future_actions for clip in clips]))
        dream = roll(world, starts, rows, args.seed, name)
        decibels[name] = psnr(squared_error(dream.blocks[:, places], truth))
        envs.close()
    judged = {}
    for name, values in decibels.items():
        difference = values - decibels[REFERENCE]
        judged[name] = {
            "psnr": values.mean(0).tolist(),
            "difference": difference.mean(0).tolist(),
            "standard_error": (difference.std(0) / np.sqrt(len(clips))).tolist(),
        }
    return {"horizons": list(args.horizons), "clips": len(clips), "reference": REFERENCE, "options": judged}
