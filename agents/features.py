"""Small convolutional networks for stacked frames, cheap enough to learn with on two CPU cores."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn


class BlockFeatures(BaseFeaturesExtractor):
    """The network of Mnih et al. (2015) with half the channels, then a layer whose numbers stay in -1..1.

    Args:
        space: of stacked frames, see :func:`astra_gym.agents.sb3.stack_frames`.
        features_dim: numbers that it gives.
    """

    def __init__(self, space: spaces.Box, features_dim: int = 128):
        super().__init__(space, features_dim)
        channels, height, width = space.shape
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, 16, 8, stride=4),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3),
            nn.ReLU(),
            nn.Flatten(),
        )
        with torch.no_grad():
            size = self.convolutions(torch.zeros(1, channels, height, width)).shape[1]
        self.bounded = nn.Sequential(nn.Linear(size, features_dim), nn.LayerNorm(features_dim), nn.Tanh())

    def forward(self, observations: Tensor) -> Tensor:
        """Features ``(B, features_dim)`` of images ``(B, 3K, H, W)`` in 0..1."""
        return self.bounded(self.convolutions(observations))


class KeypointFeatures(BaseFeaturesExtractor):
    """Where things are, for scenes in which small ones matter: the spatial softmax of Levine et al. (2016, arXiv
    1504.00702) over maps at half the pictures' resolution, then a layer whose numbers stay in -1..1.

    Each map becomes the mean place of what it answers to, and how strongly it does. It looks at the first and the last
    frame alone, and costs some ten times what :class:`BlockFeatures` does.

    Args:
        space: of stacked frames of even height and width, see :func:`astra_gym.agents.sb3.stack_frames`.
        features_dim: numbers that it gives.
        maps: how many things it can look for.
        width: channels of the hidden layers.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, space: spaces.Box, features_dim: int = 128, maps: int = 24, width: int = 32):
        super().__init__(space, features_dim)
        _, height, width_in_pixels = space.shape
        self.convolutions = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * 6, width, 3, padding=1, padding_mode="replicate"),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate"),
            nn.ReLU(),
            nn.Conv2d(width, maps, 3, padding=1, padding_mode="replicate"),
        )
        self.sharpness = nn.Parameter(torch.ones(maps, 1, 1))
        self.register_buffer("rows", torch.linspace(-1, 1, height // 2), persistent=False)
        self.register_buffer("columns", torch.linspace(-1, 1, width_in_pixels // 2), persistent=False)
        self.bounded = nn.Sequential(nn.Linear(3 * maps, features_dim), nn.LayerNorm(features_dim), nn.Tanh())

    def forward(self, observations: Tensor) -> Tensor:
        """Features ``(B, features_dim)`` of images ``(B, 3K, H, W)`` in 0..1."""
        ends = torch.cat([observations[:, :3], observations[:, -3:]], 1) - 0.5
        answers = self.sharpness * F.instance_norm(self.convolutions(ends))
        likely = answers.flatten(2).softmax(-1).view_as(answers)
        down, right = (likely.sum(3) * self.rows).sum(2), (likely.sum(2) * self.columns).sum(2)
        strength = answers.amax((2, 3)) / 8  # of about the size of the places
        return self.bounded(torch.cat([down, right, strength], 1))


EYES: dict[str, type[BaseFeaturesExtractor]] = {"blocks": BlockFeatures, "keypoints": KeypointFeatures}
"""By their names in the settings."""
