"""A loss on what generated latent frames look like.

Latents have unit size at each place, so in their own squared error a bare wall weighs as much as an arm.
"""

from __future__ import annotations

import torch
from torch import Tensor

from astra_gym.models.autoencoder import BlockAutoencoder, unit_rms

LEAST_ERROR = 4e-4
"""Squared error of 40 dB, in the autoencoder's units: what is closer than that is as good as right."""


def pixel_loss(autoencoder: BlockAutoencoder, generated: Tensor, real: Tensor, weight: Tensor) -> Tensor:
    """Mean over frames of the logarithm of their squared error in pixels, as PSNR has it.

    Args:
        autoencoder: which decodes; it gets no gradients if it asks for none.
        generated, real: latent frames ``(N, C, h, w)``; both are decoded.
        weight: of each frame, ``(N,)``.
    """
    made = autoencoder.decode(unit_rms(generated)).float()
    with torch.no_grad():
        wanted = autoencoder.decode(real).float()
    error = (made - wanted).square().mean((1, 2, 3, 4))
    return (weight * (error + LEAST_ERROR).log()).sum() / max(1, len(weight))
