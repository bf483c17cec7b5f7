"""Read Minari datasets of frame blocks, and cache their latents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from tqdm import tqdm

from astra_gym.actions import Modality
from astra_gym.data.storage import open_storage
from astra_gym.files import replacing
from astra_gym.models.autoencoder import BlockAutoencoder, to_model
from astra_gym.precision import computes_in_bf16
from astra_gym.scenarios import Scenario


@dataclass
class Episode:
    """One episode of T steps; ``blocks[i + 1]`` is what ``actions[i]`` led to."""

    seed: int
    blocks: np.ndarray
    """uint8 (T + 1, K, H, W, 3)"""
    actions: np.ndarray
    """float32 (T, action_dim), physical units"""
    rewards: np.ndarray
    """float32 (T,)"""
    terminations: np.ndarray
    """bool (T,)"""


def read_scenario(path: Path, argument: str = "data") -> Scenario:
    """What a dataset in a folder, which ``argument`` names, tells of the environment that it was collected from.

    Raises:
        FileNotFoundError: if there is no dataset.
        ValueError: if a world cannot be learned from its actions.
    """
    metadata = open_storage(path, argument).metadata
    env_id = metadata.get("env_id") or json.loads(metadata.get("env_spec", "{}")).get("id", str(path))
    return Scenario.of(env_id, metadata["action_space"], metadata.get("frames_per_second"))


def longest_episode(path: Path) -> int:
    """Steps of a dataset's longest episode."""
    storage = open_storage(path)
    return max(int(each["total_steps"]) for each in storage.get_episode_metadata(range(storage.total_episodes)))


def read_episodes(path: Path) -> Iterator[Episode]:
    """The episodes of a Minari dataset in order, one in memory at a time."""
    storage = open_storage(path)
    indices = range(storage.total_episodes)
    seeds = [metadata.get("seed", -1) for metadata in storage.get_episode_metadata(indices)]
    for seed, raw in zip(seeds, storage.get_episodes(indices), strict=True):
        yield Episode(
            seed=seed,
            blocks=raw["observations"],
            actions=np.asarray(raw["actions"], np.float32),
            rewards=np.asarray(raw["rewards"], np.float32),
            terminations=np.asarray(raw["terminations"], bool),
        )


def load_blocks(path: Path) -> torch.Tensor:
    """Every block of a dataset in memory, ``uint8 (N, K, H, W, 3)``."""
    return torch.cat([torch.from_numpy(episode.blocks) for episode in tqdm(read_episodes(path), desc=f"read {path}")])


@dataclass
class LatentEpisodes:
    """A dataset as latents: episodes laid end to end, ``offsets[e]`` to ``offsets[e + 1]`` is episode e."""

    latents: torch.Tensor
    """float16 (N, C, h, w)"""
    actions: torch.Tensor
    """float32 (N, action_dim), physical units; the action that led to each block, NaN where there was none"""
    rewards: torch.Tensor
    """float32 (N,)"""
    terminations: torch.Tensor
    """bool (N,)"""
    offsets: torch.Tensor
    """int64 (episodes + 1,)"""
    seeds: torch.Tensor
    """int64 (episodes,)"""

    @property
    def known(self) -> torch.Tensor:
        """bool (N,): whether an action led to the block."""
        return ~self.actions.isnan().any(-1)

    def rows(self, modality: Modality) -> torch.Tensor:
        """The model's rows of the actions, float32 (N, row_dim), zeros where there was none."""
        return torch.from_numpy(modality.rows(self.actions.nan_to_num().numpy())) * self.known[:, None]


@torch.inference_mode()
def encode_blocks(
    autoencoder: BlockAutoencoder, blocks: np.ndarray, batch_size: int = 64, bf16: bool = False
) -> torch.Tensor:
    """uint8 blocks ``(N, K, H, W, 3)`` to float32 latents ``(N, C, h, w)`` on the CPU, if asked computed in bf16."""
    device = autoencoder.device
    latents = []
    for i in range(0, len(blocks), batch_size):
        batch = torch.from_numpy(blocks[i : i + batch_size]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            latents.append(autoencoder.encode(to_model(batch).to(autoencoder.dtype)).float().cpu())
    return torch.cat(latents)


def data_fingerprint(path: Path) -> str:
    """Of all that a dataset's files hold; a gigabyte takes some seconds.

    Raises:
        FileNotFoundError: if there is no dataset.
    """
    open_storage(path)
    digest = hashlib.sha256()
    for part in sorted(each for each in path.rglob("*") if each.is_file()):
        with part.open("rb") as file:
            digest.update(part.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def encoder_fingerprint(autoencoder: BlockAutoencoder) -> str:
    """Of the weights that make latents."""
    digest = hashlib.sha256()
    for name, tensor in sorted(autoencoder.encoder.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def _fingerprint(autoencoder: BlockAutoencoder, path: Path, bf16: bool) -> str:
    """Of what decides a dataset's latents."""
    parts = str(bf16), encoder_fingerprint(autoencoder), data_fingerprint(path)
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:12]


def latent_episodes(path: Path, autoencoder: BlockAutoencoder, bf16: bool | None = None) -> LatentEpisodes:
    """Encode a dataset once; later calls with the same encoder and data read the cache beside it.

    Args:
        path: folder of the dataset.
        autoencoder: to encode with.
        bf16: compute in bfloat16, None where the device has instructions for it.
    """
    path, bf16 = Path(path), computes_in_bf16(autoencoder.device, bf16)
    cache = path.with_name(f"{path.name}.latents-{_fingerprint(autoencoder, path, bf16)}.pt")
    if not cache.exists():
        with FileLock(cache.with_name(f".{cache.name}.lock")):  # of two that want it, one waits for the other
            if not cache.exists():
                _encode(path, autoencoder, bf16, cache)
    return LatentEpisodes(**torch.load(cache, weights_only=True))


def _encode(path: Path, autoencoder: BlockAutoencoder, bf16: bool, cache: Path) -> None:
    """Write the dataset's latents to ``cache``."""
    parts: dict[str, list] = {key: [] for key in ("latents", "actions", "rewards", "terminations")}
    offsets, seeds = [0], []
    total = open_storage(path).total_episodes
    for episode in tqdm(read_episodes(path), total=total, desc=f"encode {path}", unit="episode"):
        steps, dim = episode.actions.shape
        parts["latents"].append(encode_blocks(autoencoder, episode.blocks, bf16=bf16).half())
        parts["actions"].append(np.concatenate([np.full((1, dim), np.nan, np.float32), episode.actions]))
        parts["rewards"].append(np.concatenate([np.zeros(1, np.float32), episode.rewards]))
        parts["terminations"].append(np.concatenate([np.zeros(1, bool), episode.terminations]))
        offsets.append(offsets[-1] + steps + 1)
        seeds.append(episode.seed)
    data = LatentEpisodes(
        latents=torch.cat(parts["latents"]),
        actions=torch.from_numpy(np.concatenate(parts["actions"])),
        rewards=torch.from_numpy(np.concatenate(parts["rewards"])),
        terminations=torch.from_numpy(np.concatenate(parts["terminations"])),
        offsets=torch.tensor(offsets),
        seeds=torch.tensor(seeds),
    )
    with replacing(cache) as unfinished:
        torch.save(vars(data), unfinished)
