"""Random clips of latent episodes, of one scenario and of several together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from astra_gym.actions import Modality
from astra_gym.data.episodes import LatentEpisodes
from astra_gym.training.parallel import Draws


class ClipSampler:
    """Random clips of a dataset's episodes.

    Args:
        data: the dataset as latents.
        modality: of its actions.
        frames: latent frames a clip; shorter episodes are left out.

    Raises:
        ValueError: if no episode is that long.
    """

    def __init__(self, data: LatentEpisodes, modality: Modality, frames: int):
        self.data, self.modality, self.frames = data, modality, frames
        self.known, self.rows = data.known, data.rows(modality)
        starts = [
            torch.arange(first, last - frames + 1)
            for first, last in zip(data.offsets[:-1].tolist(), data.offsets[1:].tolist(), strict=True)
            if last - first >= frames
        ]
        if not starts:
            raise ValueError(f"clip_frames: no episode has {frames} blocks")
        self.starts = torch.cat(starts)
        lengths = data.offsets.diff()
        self.usual_length = int(lengths[lengths >= frames].median())
        """Latent frames that half of the episodes that are long enough have, or more."""
        total = data.rewards.double().cumsum(0)
        rewards = total[self.starts + frames - 1] - total[self.starts]
        good = self.starts[rewards > rewards.mean()]
        self.good_starts = good if len(good) else self.starts
        ends = data.terminations.long().cumsum(0)
        ending = self.starts[ends[self.starts + frames - 1] > ends[self.starts]]
        self.ending_starts = ending if len(ending) else self.starts

    def draw(
        self,
        place: Tensor,
        kind: Tensor,
        device: torch.device | str,
        good_share: float = 0.0,
        ending_share: float = 0.0,
    ):
        """Clips as tensors ``(B, frames, ...)`` on ``device``, from B pairs of random numbers in [0, 1).

        ``good_share`` of them come from those with more reward than the mean clip, ``ending_share`` from those that end
        an episode, the others from all.
        """
        first = _pick(self.starts, place)
        first = torch.where(kind < good_share, _pick(self.good_starts, place), first)
        first = torch.where(kind >= 1 - ending_share, _pick(self.ending_starts, place), first)
        return self.at(first, device)

    def at(self, first: Tensor, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """The clips that begin at the given places."""
        index = first[:, None] + torch.arange(self.frames)
        return {
            "latents": self.data.latents[index].to(device).float(),
            "rows": self.rows[index].to(device),
            "known": self.known[index].to(device),
            "rewards": self.data.rewards[index].to(device),
            "terminations": self.data.terminations[index].to(device),
        }


def _pick(starts: Tensor, place: Tensor) -> Tensor:
    return starts[(place * len(starts)).long()]


def draw_jointly(
    samplers: dict[str, ClipSampler],
    count: int,
    draws: Draws,
    good_share: float,
    ending_share: float,
    weights: Mapping[str, float],
) -> dict[str, Any]:
    """``count`` clips, each of a scenario drawn by chance: tensors as :meth:`ClipSampler.draw` has them, rows padded
    with zeros at the end, and ``scenarios``, a name for each clip. A scenario not in ``weights`` has weight 1."""
    scenario, place, kind = draws.rand((count, 3), torch.float64).cpu().unbind(1)
    shares = torch.tensor([weights.get(name, 1.0) for name in samplers], dtype=torch.float64)
    which = torch.searchsorted((shares / shares.sum()).cumsum(0)[:-1], scenario.contiguous(), right=True)
    counts = which.bincount(minlength=len(samplers)).tolist()
    parts = [
        sampler.draw(place[which == i], kind[which == i], draws.device, good_share, ending_share)
        for i, (sampler, number) in enumerate(zip(samplers.values(), counts, strict=True))
        if number
    ]
    width = max(part["rows"].shape[-1] for part in parts)
    for part in parts:
        part["rows"] = F.pad(part["rows"], (0, width - part["rows"].shape[-1]))
    clips: dict[str, Any] = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    clips["scenarios"] = [name for name, number in zip(samplers, counts, strict=True) for _ in range(number)]
    return clips
