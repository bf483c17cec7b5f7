"""A small network that reads from frames which action made them, learned from true frames alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from astra_gym.data.episodes import Episode, data_fingerprint, read_episodes
from astra_gym.evaluation.flow import optical_flow
from astra_gym.evaluation.metrics import luminance
from astra_gym.files import replacing

SEEN = 3
"""Blocks that the network looks at: the one before the action's, the action's own and the one after it, in which slow
effects such as a car's acceleration show."""
BATCH = 64
RATE = 3e-3
"""Of learning, at its highest."""
_AT_A_TIME = 128
"""Blocks whose motion is computed together."""

Followed = Callable[[Episode], np.ndarray]
"""Of an episode: in which blocks the simulator did what the action says, ``bool (T,)``."""


@dataclass
class Examples:
    """Blocks of true episodes end to end, and the places in them at which an action can be read."""

    seen: Tensor
    """float16 (N, 3, H / 2, W / 2), see :func:`look`"""
    places: Tensor
    """int64 (M,), of the actions' blocks; the blocks before and after them belong to the same episode"""
    actions: Tensor
    """float32 (M, action_dim), physical units"""


class InverseDynamics(nn.Module):
    """Actions from what is seen in three blocks in a row, scaled by mean and deviation of the training actions.

    Args:
        action_dim: numbers in an action.
        size: side of what is seen of a block, a multiple of 8.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, action_dim: int, size: int = 32):
        super().__init__()
        widths = (SEEN * 3, 32, 64, 96, 128)
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
            layers += [nn.Conv2d(before, after, 3, 2 if number else 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        places = (size // 8) ** 2
        self.net = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(widths[-1] * places, 128),
            nn.ReLU(),
            nn.Linear(128, action_dim),
        )
        self.register_buffer("mean", torch.zeros(action_dim))
        self.register_buffer("deviation", torch.ones(action_dim))

    def forward(self, seen: Tensor) -> Tensor:
        """What is seen of blocks, ``(B, SEEN, 3, H / 2, W / 2)``, to scaled actions ``float32 (B, action_dim)``."""
        return self.net(seen.flatten(1, 2).float())

    @torch.inference_mode()
    def read(self, blocks: np.ndarray) -> np.ndarray:
        """The actions that led to all but the first and the last of the blocks in a row.

        Args:
            blocks: ``uint8 (N, S, K, H, W, 3)``, at least ``SEEN`` in a row.

        Returns:
            ``float32 (N, S - 2, action_dim)`` in physical units.
        """
        said = []
        for row in blocks:
            windows = look(row).unfold(0, SEEN, 1).movedim(-1, 1)
            said.append((self(windows) * self.deviation + self.mean).numpy())
        return np.stack(said)


@torch.inference_mode()
def look(blocks: np.ndarray) -> Tensor:
    """What the network sees of blocks ``uint8 (N, K, H, W, 3)``.

    Returns:
        ``float16 (N, 3, H / 2, W / 2)``: motion to the right and down from a block's first to its last frame, in
        pixels, and the luminance of the last one.
    """
    seen = []
    for some in np.array_split(blocks, -(-len(blocks) // _AT_A_TIME)):
        first, last = (torch.from_numpy(luminance(some[:, place])) for place in (0, -1))
        picture = torch.cat([optical_flow(first, last), last[:, None] / 64 - 2], 1)
        seen.append(F.avg_pool2d(picture, 2).half())
    return torch.cat(seen)


def gather(episodes: Iterable[Episode], most: int, followed: Followed | None = None) -> Examples:
    """The examples of the first episodes, until ``most`` blocks are read.

    Args:
        episodes: in any order.
        most: blocks.
        followed: which blocks to take; None for all.
    """
    seen, places, actions, count = [], [], [], 0
    with tqdm(total=most, unit="block", desc="true frames", leave=False) as bar:
        for episode in episodes:
            usable = np.arange(1, len(episode.actions))  # blocks with one before and one after them
            if followed is not None:
                usable = usable[followed(episode)[usable - 1]]
            seen.append(look(episode.blocks))
            places.append(torch.from_numpy(count + usable))
            actions.append(torch.from_numpy(episode.actions[usable - 1]))
            count += len(episode.blocks)
            bar.update(len(episode.blocks))
            if count >= most:
                break
    return Examples(torch.cat(seen), torch.cat(places), torch.cat(actions))


def learn(examples: Examples, steps: int, seed: int) -> InverseDynamics:
    """Train the network on the CPU.

    Args:
        examples: of true episodes.
        steps: batches of 64.
        seed: of the weights, the order and the dropout.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _learn(examples, steps)


def _learn(examples: Examples, steps: int) -> InverseDynamics:
    model = InverseDynamics(examples.actions.shape[1], examples.seen.shape[-1])
    model.mean.copy_(examples.actions.mean(0))
    model.deviation.copy_(examples.actions.std(0).clamp_min(1e-6))
    wanted = (examples.actions - model.mean) / model.deviation
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, 5 * (step + 1) / steps) * (1 + math.cos(math.pi * step / steps)) / 2
    )
    window = torch.arange(SEEN) - SEEN // 2
    for _ in tqdm(range(steps), unit="step", desc="inverse dynamics", leave=False):
        chosen = torch.randint(len(examples.places), (BATCH,))
        seen = examples.seen[examples.places[chosen, None] + window]
        loss = F.smooth_l1_loss(model(seen), wanted[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def trained(
    folder: Path, cache: Path, blocks: int, steps: int, seed: int, followed: Followed | None = None
) -> InverseDynamics:
    """The network for a dataset of true episodes, from ``cache`` if the same one was trained before.

    Args:
        folder: of the Minari dataset.
        cache: file of the network; replaced by a new one if it is of other data or arguments.
        blocks: most blocks to learn from.
        steps: batches of 64.
        seed: of the training.
        followed: as for :func:`gather`.
    """
    key = f"{data_fingerprint(folder)} {blocks} {steps} {seed}"
    if cache.exists():
        saved = torch.load(cache, weights_only=True)
        if saved["key"] == key:
            model = InverseDynamics(saved["action_dim"], saved["size"])
            model.load_state_dict(saved["weights"])
            return model.eval()
    examples = gather(read_episodes(folder), blocks, followed)
    model = learn(examples, steps, seed)
    saved = {"key": key, "action_dim": examples.actions.shape[1], "size": examples.seen.shape[-1]}
    with replacing(cache) as unfinished:
        torch.save(saved | {"weights": model.state_dict()}, unfinished)
    return model
