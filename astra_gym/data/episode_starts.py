"""Every moment of collected episodes as a start, beside the few of a bundle's bank."""

from __future__ import annotations

from pathlib import Path

import torch

from astra_gym.actions import Modality
from astra_gym.bundles import Bundle, Start
from astra_gym.data.episodes import LatentEpisodes, latent_episodes, read_scenario


class EpisodeStarts:
    """The moments of a dataset's episodes as starts, in their order; used as :class:`astra_gym.bundles.StartBank` is.

    An episode's last block is none if it ended there. Early in an episode the world has less to remember.

    Args:
        data: the dataset as latents.
        modality: of its actions.
        length: blocks that a start remembers at most.
    """

    def __init__(self, data: LatentEpisodes, modality: Modality, length: int):
        self._data, self._rows, self._length = data, data.rows(modality), length
        self._places = torch.nonzero(~data.terminations).flatten()

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Start:
        data, now = self._data, int(self._places[index])
        episode = int(torch.searchsorted(data.offsets, now, right=True)) - 1
        first = int(data.offsets[episode])
        remembered = slice(max(first, now + 1 - self._length), now + 1)
        return Start(
            latents=data.latents[remembered].float(),
            rows=self._rows[remembered],
            sim_seed=int(data.seeds[episode]),
            sim_actions=data.actions[first + 1 : now + 1].numpy(),
            index=index,
        )


def load_episode_starts(path: str | Path, bundle: Bundle, modality: Modality) -> EpisodeStarts:
    """The starts of the Minari dataset in a folder; its latents are made once and kept beside it.

    Raises:
        FileNotFoundError: if there is no dataset.
        ValueError: if its actions are not those of the modality.
    """
    collected, space = read_scenario(Path(path), "starts"), modality.action_space
    if (collected.low, collected.high) != (tuple(space.low.tolist()), tuple(space.high.tolist())):
        raise ValueError(
            f"starts: {str(path)!r} was collected from {collected.env} with actions from {collected.low} to "
            f"{collected.high}, allowed are those of {modality.name}, from {space.low} to {space.high}"
        )
    memory = bundle.transformer.config
    return EpisodeStarts(
        latent_episodes(Path(path), bundle.autoencoder), modality, memory.window + memory.summary_window
    )
