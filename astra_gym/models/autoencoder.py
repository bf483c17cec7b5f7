"""Block autoencoder: a block of K video frames and one latent frame, both ways."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astra_gym.models.base import ConfigMixin, ModelMixin, register_to_config
from astra_gym.models.layers import Conv2d


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around an activation; the identity at initialisation, so that no normalisation is needed."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_in = Conv2d(channels, channels, 3, padding=1, silu=True)
        self.conv_out = Conv2d(channels, channels, 3, padding=1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv_in(F.silu(x)), base=x)


class BlockAutoencoder(ModelMixin, ConfigMixin):
    """K frames as the channels of one image ⇄ one latent frame an eighth of its width and height.

    The convolutions see all frames of a block at once, so the latent frame holds their motion. The encoder runs only
    where real frames come in; the decoder runs at every step, so it is narrow and does its work at low resolution.
    Latents have unit root-mean-square over the channels at each place, so that noise levels mean the same everywhere.

    Args:
        frames_per_block: frames K in a block.
        latent_channels: channels C of a latent frame.
        encoder_channels: widths at 1/4 and 1/8 of the frame's size.
        decoder_channels: widths at 1/8, 1/4 and 1/2 of the frame's size.
        decoder_blocks: residual blocks at each of the decoder's sizes.
    """

    @register_to_config
    def __init__(
        self,
        frames_per_block: int = 4,
        latent_channels: int = 32,
        encoder_channels: tuple[int, int] = (128, 192),
        decoder_channels: tuple[int, int, int] = (160, 96, 48),
        decoder_blocks: tuple[int, int, int] = (2, 2, 1),
    ):
        super().__init__()
        pixels = 3 * frames_per_block
        wide, wider = encoder_channels
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(16 * pixels, wide, 3, padding=1),
            ResidualBlock(wide),
            ResidualBlock(wide),
            nn.Conv2d(wide, wider, 4, stride=2, padding=1),
            ResidualBlock(wider),
            ResidualBlock(wider),
            nn.SiLU(),
            nn.Conv2d(wider, latent_channels, 1),
        )

        layers: list[nn.Module] = []
        width_in = latent_channels
        for width, blocks in zip(decoder_channels, decoder_blocks, strict=True):
            if layers:
                layers += [Conv2d(width_in, 4 * width, 1), nn.PixelShuffle(2)]
            else:
                layers.append(Conv2d(width_in, width, 3, padding=1))
            layers += [ResidualBlock(width) for _ in range(blocks)]
            width_in = width
        layers += [nn.SiLU(), Conv2d(width_in, 4 * pixels, 3, padding=1), nn.PixelShuffle(2)]
        self.decoder = nn.Sequential(*layers)

    def fuse(self) -> BlockAutoencoder:
        """Prepare the decoder for inference. Its weights must not change afterwards, nor move."""
        for module in self.decoder.modules():
            if isinstance(module, Conv2d):
                module.pack()
        return self

    def encode(self, blocks: Tensor) -> Tensor:
        """Frames in [-1, 1], ``(B, K, 3, H, W)``, to latents ``(B, C, H/8, W/8)``."""
        images = blocks.flatten(1, 2).to(memory_format=torch.channels_last)
        return unit_rms(self.encoder(images))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``(B, C, h, w)`` to frames ``(B, K, 3, 8h, 8w)``, about [-1, 1], not clipped."""
        images = self.decoder(latents.to(memory_format=torch.channels_last))
        return images.unflatten(1, (self.config.frames_per_block, 3))

    def forward(self, blocks: Tensor, noise: Tensor | None = None):
        """Encode, add ``noise`` of the latents' shape, decode; returns (frames, latents)."""
        latents = self.encode(blocks)
        return self.decode(latents if noise is None else latents + noise.to(latents.dtype)), latents


def unit_rms(latents: Tensor) -> Tensor:
    """Latents ``(B, C, h, w)`` scaled to unit root-mean-square over the channels at each place."""
    return latents * latents.float().square().mean(1, keepdim=True).add(1e-6).rsqrt().to(latents.dtype)


def to_model(frames: Tensor) -> Tensor:
    """uint8 frames ``(..., H, W, 3)`` to the autoencoder's ``(..., 3, H, W)`` in [-1, 1]."""
    return frames.movedim(-1, -3).float() / 127.5 - 1.0


def to_pixels(frames: Tensor) -> Tensor:
    """The autoencoder's frames ``(..., 3, H, W)`` to uint8 ``(..., H, W, 3)``."""
    levels = frames.to(torch.float32, copy=True).add_(1.0).mul_(127.5)  # fresh memory would cost more than the sums
    return levels.round_().clamp_(0, 255).to(torch.uint8).movedim(-3, -1)
