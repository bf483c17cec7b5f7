"""Packed history: the newest 20 latent frames squeezed into few tokens, in the slots that the released weights expect.

Slots are ``[start | 16 at 4x | 2 at 2x | newest at 1x]``, filled from the right; the new frames follow. In the sequence
of tokens the order is 4x, 2x, start, newest, new frames.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOTS = 20
"""Latent frames of history that the model sees."""
FAR, NEAR = range(1, 17), range(17, 19)
"""The slots compressed 4x and 2x."""
KERNELS = {"proj_4x": (4, 8, 8), "proj_2x": (2, 4, 4), "proj": (1, 2, 2)}
"""Latents that make one token, in time, height and width, for each of the embeddings."""


class Group(NamedTuple):
    """Consecutive tokens of one compression."""

    embedding: str
    """Key of :data:`KERNELS`."""
    frames: tuple[int | None, ...]
    """For each slot its frame, counted from the window's first; None for an empty slot."""
    times: tuple[int, ...]
    """Time index of each compressed frame."""
    rows: tuple[int | None, ...]
    """Row of the window's actions that each compressed frame takes; None for none."""


class Packing(NamedTuple):
    """Where history and new frames go."""

    first: int
    """History's first frame in the window."""
    window: int
    """Frames of history in the window; its action rows are these and the new frames'."""
    groups: tuple[Group, ...]
    """History, in the order of the sequence."""
    new_times: tuple[int, ...]
    """Time index of each new frame."""


@lru_cache(maxsize=256)
def plan_packing(history: int, new: int) -> Packing:
    """The packing of ``history`` latent frames followed by ``new`` ones.

    Raises:
        ValueError: if either is less than one.
    """
    if history < 1 or new < 1:
        raise ValueError(f"history, new: got {history} and {new} latent frames, at least 1 of each is needed")
    first, window = max(history - SLOTS, 0), min(history, SLOTS)
    empty = SLOTS - window
    groups = []
    for name, slots in (("proj_4x", FAR), ("proj_2x", NEAR)):
        valid = [slot for slot in slots if slot >= empty]
        if not valid:
            continue
        compressed = range(len(slots) // KERNELS[name][0])
        groups.append(
            Group(
                name,
                tuple(slot - empty if slot >= empty else None for slot in slots),
                tuple(first + valid[min(j, len(valid) - 1)] for j in compressed),
                tuple(valid[j] - empty if j < len(valid) else None for j in compressed),
            )
        )
    # The newest frame takes the action of the frame after it: the weights were trained so.
    full = Group("proj", (0, window - 1), (first + empty, first + SLOTS - 1), (0, window))
    return Packing(first, window, (*groups, full), tuple(first + SLOTS + i for i in range(new)))


def window_rows(rows: Tensor, history: int, new: int) -> Tensor:
    """The action rows that the model sees.

    Args:
        rows: of the whole episode, ``(..., at least history + new, row_dim)``, one a latent frame; the last column is
            replaced: 1 for history, 0 for new frames.
        history, new: latent frames.

    Returns:
        ``(..., window + new, row_dim)``.
    """
    if rows.shape[-2] < history + new:
        raise ValueError(f"rows: got {rows.shape[-2]}, {history} for history and {new} for new frames are needed")
    first = max(history - SLOTS, 0)
    seen = rows[..., first : history + new, :].clone()
    seen[..., : history - first, -1] = 1
    seen[..., history - first :, -1] = 0
    return seen


class HistoryEmbedding(nn.Module):
    """Three convolutions without overlap that turn history into tokens."""

    def __init__(self, in_channels: int, dim: int):
        super().__init__()
        for name, kernel in KERNELS.items():
            self.add_module(name, nn.Conv3d(in_channels, dim, kernel, stride=kernel))

    def forward(self, history: Tensor, packing: Packing) -> Tensor:
        """Latents ``(B, T, C, H, W)`` of all of history to tokens ``(B, M, dim)``."""
        window = history[:, packing.first :]
        slots = torch.cat([window, torch.zeros_like(window[:, :1])], 1)  # the last stands for an empty slot
        tokens = []
        for group in packing.groups:
            latents = slots[:, [packing.window if frame is None else frame for frame in group.frames]].transpose(1, 2)
            _, height, width = KERNELS[group.embedding]
            padding = (0, -latents.shape[-1] % width, 0, -latents.shape[-2] % height, 0, 0)
            embedded = self.get_submodule(group.embedding)(F.pad(latents, padding, mode="replicate"))
            tokens.append(embedded.flatten(2).transpose(1, 2))
        return torch.cat(tokens, 1)


@lru_cache(maxsize=32)
def token_layout(packing: Packing, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Rotary positions and action rows of all tokens.

    Args:
        packing: of history and new frames.
        height, width: of the latents.

    Returns:
        Positions in time, height, width ``float64 (N, 3)``, and rows of the window's actions ``int64 (N,)``; tokens
        without an action have the row after the last.
    """
    new = len(packing.new_times)
    new_rows = tuple(range(packing.window, packing.window + new))
    parts = [(KERNELS[group.embedding], group.times, group.rows) for group in packing.groups]
    positions, rows = [], []
    for kernel, times, group_rows in [*parts, (KERNELS["proj"], packing.new_times, new_rows)]:
        grid = (-(-height // kernel[1]), -(-width // kernel[2]))
        axes = [torch.tensor(times, dtype=torch.float64), *(torch.arange(side, dtype=torch.float64) for side in grid)]
        positions.append(torch.cartesian_prod(*axes))
        row = torch.tensor([packing.window + new if row is None else row for row in group_rows])
        rows.append(row.repeat_interleave(grid[0] * grid[1]))
    return torch.cat(positions), torch.cat(rows)
