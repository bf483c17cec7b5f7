"""How every place of a picture moves from one frame to another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 4
"""Sizes at which motion is sought, each half of the next: large motion is found in small pictures and then refined."""
WINDOW = 15
"""Side in pixels of the square that is taken to move as one: large, since much of the pictures is bare."""
_DOUBT = 4.0
"""Squared grey levels a pixel: gradients weaker than this tell little, and motion there stays that of the surround."""


def optical_flow(first: Tensor, second: Tensor) -> Tensor:
    """Motion from one frame to the other by the method of Lucas and Kanade, coarse to fine.

    Args:
        first: grey frames ``(B, H, W)``, sides multiples of 8, in grey levels.
        second: the frames shortly after them.

    Returns:
        ``float32 (B, 2, H, W)``: pixels to the right and down by which each place of the first frame moves.
    """
    pairs = [torch.stack([first, second], 1).float()]
    for _ in range(LEVELS - 1):
        pairs.append(F.avg_pool2d(pairs[-1], 2))
    flow = torch.zeros(len(first), 2, *pairs[-1].shape[-2:], device=first.device)
    for pair in reversed(pairs):
        if flow.shape[-1] != pair.shape[-1]:
            flow = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=False)
        flow = flow + _correction(pair[:, :1], _moved_back(pair[:, 1:], flow))
    return flow


def _correction(before: Tensor, after: Tensor) -> Tensor:
    """The small motion ``(B, 2, H, W)`` between frames ``(B, 1, H, W)`` that explains most of their difference."""
    mean = F.pad((before + after) / 2, (1, 1, 1, 1), mode="replicate")
    right = (mean[:, :, 1:-1, 2:] - mean[:, :, 1:-1, :-2]) / 2
    down = (mean[:, :, 2:, 1:-1] - mean[:, :, :-2, 1:-1]) / 2
    change = after - before
    products = torch.cat([right * right, down * down, right * down, right * change, down * change], 1)
    xx, yy, xy, xt, yt = F.avg_pool2d(products, WINDOW, 1, WINDOW // 2, count_include_pad=False).split(1, 1)
    xx, yy = xx + _DOUBT, yy + _DOUBT
    determinant = xx * yy - xy * xy
    motion = torch.cat([xy * yt - yy * xt, xy * xt - xx * yt], 1) / determinant
    return motion.clamp(-1, 1)


def _moved_back(frames: Tensor, flow: Tensor) -> Tensor:
    """Frames ``(B, 1, H, W)`` read at the places to which ``flow`` leads."""
    height, width = frames.shape[-2:]
    rows = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    columns = torch.arange(width, device=flow.device) + flow[:, 0]
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], -1)
    return F.grid_sample(frames, grid, padding_mode="border", align_corners=False)
