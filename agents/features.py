"""A small convolutional network for stacked frames, cheap enough to learn with on two CPU cores."""

from __future__ import annotations

import torch
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
