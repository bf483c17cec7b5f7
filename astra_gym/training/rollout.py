"""What a model in training makes of clips on its own: its own history, and how true it is to held-out clips."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from astra_gym.evaluation.metrics import gradient_magnitude, psnr, squared_error
from astra_gym.memory import HistoryMemory
from astra_gym.models.action_experts import RoutedActions
from astra_gym.models.autoencoder import BlockAutoencoder, to_pixels
from astra_gym.sampler import Dynamics, FlowConfig
from astra_gym.training.clips import ClipSampler
from astra_gym.training.coupling import coupled_noise
from astra_gym.training.parallel import Draws

if TYPE_CHECKING:
    from astra_gym.training.world import WorldModel

CLIPS = 32
"""Held-out clips of a scenario."""


class RollOut:
    """Goes on from clips as a world does.

    Args:
        model: makes the frames.
        flow: how.
        steps: from noise to a frame.
        coupled: the noise is drawn from the model's prior; else it is normal.
        bf16: in bfloat16 (autocast).
    """

    def __init__(self, model: WorldModel, flow: FlowConfig, steps: int, coupled: bool, bf16: bool):
        self.model, self.steps, self.coupled, self.bf16 = model, steps, coupled, bf16
        self.dynamics = Dynamics(model.transformer, flow)

    @torch.no_grad()
    def __call__(
        self,
        latents: Tensor,
        rows: Tensor,
        scenarios: list[str],
        context: int,
        frames: int,
        draws: Draws,
        informed: bool = False,
    ) -> Tensor:
        """Generate frames after the first ones of clips, with their actions.

        Args:
            latents: of the clips, ``(B, F, C, h, w)``.
            rows: of actions, ``(B, F, row_dim)``.
            scenarios: B names.
            context: how many frames are given.
            frames: how many are made.
            draws: random numbers.
            informed: make them from noise that tells of the true ones, see
                :func:`astra_gym.training.coupling.coupled_noise`.

        Returns:
            ``(B, frames, C, h, w)``.
        """
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=self.bf16):
            transformer, dynamics = self.model.transformer, self.dynamics
            memory = HistoryMemory(transformer, len(latents), torch.bfloat16 if self.bf16 else torch.float32)
            actions = transformer.action_encoder(rows, scenarios)
            prompt = transformer.prompt(scenarios)
            before = RoutedActions(*(tensor[:, :context] for tensor in actions))
            noise = draws.randn(latents[:, :context].shape)
            previous, features = dynamics.begin(memory, latents[:, :context], before, noise, prompt)
            current, generated = latents[:, context - 1], []
            for t in range(context, context + frames):
                plan = dynamics.plan(memory, RoutedActions(*(tensor[:, t] for tensor in actions)), prompt, self.steps)
                if informed:
                    begins_as = self._tell(latents[:, t], current, scenarios, draws)
                else:
                    begins_as = self._draw(features, previous, actions.code[:, t], draws)
                current = dynamics.generate(memory, plan, previous, begins_as)
                generated.append(current)
                if t < context + frames - 1:
                    previous, features = dynamics.commit(memory, current, plan, previous, draws.randn(previous.shape))
        return torch.stack(generated, 1)

    def _tell(self, truth: Tensor, current: Tensor, scenarios: list[str], draws: Draws) -> Tensor:
        """Noise that tells of true frames ``(B, C, h, w)`` what may not be expected after the current ones."""
        numbers = self.model.scenario_numbers(scenarios, (len(truth), 1))
        told = torch.ones_like(numbers, dtype=torch.bool)
        return coupled_noise(self.model.noise_encoder, truth[:, None], current[:, None], numbers, told, draws)[0][:, 0]

    def _draw(self, features: Tensor, previous: Tensor, code: Tensor, draws: Draws) -> Tensor:
        if not self.coupled:
            return draws.randn(previous.shape)
        chance, normal = draws.rand(previous.shape[:1]), draws.randn(previous.shape[:2])
        noise = self.model.prior.sample(features, previous, code, chance, normal)
        return noise[..., None, None].expand_as(previous)


def clip_fidelity(
    roll_out: RollOut,
    autoencoder: BlockAutoencoder,
    sampler: ClipSampler,
    scenario: str,
    clip_frames: int,
    compare: bool = True,
) -> dict[str, float]:
    """PSNR in dB against the decoded truth of clips from all over a dataset whose second half is made up.

    Args:
        compare: make the clips also from other actions, from the truth and by copying; else ``world_n`` alone and the
            sharpness come back.

    Returns:
        ``world_n`` after n frames, ``shuffled_n`` with the actions of another clip, ``copy_n`` of the last frame that
        was given, ``told_n`` from noise that tells of the truth where the model has learned such, and how sharp the
        last frame is beside the true one.
    """
    context = clip_frames // 2
    horizon = clip_frames - context
    device = roll_out.model.transformer.device
    draws = Draws(torch.Generator(device).manual_seed(0))
    clip = sampler.at(sampler.starts[torch.linspace(0, len(sampler.starts) - 1, CLIPS).long()], device)
    latents, rows = clip["latents"], clip["rows"]
    names = [scenario] * CLIPS
    made = {"world": roll_out(latents, rows, names, context, horizon, draws)}
    if compare:
        shuffled = torch.cat([rows[:, :context], rows.roll(CLIPS // 2, 0)[:, context:]], 1)
        made["shuffled"] = roll_out(latents, shuffled, names, context, horizon, draws)
        made["copy"] = latents[:, context - 1 : context].expand(-1, horizon, -1, -1, -1)
    if compare and roll_out.coupled:
        made["told"] = roll_out(latents, rows, names, context, horizon, draws, informed=True)

    def decode(latents: Tensor) -> np.ndarray:
        return to_pixels(autoencoder.decode(latents.to(autoencoder.dtype))).cpu().numpy()

    results = {}
    for after in [n for n in (1, 4, 8) if n <= horizon]:
        truth = decode(latents[:, context + after - 1])
        for name, frames in made.items():
            results[f"{name}_{after}"] = float(psnr(squared_error(decode(frames[:, after - 1]), truth)).mean())
    last, true = (decode(each) for each in (made["world"][:, -1], latents[:, context + horizon - 1]))
    results["sharpness"] = float(gradient_magnitude(last).mean() / gradient_magnitude(true).mean())
    return results
