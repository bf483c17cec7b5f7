"""Noise that knows what comes: what lets a world that takes one denoising step choose among futures.

From independent noise, the best guess at what comes into view is the mean of all that may: the squares of a lawn become
one even green, on which nobody sees how fast a car is. Here an encoder, which is needed in training alone, looks at the
true frame and at the one that the history ends with, and makes the noise that the frame is to be made from, one number
for each latent channel. What the noise tells beyond what a prior expects from history and action
(:class:`astra_gym.models.noise_prior.NoisePrior`) is paid for by the nat. The trained world draws its noise from that
prior, and so one future instead of the mean. This is a conditional variational autoencoder (Sohn, Lee and Yan 2015)
whose latent variable is the noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astra_gym.models.noise_prior import NoisePrior, log_density, mixture_log_density
from astra_gym.training.parallel import Draws


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


def coupled_noise(
    encoder: NoiseEncoder, truth: Tensor, previous: Tensor, scenario: Tensor, telling: Tensor, draws: Draws
) -> tuple[Tensor, Tensor]:
    """Noise to make frames from: what the encoder makes of them where they are told, normal elsewhere.

    Args:
        encoder: makes it.
        truth: latent frames of clips ``(B, F, C, h, w)``.
        previous: of the history that the frames are made from, the one before each; where the model made it itself,
            noise thus tells what that history lacks.
        scenario: their numbers ``(B, F)``.
        telling: which frames are told, ``bool (B, F)``.
        draws: random numbers.

    Returns:
        Noise ``(B, F, C, h, w)``, one number for each channel, and the logarithm of its density under what the encoder
        says ``(B, F)``.
    """
    mean, deviation = encoder(*(each.flatten(0, 1) for each in (truth, previous, scenario)))
    normal = draws.randn(truth.shape[:3])
    noise = mean + deviation * normal.flatten(0, 1)
    density = log_density(noise, mean, deviation).unflatten(0, telling.shape)
    noise = torch.where(telling[..., None], noise.view_as(normal), normal)
    return noise[..., None, None].expand(truth.shape), density


def nats_and_surprise(
    prior: NoisePrior, numbers: Tensor, density: Tensor, seen: tuple[Tensor, Tensor, Tensor], price: Tensor
) -> dict[str, Tensor]:
    """What noise tells beyond what the prior expects, what that costs, and how much the noise surprises the prior;
    means over N frames.

    Args:
        prior: expects.
        numbers: the noise ``(N, C)``; the surprise does not move it.
        density: the logarithm of its density under what the encoder says ``(N,)``.
        seen: what the prior sees; it moves none of that.
        price: of a nat, in each frame ``(N,)``.
    """
    if not len(numbers):
        return dict.fromkeys(("nats", "cost", "surprise"), numbers.sum() * 0.0)
    mixture = prior(*(each.detach() for each in seen))
    expected, learned = (mixture_log_density(each, *mixture) for each in (numbers, numbers.detach()))
    told = density - expected
    return {"nats": told.mean(), "cost": (price * told).mean(), "surprise": -learned.mean()}
