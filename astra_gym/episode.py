"""One video under way with the released model: history, its actions, and the decoder's memory between blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from astra_gym.models.attention import KeysValues
from astra_gym.models.packing import SLOTS, window_rows
from astra_gym.models.transformer import AstraTransformer
from astra_gym.models.video_codec import StreamingDecoder
from astra_gym.sampler import schedule
from astra_gym.velocity import VelocitySampler

MAX_HISTORY = 100
"""Latent frames that the released script keeps."""


@dataclass
class Guidance:
    """How a block is denoised."""

    num_inference_steps: int = 50
    shift: float = 5.0
    guidance_scale: float = 1.0
    """Action-free guidance; 1 is off, the released value where it is on is 2."""
    text_guidance_scale: float = 1.0
    """Classifier-free guidance on the prompt; 1 is off."""

    def __post_init__(self) -> None:
        if self.num_inference_steps < 1:
            raise ValueError(f"num_inference_steps: got {self.num_inference_steps}, allowed are 1, 2, 3, ...")


@dataclass
class Block:
    """Latent frames that were generated together."""

    frames: np.ndarray
    """uint8 (4 F, H, W, 3); of the beginning, whose first latent frame is one frame, (4 F - 3, H, W, 3)."""
    latents: Tensor
    """float32 (1, F, C, h, w)."""
    rows: np.ndarray
    """float32 (F, row_dim): the actions."""
    seconds: dict[str, float]
    """Time spent on "denoise" and "decode", or on the beginning's "encode"."""


class AstraEpisode:
    """History and the means to extend it.

    Args:
        transformer: of the packed layout.
        vae: the autoencoder.
        latents: where to begin, ``(1, T, C, h, w)``.
        rows: its actions, ``(T, row_dim)``.
        modality: of the actions, one of the transformer's.
        context: of ``transformer.embed_text`` for the prompt.
        empty_context: the same for the empty prompt, needed for text guidance.
        guidance: how to denoise.
        generator: of the noise.
        device: to compute on.
        max_history: latent frames to keep, the first one and the newest; the model sees the newest 20.
    """

    def __init__(
        self,
        transformer: AstraTransformer,
        vae: AutoencoderKLWan,
        latents: Tensor,
        rows: np.ndarray,
        modality: str,
        context: list[KeysValues] | None = None,
        empty_context: list[KeysValues] | None = None,
        guidance: Guidance | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | None = None,
        max_history: int = MAX_HISTORY,
    ):
        if max_history < SLOTS:
            raise ValueError(f"max_history: got {max_history}, allowed are numbers from {SLOTS}")
        row_dim = transformer.config.modalities.get(modality)
        if row_dim is None:
            raise ValueError(f"modality: got {modality!r}, this model knows {list(transformer.config.modalities)}")
        if rows.shape != (latents.shape[1], row_dim):
            raise ValueError(f"rows: got shape {rows.shape}, allowed is {(latents.shape[1], row_dim)} for {modality!r}")
        self.transformer, self.modality, self.row_dim = transformer, modality, row_dim
        self.context, self.empty_context = context, empty_context
        self.guidance = guidance or Guidance()
        self.generator, self.max_history = generator, max_history
        self.device = transformer.device if device is None else device
        self.latents = latents.to(self.device).float()
        self.rows = torch.as_tensor(rows, dtype=torch.float32)
        self.decoder = StreamingDecoder(vae)
        self.first_seconds: dict[str, float] = {}
        """Time spent on decoding the beginning."""
        with self._timed("decode", self.first_seconds):
            self.first_frames = self.decoder.decode(self.latents)

    @torch.no_grad()
    def step(self, rows: np.ndarray, after_step: Callable[[int, float, Tensor], Tensor | None] | None = None) -> Block:
        """Generate one block.

        Args:
            rows: the new frames' actions, ``(F, row_dim)``.
            after_step: called after each denoising step with its number, timestep and latents; may return others.
        """
        if rows.ndim != 2 or rows.shape[1] != self.row_dim or not len(rows):
            raise ValueError(f"rows: got shape {rows.shape}, allowed is (frames, {self.row_dim})")
        if not np.isfinite(rows).all():
            raise ValueError("rows: every number must be finite")
        seconds: dict[str, float] = {}
        new = len(rows)
        all_rows = torch.cat([self.rows, torch.as_tensor(rows, dtype=torch.float32)])
        shape = (1, new, *self.latents.shape[2:])
        noise = randn_tensor(shape, generator=self.generator, device=self.device, dtype=torch.float32)
        levels = schedule(self.guidance.num_inference_steps, self.guidance.shift)
        with self._timed("denoise", seconds):
            sampler = VelocitySampler(
                self.transformer,
                self.transformer.pack(self.latents.to(self.transformer.dtype), new),
                window_rows(all_rows, self.latents.shape[1], new),
                self.modality,
                self.context,
                self.guidance.guidance_scale,
                self.empty_context,
                self.guidance.text_guidance_scale,
            )
            call = None if after_step is None else lambda i, x: after_step(i, 1000 * levels[i], x)
            latents = sampler.sample(noise, levels, call)
        with self._timed("decode", seconds):
            frames = self.decoder.decode(latents)
        self.latents = _keep_newest(torch.cat([self.latents, latents], 1), 1, self.max_history)
        self.rows = _keep_newest(all_rows, 0, self.max_history)
        return Block(frames, latents, rows, seconds)

    def state(self) -> dict[str, Any]:
        """A snapshot for :meth:`load_state`."""
        generator = None if self.generator is None else self.generator.get_state()
        return {
            "latents": self.latents,
            "rows": self.rows,
            "decoder": self.decoder.state(),
            "generator": generator,
            "context": self.context,
            "empty_context": self.empty_context,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go back to a snapshot of this episode, or of another one of the same model, with its prompt."""
        self.latents, self.rows = state["latents"], state["rows"]
        self.context, self.empty_context = state["context"], state["empty_context"]
        self.decoder.load_state(state["decoder"])
        if self.generator is not None:
            self.generator.set_state(state["generator"])

    @contextmanager
    def _timed(self, name: str, seconds: dict[str, float]) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds[name] = time.perf_counter() - begin


def _keep_newest(tensor: Tensor, axis: int, count: int) -> Tensor:
    """The first entry along ``axis`` and the newest, ``count`` in all."""
    size = tensor.shape[axis]
    if size <= count:
        return tensor
    return torch.cat([tensor.narrow(axis, 0, 1), tensor.narrow(axis, size - count + 1, count - 1)], axis)
