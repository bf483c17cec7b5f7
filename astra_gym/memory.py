"""Noise-augmented history: what the model remembers, and how training corrupts it so that actions are obeyed.

A committed latent frame stays for a sliding window with all its tokens; what leaves the window is remembered by one
summary token, for a longer range. Keys and values are computed once, when a frame is committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from astra_gym.models.transformer import AstraTransformer

KEYS_AT_ONCE = 32
"""Attention over a multiple of so many keys is faster on a CPU: by a quarter with 128 keys instead of 123."""


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


class _Recorder:
    """One layer's cache that keeps what passes by."""

    keys: Tensor
    values: Tensor

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        self.keys, self.values = keys, values
        return keys, values


class HistoryMemory:
    """Keys and values of the history of B worlds, in preallocated slots: ``[window | summaries | unused | frame under
    way]``.

    Window and summaries are rings, whose next places are the same in all worlds. Unused slots are so many that all make
    a multiple of :data:`KEYS_AT_ONCE`.

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
        self._unused = -(self.slots + self.tokens) % KEYS_AT_ONCE
        total = self.slots + self._unused + self.tokens
        shape = (config.num_layers, num_worlds, config.num_attention_heads, total, config.attention_head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.count = torch.zeros(num_worlds, dtype=torch.long, device=device)
        all_slots = torch.ones(1, self.slots, dtype=torch.bool, device=device)
        self._full_mask = self._with_the_rest(all_slots) if self._unused else None
        self._next = 0  # frames committed since the beginning, by whichever worlds: all have the same slots in use
        self._least = 0  # the least count, known without a device synchronisation

    def recorders(self) -> list[_Recorder]:
        """Caches for one pass over a whole history, which :meth:`fill` then takes."""
        return [_Recorder() for _ in self.keys]

    def layers(self) -> list[_LayerView]:
        """The caches to hand to the transformer."""
        return [_LayerView(keys, values) for keys, values in zip(self.keys, self.values, strict=True)]

    def mask(self) -> Tensor | None:
        """What attention adds to scores, ``(B or 1, 1, 1, keys)``: 0 for slots in use, else -inf; None if all are."""
        if self._least >= self.window + self.summary_window:
            return self._full_mask
        device, count = self.count.device, self.count[:, None]
        # 0 for the newest frame, and for the newest that has left the window.
        age = (self._next - 1 - torch.arange(self.window, device=device)) % self.window
        age_left = (self._next - 1 - torch.arange(self.summary_window, device=device)) % self.summary_window
        recent = (age < count).repeat_interleave(self.tokens, 1)
        summary = age_left < count - self.window
        return self._with_the_rest(torch.cat([recent, summary], 1))

    def _with_the_rest(self, in_use: Tensor) -> Tensor:
        """The mask of slots in use ``(B, slots)``, with the unused ones and those of the frame under way after them."""
        in_use = F.pad(in_use, (0, self._unused), value=False)
        in_use = F.pad(in_use, (0, self.tokens), value=True)[:, None, None]
        return additive_mask(in_use, self.keys.dtype)

    def commit(self) -> None:
        """Keep the frame under way, whose keys and values a forward pass has just put into the last slots.

        It takes the place of the frame that leaves the window, whose last token becomes a summary.
        """
        place = self._next % self.window * self.tokens
        summary = self.window * self.tokens + self._next % self.summary_window
        for buffer in (self.keys, self.values):
            buffer[..., summary, :] = buffer[..., place + self.tokens - 1, :]
            buffer[..., place : place + self.tokens, :] = buffer[..., -self.tokens :, :]
        self._advance(1)

    def fill(self, recorders: Sequence[_Recorder]) -> None:
        """Keep the frames that one pass over several has shown to :meth:`recorders`. The memory must be empty."""
        frames = recorders[0].keys.shape[2] // self.tokens
        for buffer, seen in ((self.keys, [r.keys for r in recorders]), (self.values, [r.values for r in recorders])):
            for layer, tensor in zip(buffer, seen, strict=True):
                each = tensor.unflatten(2, (frames, self.tokens))
                for frame in range(max(0, frames - self.window), frames):
                    place = frame % self.window * self.tokens
                    layer[:, :, place : place + self.tokens] = each[:, :, frame]
                oldest = max(0, frames - self.window - self.summary_window)
                for frame in range(oldest, frames - self.window):
                    # As if it had left the window when the frame that took its place was committed.
                    summary = (frame + self.window) % self.summary_window
                    layer[:, :, self.window * self.tokens + summary] = each[:, :, frame, -1]
        self._advance(frames)

    def _advance(self, frames: int) -> None:
        self._next += frames
        self.count += frames
        self._least += frames

    def clear(self) -> None:
        """Forget everything."""
        self.count.zero_()
        self._next = self._least = 0

    def put(self, worlds: list[int], other: HistoryMemory) -> None:
        """Replace the history of some worlds by that of ``other``, one of its worlds each."""
        index = torch.tensor(worlds, device=self.count.device)
        if self._next == 0:  # nothing is kept yet: take the same places as the other, and so round as it does
            self._next = other._next
        turn = self._next - other._next  # between the places of the newest frames
        recent = self.window * self.tokens
        for own, theirs in ((self.keys, other.keys), (self.values, other.values)):
            frames = theirs[:, :, :, :recent].roll(turn * self.tokens, 3)
            summaries = theirs[:, :, :, recent : self.slots].roll(turn, 3)
            own[:, index, :, : self.slots] = torch.cat([frames, summaries], 3)
        self.count[index] = other.count
        self._least = int(self.count.min())

    def state(self) -> dict[str, Any]:
        """A copy of everything, for :meth:`load_state`."""
        return {
            "keys": self.keys.clone(),
            "values": self.values.clone(),
            "count": self.count.clone(),
            "next": self._next,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.keys.copy_(state["keys"])
        self.values.copy_(state["values"])
        self.count.copy_(state["count"])
        self._next, self._least = state["next"], int(self.count.min())


def history_mask(frames: int, transformer: AstraTransformer) -> Tensor:
    """What may attend to what when a history is taken in in one pass, boolean ``(frames * S, frames * S)``."""
    tokens = frames * transformer.tokens_per_frame
    return training_mask(frames, transformer)[:tokens, :tokens]


def additive_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as what attention adds to scores: 0 where it is True, else -inf."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)


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
