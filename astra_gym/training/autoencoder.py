"""First stage: the block autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor

from astra_gym.evaluation.metrics import gradient_magnitude, psnr, squared_error
from astra_gym.models.autoencoder import BlockAutoencoder, to_model, to_pixels
from astra_gym.training.parallel import Draws


class AutoencoderStage:
    """Reconstruct blocks from slightly noisy latents: pixels and their gradients, so that edges stay sharp.

    Args:
        model: the autoencoder.
        train: for each scenario, uint8 blocks ``(N, K, H, W, 3)``; a step takes as many of each.
        validation: the same from episodes that training never sees.
        batch_size: blocks a step.
        latent_noise: standard deviation of the noise on latents; the decoder learns to forgive a denoiser's errors.
        bf16: run the network in bfloat16 (autocast).
        edge_weight: weight of the error of the pictures' gradients, which shows as blur or as texture on plain areas.
        decoder_only: leave the encoder, and so the latents of a dataset, as they are.
    """

    def __init__(
        self,
        model: BlockAutoencoder,
        train: dict[str, Tensor],
        validation: dict[str, Tensor],
        batch_size: int = 32,
        latent_noise: float = 0.05,
        bf16: bool = True,
        edge_weight: float = 0.25,
        decoder_only: bool = False,
    ):
        self.name = "decoder" if decoder_only else "autoencoder"
        model.encoder.requires_grad_(not decoder_only)
        self.model, self.train, self.batch_size = model, train, batch_size
        self.latent_noise, self.bf16, self.edge_weight = latent_noise, bf16, edge_weight
        self.validation = {name: _spread(blocks, 256) for name, blocks in validation.items()}

    def _autocast(self):
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16)

    def loss(self, step: int, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        device = self.model.device
        truth = to_model(self._draw(draws).to(device))
        height, width = truth.shape[-2] // 8, truth.shape[-1] // 8
        noise = draws.randn((len(truth), self.model.config.latent_channels, height, width))
        with self._autocast():
            frames, _ = self.model(truth, self.latent_noise * noise)
        error = frames.float() - truth
        pixels = error.square().mean()
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        return 5 * pixels + self.edge_weight * edges, {"pixels": pixels, "edges": edges}

    def _draw(self, draws: Draws) -> Tensor:
        """A batch with its share of every scenario, the odd ones to the first."""
        place = draws.rand((self.batch_size,), torch.float64).cpu()
        parts = place.tensor_split(len(self.train))
        return torch.cat(
            [blocks[(part * len(blocks)).long()] for part, blocks in zip(parts, self.train.values(), strict=True)]
        )

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        results = {}
        for name, blocks in self.validation.items():
            frames, truth = [], blocks.to(self.model.device)
            for batch in truth.split(64):
                with self._autocast():
                    frames.append(to_pixels(self.model(to_model(batch))[0]))
            made, true = torch.cat(frames).cpu().numpy(), truth.cpu().numpy()
            results[f"{name}/psnr"] = float(psnr(squared_error(made, true).mean()))
            sharpness = [gradient_magnitude(each).mean() for each in (made, true)]
            results[f"{name}/sharpness_ratio"] = float(sharpness[0] / sharpness[1])
        return results


def _spread(blocks: Tensor, count: int) -> Tensor:
    """At most ``count`` blocks, from all over the dataset."""
    return blocks[:: max(1, len(blocks) // count)][:count]
