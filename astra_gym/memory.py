"""Noise-augmented history: what the model remembers, and how training corrupts it so that actions are obeyed.

A committed latent frame stays for a sliding window with all its tokens; what leaves the window is remembered by one
summary token, for a longer range. Keys and values are computed once, when a frame is committed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from astra_gym.models.transformer import AstraTransformer


@dataclass
class _LayerView:
    """One layer's slots; its last ones take the tokens that are being computed."""

    keys: Tensor
    values: Tensor

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        tokens = keys.shape[2]
        self.keys[:, :, -tokens:] = keys
        self.values[:, :, -tokens:] = values
        return self.keys, self.values


class HistoryMemory:
    """Keys and values of the history of B worlds, in preallocated slots: ``[window | summaries | frame under way]``.

    Args:
        transformer: of the causal layout; its config sets the sizes.
        num_worlds: B.
        dtype: of keys and values.
    """

    def __init__(self, transformer: AstraTransformer, num_worlds: int, dtype: torch.dtype = torch.float32):
        config, device = transformer.config, transformer.device
        self.window, self.summary_window = config.window, config.summary_window
        self.tokens = transformer.tokens_per_frame
        self.slots = self.window * self.tokens + self.summary_window
        shape = (
            config.num_layers,
            num_worlds,
            config.num_attention_heads,
            self.slots + self.tokens,
            config.attention_head_dim,
        )
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.count = torch.zeros(num_worlds, dtype=torch.long, device=device)
        self._frames = 0  # least number of committed frames, known without a device synchronisation

    def layers(self) -> list[_LayerView]:
        """The caches to hand to the transformer."""
        return [_LayerView(keys, values) for keys, values in zip(self.keys, self.values, strict=True)]

    def mask(self) -> Tensor | None:
        """Boolean ``(B, 1, 1, slots + tokens)`` of the slots in use, None once all are."""
        if self._frames >= self.window + self.summary_window:
            return None
        place = torch.arange(self.slots + self.tokens, device=self.count.device)
        count = self.count[:, None]
        recent = (place < self.window * self.tokens) & (place // self.tokens < count)
        summary = (place >= self.window * self.tokens) & (place - self.window * self.tokens < count - self.window)
        return (recent | summary | (place >= self.slots))[:, None, None]

    def commit(self) -> None:
        """Keep the frame under way, whose keys and values a forward pass has just put into the last slots."""
        worlds = torch.arange(len(self.count), device=self.count.device)
        slot = self.count % self.window
        summary_slot = self.window * self.tokens + (self.count - self.window) % self.summary_window
        full = self.count >= self.window
        for buffer in (self.keys, self.values):
            recent = buffer[:, :, :, : self.window * self.tokens].unflatten(3, (self.window, self.tokens))
            if bool(full.any()):
                leaving = recent[:, worlds, :, slot, -1][full]
                buffer[:, worlds[full], :, summary_slot[full]] = leaving
            recent[:, worlds, :, slot] = buffer[:, :, :, self.slots :].transpose(0, 1)
        self.count += 1
        self._frames += 1

    def put(self, worlds: list[int], other: HistoryMemory) -> None:
        """Replace the history of some worlds by that of ``other``, one of its worlds each."""
        index = torch.tensor(worlds, device=self.count.device)
        self.keys[:, index] = other.keys
        self.values[:, index] = other.values
        self.count[index] = other.count
        self._frames = int(self.count.min())

    def state(self) -> dict[str, Tensor]:
        """A copy of everything, for :meth:`load_state`."""
        return {"keys": self.keys.clone(), "values": self.values.clone(), "count": self.count.clone()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.keys.copy_(state["keys"])
        self.values.copy_(state["values"])
        self.count.copy_(state["count"])
        self._frames = int(self.count.min())


def training_mask(frames: int, transformer: AstraTransformer) -> Tensor:
    """What may attend to what when a clip is trained in one pass, boolean ``(2 * frames * S, 2 * frames * S)``.

    The first half are the clip's frames as history, the second the same frames as targets. Both see the history before
    them as at inference: the window in full, farther frames by their summary token (the last of a frame's S tokens);
    beside that each frame sees its own tokens.
    """
    tokens = transformer.tokens_per_frame
    time = torch.arange(frames).repeat_interleave(tokens).repeat(2)
    is_history = torch.arange(2 * frames * tokens) < frames * tokens
    is_summary = torch.arange(2 * frames * tokens) % tokens == tokens - 1
    age = time[:, None] - time[None, :]
    near = (age >= 1) & (age <= transformer.config.window)
    far = (age > transformer.config.window) & (age <= transformer.config.window + transformer.config.summary_window)
    own = (age == 0) & (is_history[:, None] == is_history[None, :])
    return (is_history[None, :] & (near | (far & is_summary[None, :]))) | own


def history_noise_levels(uniform: Tensor, at_inference: float) -> Tensor:
    """Random noise levels ``(clips, frames)`` for history frames in training, from numbers in [0, 1), two a frame.

    Most clips have little noise on every frame, some more, and one in ten any amount, drawn for each frame alone; a
    fifth have exactly the level used at inference.
    """
    kind, level = uniform[:, :1, 0], uniform[..., 1]
    ceiling = torch.where(kind < 0.7, 0.15, torch.where(kind < 0.9, 0.5, 1.0))
    return torch.where(kind < 0.2, at_inference, level * ceiling)


def corrupt(latents: Tensor, level: Tensor, noise: Tensor) -> Tensor:
    """Latents ``(B, F, C, h, w)`` mixed with noise at levels ``(B, F)``: ``(1 - level) * latents + level * noise``."""
    level = level[..., None, None, None]
    return (1 - level) * latents + level * noise
