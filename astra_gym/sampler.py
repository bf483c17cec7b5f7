"""Flow matching with a residual, preconditioned prediction, and the few Euler steps from noise to a latent frame.

A noisy latent at level t is x = (1 - t) z + t e. The network's output F is read as a correction of what is known
without it, namely x itself where t is small and the frame before, z', where t is large:

    z_hat = c x + (1 - c) z' + s F,    c = (1 - t)^2 / ((1 - t)^2 + t^2),    s = t / sqrt((1 - t)^2 + t^2)

so an untrained network already repeats the last frame.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from astra_gym.memory import HistoryMemory, history_mask
from astra_gym.models.action_experts import RoutedActions
from astra_gym.models.autoencoder import unit_rms
from astra_gym.models.transformer import AstraTransformer, Conditioning


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


def compile_for(device: torch.device, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as PyTorch's compiler makes it, for arguments whose sizes stay the same.

    Raises:
        ValueError: if that needs a C++ compiler and there is none.
    """
    if device.type != "cpu":
        return torch.compile(function, dynamic=False, mode="reduce-overhead")
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise ValueError("compiled: got True, which needs a C++ compiler on a CPU (Debian: apt install g++)")
    return torch.compile(function, dynamic=False, options={"freezing": True})  # which lets it pack the matrices


class Dynamics:
    """One latent frame at a time: plan it from the action, generate it from history, then commit it to history.

    Args:
        transformer: of the causal layout.
        config: noise levels.
        compiled: let PyTorch's compiler make the transformer's pass over one frame, at its first call.
    """

    def __init__(self, transformer: AstraTransformer, config: FlowConfig, compiled: bool = False):
        self.transformer, self.config = transformer, config
        self._compiled = compile_for(transformer.device, transformer.predict) if compiled else None

    def plan(
        self,
        memory: HistoryMemory,
        actions: RoutedActions,
        prompt: Tensor | None = None,
        steps: int | Sequence[int] = 0,
    ) -> Conditioning:
        """What action, time and prompt mean to the network at the next frame: computed once for all its passes.

        Args:
            memory: history before the frame.
            actions: tensors ``(B, ...)``.
            prompt: of :meth:`AstraTransformer.prompt`.
            steps: Euler steps that will generate it, of all worlds or of each; 0 if it is only committed.
        """
        each = [steps] if isinstance(steps, int) else steps
        levels = [self._levels(number, max(each)) for number in each]
        noise_level = torch.tensor(levels, device=memory.count.device).expand(len(memory.count), -1)
        one_frame = RoutedActions(*(tensor[:, None] for tensor in actions))
        return self.transformer.condition(noise_level, one_frame, memory.count[:, None], prompt)

    def _levels(self, steps: int, passes: int) -> list[float]:
        """Of the passes that generate a frame, where 0 changes nothing, and of the one that commits it."""
        idle = [0.0] * (passes - steps)
        return [*schedule(steps, self.config.shift)[:steps], *idle, self.config.history_noise]

    def _forward(self, memory: HistoryMemory, noisy: Tensor, plan: Conditioning, previous: Tensor, wanted: int = 1):
        dtype = self.transformer.dtype
        predict = self._compiled or self.transformer.predict
        return predict(
            noisy[:, None].to(dtype), plan, previous[:, None].to(dtype), memory.mask(), memory.layers(), wanted=wanted
        )

    def generate(
        self,
        memory: HistoryMemory,
        plan: Conditioning,
        previous: Tensor,
        noise: Tensor,
        guidance_scale: float = 1.0,
        free: Conditioning | None = None,
    ) -> Tensor:
        """The next latent frame ``(B, C, h, w)`` from ``noise`` of that shape; history is not changed.

        It is brought to the size that the autoencoder gives to real ones, so that errors of size cannot add up.

        With ``free``, the plan of hidden actions, each step also predicts with that and moves away from it, by
        ``guidance_scale`` times the difference that the actions make.
        """
        x = noise
        levels = F.pad(plan.noise_level[:, :-1], (0, 1))[..., None, None, None]
        for i in range(levels.shape[1] - 1):
            clean = self._clean(memory, x, plan.at(i), previous)
            if free is not None:
                unguided = self._clean(memory, x, free.at(i), previous)
                clean = unguided + guidance_scale * (clean - unguided)
            level, following = levels[:, i], levels[:, i + 1]
            x = torch.where(following > 0, x + (following - level) * (x - clean) / level, clean)
        return unit_rms(x)

    def _clean(self, memory: HistoryMemory, noisy: Tensor, plan: Conditioning, previous: Tensor) -> Tensor:
        output = self._forward(memory, noisy, plan, previous).sample
        return predict_clean(output, noisy[:, None], plan.noise_level, previous[:, None])[:, 0]

    def commit(
        self, memory: HistoryMemory, latents: Tensor, plan: Conditioning, previous: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Add a latent frame to history at the small noise level of inference.

        Returns:
            The frame as history has it, which is ``previous`` for the next one, and the features for the heads.
        """
        noisy = self._corrupt(latents, noise)
        output = self._forward(memory, noisy, plan.at(-1), previous, wanted=0)
        memory.commit()
        return noisy, output.features[:, 0]

    def _corrupt(self, latents: Tensor, noise: Tensor) -> Tensor:
        return (1 - self.config.history_noise) * latents + self.config.history_noise * noise

    def begin(
        self, memory: HistoryMemory, latents: Tensor, actions: RoutedActions, noise: Tensor, prompt: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Commit a whole history ``(B, T, C, h, w)`` with its actions ``(B, T, ...)`` to an empty memory in one pass.

        Returns:
            Of its newest frame what :meth:`commit` returns.
        """
        frames, dtype = latents.shape[1], self.transformer.dtype
        noisy = self._corrupt(latents, noise)
        previous = F.pad(noisy[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
        level = torch.full(latents.shape[:2], self.config.history_noise, device=latents.device)
        times = torch.arange(frames, device=latents.device).expand(len(latents), -1)
        mask = history_mask(frames, self.transformer).to(latents.device)
        recorders = memory.recorders()
        conditioning = self.transformer.condition(level, actions, times, prompt)
        output = self.transformer.predict(noisy.to(dtype), conditioning, previous.to(dtype), mask, recorders, wanted=0)
        memory.fill(recorders)
        return noisy[:, -1], output.features[:, -1]
