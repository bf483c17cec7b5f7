"""A loss on what generated latent frames look like.

Latents have unit size at each place, so in their own squared error a bare wall weighs as much as an arm.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from astra_gym.models.autoencoder import BlockAutoencoder, unit_rms

LEAST_ERROR = 4e-4
"""Squared error of 40 dB, in the autoencoder's units: what is closer than that is as good as right."""


def pixel_loss(
    autoencoder: BlockAutoencoder, generated: Tensor, real: Tensor, weight: Tensor, window: int | None = None
) -> Tensor:
    """Mean over frames of the logarithm of their squared error in pixels, as PSNR has it.

    With windows, the mean over all windows of a frame of the logarithm of each one's error: a small thing alone in its
    window then weighs as much as a large one, and where the truth may be one of two, one of them costs less than
    a pale mean of both.

    Args:
        autoencoder: which decodes; it gets no gradients if it asks for none.
        generated, real: latent frames ``(N, C, h, w)``; both are decoded.
        weight: of each frame, ``(N,)``.
        window: pixels of a side of the windows; None for one window, the whole block of frames.
    """
    made = autoencoder.decode(unit_rms(generated)).float()
    with torch.no_grad():
        wanted = autoencoder.decode(real).float()
    error = (made - wanted).square().mean(2)
    error = error.mean((1, 2, 3), keepdim=True) if window is None else F.avg_pool2d(error, window)
    return (weight * (error + LEAST_ERROR).log().mean((1, 2, 3))).sum() / max(1, len(weight))
