"""Noise that knows what comes: what lets a world that takes one denoising step choose among futures.

From independent noise, the best guess at what comes into view is the mean of all that may: the squares of a lawn become
one even green, on which nobody sees how fast a car is. Here an encoder, which is needed in training alone, looks at the
true frame and makes the noise that the frame is to be made from, one number for each latent channel. What the noise
tells beyond what a prior expects from history and action (:class:`astra_gym.models.noise_prior.NoisePrior`) is paid for
by the nat. The trained world draws its noise from that prior, and so one future instead of the mean. This is a
conditional variational autoencoder (Sohn, Lee and Yan 2015) whose latent variable is the noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NoiseEncoder(nn.Module):
    """The noise from which a true latent frame is to be made: a normal number for each channel, the same at all places,
    with a mean and a deviation of its own.

    Args:
        latent_channels: C.
        latent_size: h and w.
        scenarios: how many scenarios there are.
        width: channels of the hidden layers.
    """

    def __init__(self, latent_channels: int, latent_size: Sequence[int], scenarios: int, width: int = 96):
        super().__init__()
        self.first = nn.Conv2d(2 * latent_channels, width, 3, padding=1)
        self.scenario = nn.Embedding(scenarios, width)
        self.middle = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.last = nn.Linear(width * math.prod(-(-side // 2) for side in latent_size), 2 * latent_channels)

    def forward(self, latents: Tensor, previous: Tensor, scenario: Tensor) -> tuple[Tensor, Tensor]:
        """Latent frames and those before them, each ``(N, C, h, w)``, and the numbers of their scenarios ``(N,)``, to
        means and deviations ``(N, C)``."""
        seen = self.first(torch.cat([latents - previous, previous], 1)) + self.scenario(scenario)[..., None, None]
        mean, deviation = self.last(F.silu(self.middle(F.silu(seen))).flatten(1)).float().chunk(2, 1)
        return mean, deviation.sigmoid()
