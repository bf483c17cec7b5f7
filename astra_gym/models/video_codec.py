"""Wan's video autoencoder as the released model uses it: normalised latents, decoding that goes on block by block."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor


def _statistics(vae: AutoencoderKLWan, device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values, device=device) for values in (vae.config.latents_mean, vae.config.latents_std))
    return mean.view(-1, 1, 1, 1), std.view(-1, 1, 1, 1)


@torch.no_grad()
def encode_video(vae: AutoencoderKLWan, frames: np.ndarray, device: torch.device | None = None) -> Tensor:
    """Video to normalised latents.

    Args:
        vae: the autoencoder.
        frames: ``uint8 (1 + 4 n, H, W, 3)``; the first frame makes a latent frame of its own.
        device: to compute on; None for the autoencoder's.

    Returns:
        ``float32 (1, 1 + n, C, H / 8, W / 8)``.
    """
    device = vae.device if device is None else device
    video = torch.from_numpy(np.ascontiguousarray(frames)).to(device, vae.dtype).permute(3, 0, 1, 2)[None] / 127.5 - 1
    latents = vae.encode(video).latent_dist.mode().float()
    mean, std = _statistics(vae, latents.device)
    return ((latents - mean) / std).transpose(1, 2)


class StreamingDecoder:
    """Decodes latent frames in the order they come. What the next block needs of the last one is kept.

    Blocks decoded one by one are exactly the frames of the whole video decoded at once.

    Args:
        vae: the autoencoder; several decoders may share it.
    """

    def __init__(self, vae: AutoencoderKLWan):
        self.vae = vae
        vae.clear_cache()
        self._cache: list[Any] = list(vae._feat_map)
        self._begun = False

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        """Normalised latents ``(1, F, C, h, w)`` to frames ``uint8 (4 F, H, W, 3)``; the very first makes one frame."""
        hook = getattr(self.vae, "_hf_hook", None)
        if hook is not None:  # brings an offloaded autoencoder to its device
            hook.pre_forward(self.vae)
        mean, std = _statistics(self.vae, latents.device)
        scaled = (latents.transpose(1, 2).float() * std + mean).to(self.vae.dtype)
        scaled = self.vae.post_quant_conv(scaled)
        frames = []
        for latent in scaled.split(1, 2):
            decoded = self.vae.decoder(latent, feat_cache=self._cache, feat_idx=[0], first_chunk=not self._begun)
            self._begun = True
            pixels = ((decoded[0].float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
            frames.append(pixels.permute(1, 2, 3, 0).cpu().numpy())
        return np.concatenate(frames)

    def state(self) -> tuple[list[Any], bool]:
        """A snapshot for :meth:`load_state`."""
        return list(self._cache), self._begun

    def load_state(self, state: tuple[list[Any], bool]) -> None:
        """Go back to a snapshot."""
        self._cache, self._begun = list(state[0]), state[1]
