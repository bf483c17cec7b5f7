"""Small convolutional networks for stacked frames, cheap enough to learn with on two CPU cores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn


class _Convolutions(BaseFeaturesExtractor):
    """Convolutions over stacked frames, and how many numbers come of them.

    Args:
        space: of stacked frames, see :func:`astra_gym.agents.sb3.stack_frames`.
        features_dim: numbers that the whole network gives.
        layers: the convolutions, one after the other.
    """

    def __init__(self, space: spaces.Box, features_dim: int, layers: Sequence[nn.Module]):
        super().__init__(space, features_dim)
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            self.seen: int = self.convolutions(torch.zeros(1, *space.shape)).shape[1]


class BlockFeatures(_Convolutions):
    """The network of Mnih et al. (2015) with half the channels, then a layer whose numbers stay in -1..1."""

    def __init__(self, space: spaces.Box, features_dim: int = 128):
        layers: list[nn.Module] = [
            nn.Conv2d(space.shape[0], 16, 8, stride=4),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3),
            nn.ReLU(),
        ]
        super().__init__(space, features_dim, layers)
        self.bounded = nn.Sequential(nn.Linear(self.seen, features_dim), nn.LayerNorm(features_dim), nn.Tanh())

    def forward(self, observations: Tensor) -> Tensor:
        """Features ``(B, features_dim)`` of images ``(B, 3K, H, W)`` in 0..1."""
        return self.bounded(self.convolutions(observations))


class FineFeatures(_Convolutions):
    """Six convolutions that step two pixels at a time, for things of few pixels; it costs some three times as much."""

    def __init__(self, space: spaces.Box, features_dim: int = 256):
        layers: list[nn.Module] = []
        before = space.shape[0]
        for channels, side in ((16, 5), (32, 3), (32, 3)):
            for given, stride, kernel in ((before, 2, side), (channels, 1, 3)):
                convolution = nn.Conv2d(given, channels, kernel, stride, kernel // 2)
                layers += [convolution, nn.GroupNorm(4, channels), nn.ReLU()]
            before = channels
        super().__init__(space, features_dim, layers)
        self.mixed = nn.Sequential(nn.Linear(self.seen, features_dim), nn.ReLU())

    def forward(self, observations: Tensor) -> Tensor:
        """Features ``(B, features_dim)`` of images ``(B, 3K, H, W)`` in 0..1."""
        return self.mixed(self.convolutions(observations))


FEATURES: dict[str, type[BaseFeaturesExtractor]] = {"coarse": BlockFeatures, "fine": FineFeatures}
"""What a policy can look with, by name."""


def features_name(network: nn.Module) -> str | None:
    """Its name in :data:`FEATURES`; None if it is not there."""
    return next((name for name, kind in FEATURES.items() if type(network) is kind), None)
