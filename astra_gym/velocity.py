"""Sampling of the packed layout: Euler steps along the predicted velocity, as the released model was trained.

A noisy latent at level t is x = (1 - t) z + t e, and the model predicts its velocity e - z.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from astra_gym.models.action_experts import RoutedActions
from astra_gym.models.attention import KeysValues
from astra_gym.models.transformer import AstraTransformer, PackedHistory


class VelocitySampler:
    """Denoises the frames of one block. All passes that guidance asks for run in one batch.

    With u the prediction without actions, c with them, and n with them and an empty prompt: g = u + s (c - u), then
    n + s_text (g - n).

    Args:
        transformer: of the packed layout.
        history: of :meth:`AstraTransformer.pack`, batch 1.
        rows: the window's action rows, ``(R, row_dim)``.
        modality: of the rows.
        context: of :meth:`AstraTransformer.embed_text` for the prompt, batch 1; None where the model has no text.
        guidance_scale: s, 1 for none.
        empty_context: the same for the empty prompt; needed for text guidance.
        text_guidance_scale: s_text, 1 for none.
    """

    def __init__(
        self,
        transformer: AstraTransformer,
        history: PackedHistory,
        rows: Tensor,
        modality: str,
        context: list[KeysValues] | None = None,
        guidance_scale: float = 1.0,
        empty_context: list[KeysValues] | None = None,
        text_guidance_scale: float = 1.0,
    ):
        if text_guidance_scale != 1.0 and empty_context is None:
            raise ValueError("text_guidance_scale: it needs the empty prompt's context")
        self.transformer = transformer
        self.guidance_scale, self.text_guidance_scale = guidance_scale, text_guidance_scale
        passes = [(rows, context)]
        if guidance_scale != 1.0:
            passes.append((torch.zeros_like(rows), context))
        if text_guidance_scale != 1.0:
            passes.append((rows, empty_context))
        self.size = len(passes)
        batch = torch.stack([pass_rows for pass_rows, _ in passes]).to(transformer.device, transformer.dtype)
        self.actions: RoutedActions = transformer.action_encoder(batch, modality)
        self.context = None if context is None else _stack([pass_context for _, pass_context in passes])
        tokens = history.tokens.expand(self.size, -1, -1)
        self.history = PackedHistory(tokens, history.rotary, history.rows)

    def velocity(self, latents: Tensor, level: float) -> Tensor:
        """The guided velocity ``float32 (1, F, C, H, W)`` of latents of that shape at noise ``level``."""
        batch = latents.to(self.transformer.dtype).expand(self.size, *latents.shape[1:])
        levels = torch.full((self.size, 1), level, dtype=torch.float64, device=latents.device)
        output = self.transformer(batch, levels, self.actions, context=self.context, history=self.history)
        predictions = list(output.sample.float().split(1))
        velocity = predictions.pop(0)
        if self.guidance_scale != 1.0:
            free = predictions.pop(0)
            velocity = free + self.guidance_scale * (velocity - free)
        if self.text_guidance_scale != 1.0:
            empty = predictions.pop(0)
            velocity = empty + self.text_guidance_scale * (velocity - empty)
        return velocity

    def sample(
        self,
        noise: Tensor,
        levels: Sequence[float],
        after_step: Callable[[int, Tensor], Tensor | None] | None = None,
    ) -> Tensor:
        """Latents from ``noise (1, F, C, H, W)``, through ``levels`` from 1 to 0.

        Args:
            noise: where to begin.
            levels: of :func:`astra_gym.sampler.schedule`.
            after_step: called with the step's number and its latents; what it returns, if anything, replaces them.
        """
        latents = noise.float()
        for i, (level, following) in enumerate(zip(levels, levels[1:], strict=False)):
            latents = latents + (following - level) * self.velocity(latents, level)
            if after_step is not None and (changed := after_step(i, latents)) is not None:
                latents = changed
        return latents


def _stack(contexts: Sequence[list[KeysValues] | None]) -> list[KeysValues]:
    """Contexts of several passes as one batch, without a copy where they are the same."""
    given = [context for context in contexts if context is not None]
    if all(context is given[0] for context in given):
        shape = (len(given), -1, -1, -1)
        return [(keys.expand(shape), values.expand(shape)) for keys, values in given[0]]
    layers = zip(*given, strict=True)
    return [(torch.cat([keys for keys, _ in layer]), torch.cat([values for _, values in layer])) for layer in layers]
