"""Flow matching with a residual, preconditioned prediction, and the few Euler steps from noise to a latent frame.

A noisy latent at level t is x = (1 - t) z + t e. The network's output F is read as a correction of what is known
without it, namely x itself where t is small and the frame before, z', where t is large:

    z_hat = c x + (1 - c) z' + s F,    c = (1 - t)^2 / ((1 - t)^2 + t^2),    s = t / sqrt((1 - t)^2 + t^2)

so an untrained network already repeats the last frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from astra_gym.memory import HistoryMemory
from astra_gym.models.action_experts import RoutedActions
from astra_gym.models.transformer import AstraTransformer


@dataclass(frozen=True)
class FlowConfig:
    """How noise levels are used."""

    shift: float = 2.0
    """The sampler spends more of its steps at high noise, the more so the larger this is; high values are truer on
    average, low ones sharper."""
    training_shift: float = 3.0
    """The same for the noise levels of training."""
    history_noise: float = 0.02
    """Level at which history is used at inference."""
    previous_limit: float = 0.2
    """History noisier than this is not taken as the previous frame of the prediction."""


def shift_levels(uniform: Tensor, shift: float) -> Tensor:
    """Map levels in [0, 1] onto [0, 1], pushed towards 1 by ``shift``."""
    return shift * uniform / (1 + (shift - 1) * uniform)


def schedule(steps: int, shift: float) -> list[float]:
    """Noise levels from 1 to 0 that ``steps`` Euler steps pass through, ``steps + 1`` numbers."""
    return shift_levels(torch.linspace(1, 0, steps + 1, dtype=torch.float64), shift).tolist()


def predict_clean(output: Tensor, noisy: Tensor, level: Tensor, previous: Tensor) -> Tensor:
    """The module's formula: network output, noisy latents and previous ones ``(B, F, C, h, w)``, levels ``(B, F)``."""
    t = level[..., None, None, None]
    total = (1 - t) ** 2 + t**2
    keep = (1 - t) ** 2 / total
    return keep * noisy + (1 - keep) * previous + t * total.rsqrt() * output.float()


class Dynamics:
    """One latent frame at a time: generate it from history and action, then commit it to history.

    Args:
        transformer: of the causal layout.
        config: noise levels.
    """

    def __init__(self, transformer: AstraTransformer, config: FlowConfig):
        self.transformer, self.config = transformer, config

    def _forward(
        self,
        memory: HistoryMemory,
        noisy: Tensor,
        level: float,
        actions: RoutedActions,
        previous: Tensor,
        prompt: Tensor | None = None,
    ):
        levels = torch.full((len(noisy), 1), level, device=noisy.device)
        dtype = self.transformer.dtype
        output = self.transformer(
            noisy[:, None].to(dtype),
            levels,
            RoutedActions(*(tensor[:, None] for tensor in actions)),
            memory.count[:, None],
            previous=previous[:, None].to(dtype),
            mask=memory.mask(),
            caches=memory.layers(),
            prompt=prompt,
        )
        return output, predict_clean(output.sample, noisy[:, None], levels, previous[:, None])[:, 0]

    def generate(
        self,
        memory: HistoryMemory,
        actions: RoutedActions,
        previous: Tensor,
        noise: Tensor,
        steps: int,
        guidance_scale: float = 1.0,
        no_actions: RoutedActions | None = None,
        prompt: Tensor | None = None,
    ) -> Tensor:
        """The next latent frame ``(B, C, h, w)`` from ``noise`` of that shape; history is not changed.

        With ``no_actions``, each step also predicts with those and moves away from that, by ``guidance_scale`` times
        the difference that the actions make.
        """
        x = noise
        levels = schedule(steps, self.config.shift)
        for level, following in zip(levels, levels[1:], strict=False):
            clean = self._forward(memory, x, level, actions, previous, prompt)[1]
            if no_actions is not None:
                free = self._forward(memory, x, level, no_actions, previous, prompt)[1]
                clean = free + guidance_scale * (clean - free)
            x = clean if following == 0 else x + (following - level) * (x - clean) / level
        return x

    def commit(
        self,
        memory: HistoryMemory,
        latents: Tensor,
        actions: RoutedActions,
        previous: Tensor,
        noise: Tensor,
        prompt: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Add a latent frame to history at the small noise level of inference.

        Returns:
            The frame as history has it, which is ``previous`` for the next one, and the features for the heads.
        """
        level = self.config.history_noise
        noisy = (1 - level) * latents + level * noise
        output, _ = self._forward(memory, noisy, level, actions, previous, prompt)
        memory.commit()
        return noisy, output.features[:, 0]
