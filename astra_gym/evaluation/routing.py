"""Whether the router routes: which experts each scenario uses, and what it costs to use those of another scenario."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astra_gym.actions import Modality
from astra_gym.bundles import Bundle, Start
from astra_gym.data.episodes import Episode, read_episodes
from astra_gym.evaluation.heldout import as_start, choose_clips
from astra_gym.evaluation.metrics import psnr, squared_error
from astra_gym.evaluation.rollout import roll
from astra_gym.models.action_experts import ActionEncoder
from astra_gym.world import World

CLIPS = 16
AFTER = (1, 4)
"""Blocks ahead at which the cost of swapped experts is measured."""


@dataclass
class _Scenario:
    use: Tensor
    """float32 (experts,): mean weight of each expert over all held-out actions."""
    starts: list[Start]
    rows: np.ndarray
    truth: np.ndarray


@contextmanager
def routed_as(encoder: ActionEncoder, weights: Tensor) -> Iterator[None]:
    """Within this context every action gets the given expert weights ``(experts,)`` instead of the router's."""
    handle = encoder.register_forward_hook(
        lambda module, inputs, routed: routed._replace(weights=weights.to(routed.weights).expand_as(routed.weights))
    )
    try:
        yield
    finally:
        handle.remove()


def judge_routing(bundle: Bundle, data: Path, scenarios: Sequence[str], context: int, seed: int) -> dict[str, Any]:
    """Expert use of each scenario, and how much fidelity is lost with the mean routing of each other one.

    The history is taken in with the scenario's own routing; the swap is of the actions from then on.

    Args:
        bundle: the trained world.
        data: folder with the datasets ``<scenario>/val``.
        scenarios: to compare, at least one.
        context: true blocks before the dream.
        seed: of the choice of clips and of the first world.
    """
    encoder = bundle.transformer.action_encoder
    measured = {name: _measure(bundle, data / name / "val", name, context, seed) for name in scenarios}
    figures: dict[str, Any] = {"experts": encoder.num_experts, "top_k": encoder.top_k, "after": list(AFTER)}
    figures |= {"clips": {}, "use": {}, "swap": {}}
    for name, own in measured.items():
        world = World(bundle, len(own.starts), modality=name)
        quality = {
            other: _quality(world, own, seed, None if other == name else measured[other].use) for other in scenarios
        }
        figures["clips"][name] = len(own.starts)
        figures["use"][name] = own.use.tolist()
        figures["swap"][name] = {
            other: (quality[name] - values).tolist() for other, values in quality.items() if other != name
        }
    return figures


@torch.inference_mode()
def expert_use(bundle: Bundle, modality: Modality, episodes: Sequence[Episode]) -> Tensor:
    """Mean weight of each expert over all actions of the episodes, ``float32 (experts,)``."""
    rows = torch.from_numpy(modality.rows(np.concatenate([episode.actions for episode in episodes])))
    weights = bundle.transformer.action_encoder(
        rows.to(bundle.transformer.device, bundle.transformer.dtype), modality.name
    ).weights
    mean = weights.float().mean(0).cpu()
    return mean / mean.sum()


def _measure(bundle: Bundle, folder: Path, name: str, context: int, seed: int) -> _Scenario:
    modality, episodes = bundle.config.modality(name), list(read_episodes(folder))
    clips = choose_clips(episodes, CLIPS, context, max(AFTER), seed)
    world = World(bundle, modality=name)
    return _Scenario(
        use=expert_use(bundle, modality, episodes),
        starts=[as_start(world, modality, clip) for clip in clips],
        rows=modality.rows(np.stack([clip.future_actions for clip in clips])),
        truth=np.stack([clip.future_blocks for clip in clips]),
    )


def _quality(world: World, scenario: _Scenario, seed: int, weights: Tensor | None) -> np.ndarray:
    """Mean PSNR in dB after each number of blocks in :data:`AFTER`, with the router's weights or with given ones."""
    label = f"routing: {world.modalities[0]}"
    if weights is None:
        blocks = roll(world, scenario.starts, scenario.rows, seed, label).blocks
    else:
        swapped = partial(routed_as, world.bundle.transformer.action_encoder, weights)
        blocks = roll(world, scenario.starts, scenario.rows, seed, label, swapped).blocks
    places = np.array(AFTER) - 1
    return psnr(squared_error(blocks[:, places], scenario.truth[:, places])).mean(0)
