"""A small convolutional network for stacked frames, cheap enough for SAC on two CPU cores."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn


def shift_randomly(images: Tensor, pad: int) -> Tensor:
    """Images ``(B, C, H, W)``, each moved by up to ``pad`` pixels along both axes, its border repeated.

    Learners on pixels with a replay buffer need it so as not to learn the buffer by heart (Kostrikov et al., "Image
    Augmentation Is All You Need", 2020).
    """
    batch, _, height, width = images.shape
    padded = F.pad(images, (pad, pad, pad, pad), mode="replicate")
    top, left = torch.randint(0, 2 * pad + 1, (2, batch, 1), device=images.device)
    rows = (top + torch.arange(height, device=images.device))[:, None, :, None]
    columns = (left + torch.arange(width, device=images.device))[:, None, None, :]
    worlds = torch.arange(batch, device=images.device)[:, None, None, None]
    channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return padded[worlds, channels, rows, columns]


class BlockFeatures(BaseFeaturesExtractor):
    """The network of Mnih et al. (2015) with half the channels, then a bounded layer; in training, images are shifted.

    Args:
        space: of stacked frames, see :func:`astra_gym.agents.sb3.stack_frames`.
        features_dim: numbers that it gives.
        shift: most pixels that an image is moved by in training.
    """

    def __init__(self, space: spaces.Box, features_dim: int = 128, shift: int = 3):
        super().__init__(space, features_dim)
        self.shift = shift
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
        if self.training:
            observations = shift_randomly(observations, self.shift)
        return self.bounded(self.convolutions(observations))
