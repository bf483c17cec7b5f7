"""The Astra transformer: Wan's block with an action-aware adapter, over video latents.

Read it from the top: feed-forward → block → model; attention has a module of its own. Two attention layouts
share all of it:

- "causal" (the bundled world): every latent frame attends to itself, to the frames of a sliding window before it and,
  farther back, to one summary token a frame. Keys and values of history are computed once (:mod:`astra_gym.memory`).
- "packed" (the released weights): history is compressed into a few tokens that attend both ways.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astra_gym.models.action_experts import ActionEncoder, ActionExperts, RoutedActions, join_experts
from astra_gym.models.attention import Attention, KeysValues, LayerCache, Rotary
from astra_gym.models.base import ConfigMixin, ModelMixin, apply_forward_hook, register_to_config
from astra_gym.models.layers import Conv2d, Linear
from astra_gym.models.packing import HistoryEmbedding, plan_packing, token_layout


class FeedForward(nn.Module):
    """Two linear layers around a GELU; optionally before them a depthwise 3x3 convolution over each frame's tokens."""

    def __init__(self, dim: int, hidden_dim: int, local_grid: tuple[int, int] | None):
        super().__init__()
        self.linear_in = Linear(dim, hidden_dim, gelu=True)
        self.linear_out = Linear(hidden_dim, dim)
        self.local_grid = local_grid
        if local_grid is not None:
            self.local_mix = Conv2d(dim, dim, 3, padding=1, groups=dim)
            for parameter in self.local_mix.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """``x (B, F, S, dim)``; with a grid, its first h * w tokens of each frame are the frame's own."""
        if self.local_grid is not None:
            x = self._mix(x, *self.local_grid)
        return self.linear_out(self.linear_in(x))

    def _mix(self, x: Tensor, height: int, width: int) -> Tensor:
        own, others = x.split([height * width, x.shape[2] - height * width], 2)
        grid = own.flatten(0, 1).unflatten(1, (height, width)).permute(0, 3, 1, 2)
        mixed = self.local_mix(grid).permute(0, 2, 3, 1).flatten(1, 2)
        return torch.cat([own + mixed.view_as(own), others], 2)


class AstraBlock(nn.Module):
    """Wan's block with the action-aware adapter: experts before self-attention, a projector after it."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        ffn_dim: int,
        eps: float,
        num_experts: int,
        code_dim: int,
        cross_attention: bool,
        local_grid: tuple[int, int] | None,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps, elementwise_affine=False)
        self.experts = ActionExperts(num_experts, code_dim, dim)
        self.attn1 = Attention(dim, num_heads, eps)
        self.projector = nn.Linear(dim, dim)
        nn.init.eye_(self.projector.weight)
        nn.init.zeros_(self.projector.bias)
        if cross_attention:
            self.norm2 = nn.LayerNorm(dim, eps=eps)
            self.attn2 = Attention(dim, num_heads, eps)
        self.norm3 = nn.LayerNorm(dim, eps=eps, elementwise_affine=False)
        self.ffn = FeedForward(dim, ffn_dim, local_grid)
        self.scale_shift_table = nn.Parameter(torch.randn(6, dim) * dim**-0.5)

    def forward(
        self,
        x: Tensor,
        actions: Tensor,
        modulation: Tensor,
        rotary: Rotary,
        context: KeysValues | None = None,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """One block.

        Args:
            x: tokens ``(B, F, S, dim)``: F latent frames (or one sequence) of S tokens.
            actions: the experts' output for each token's latent frame, broadcastable to ``x``.
            modulation: what to add, multiply by and gate by, of :meth:`AstraTransformer.modulation`,
                ``(B, F, 6, dim)``.
            rotary: of all F * S tokens.
            context: keys and values of the text, or None.
            mask: attention mask over the F * S tokens (and history), or None.
            cache: keys and values of history, or None.
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.unsqueeze(3).unbind(2)
        h = torch.addcmul(shift1 + actions, self.norm1(x), scale1)
        h = self.attn1(h.flatten(1, 2), rotary, mask=mask, cache=cache)
        if self.attn1.fused is None:
            h = self.projector(h)
        x = torch.addcmul(x, gate1, h.view_as(x))
        if context is not None:
            x = x + self.attn2(self.norm2(x).flatten(1, 2), context=context).view_as(x)
        return torch.addcmul(x, gate2, self.ffn(torch.addcmul(shift2, self.norm3(x), scale2)))


class TimeEmbedding(nn.Module):
    """Noise level to modulation: a sinusoid, an MLP, and the projection that all blocks share."""

    def __init__(self, freq_dim: int, dim: int):
        super().__init__()
        self.freq_dim = freq_dim
        self.linear_1 = nn.Linear(freq_dim, dim)
        self.linear_2 = nn.Linear(dim, dim)
        self.projection = nn.Linear(dim, 6 * dim)

    def forward(
        self, noise_level: Tensor, dtype: torch.dtype | None = None, condition: Tensor | float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Levels ``(...)`` in [0, 1] to the embedding ``(..., dim)`` and the blocks' modulation ``(..., 6, dim)``.

        Computed in ``dtype``, by default that of the weights. ``condition`` is added to the embedding.
        """
        dtype = dtype or self.linear_1.weight.dtype
        half = self.freq_dim // 2
        exponent = torch.arange(half, dtype=torch.float64, device=noise_level.device) / half
        angles = 1000.0 * noise_level.double()[..., None] * torch.exp(-math.log(10_000.0) * exponent)
        sinusoid = torch.cat([angles.cos(), angles.sin()], -1).to(dtype)
        hidden = F.silu(_linear_in(dtype, self.linear_1, sinusoid))
        embedding = _linear_in(dtype, self.linear_2, hidden) + condition
        return embedding, _linear_in(dtype, self.projection, F.silu(embedding)).unflatten(-1, (6, -1))


def _linear_in(dtype: torch.dtype, layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight.to(dtype), layer.bias.to(dtype))


class PackedHistory(NamedTuple):
    """A packed sequence but for the new frames' latents: what stays the same while they are denoised."""

    tokens: Tensor
    """(B, M, dim): history's tokens."""
    rotary: Rotary
    """Of all tokens, history's and the new frames'."""
    rows: Tensor
    """int64 (N,): row of the actions that each token takes; the row after the last stands for none."""


class Conditioning(NamedTuple):
    """What all passes over the same latent frames share, whatever those look like."""

    embedding: Tensor
    """(B, F, dim): of time, action and prompt."""
    modulation: Tensor
    """(B, F, blocks, 6, dim)"""
    adapters: list[Tensor]
    """For each block ``(B, F, 1, dim)``: what the experts say of the actions."""
    rotary: Rotary
    actions: RoutedActions
    noise_level: Tensor
    """(B, F)"""

    def at(self, i: int) -> Conditioning:
        """Of the i-th noise level alone, for one frame at several levels."""
        return self._replace(
            embedding=self.embedding[:, i, None],
            modulation=self.modulation[:, i, None],
            noise_level=self.noise_level[:, i, None],
        )


class TransformerOutput(NamedTuple):
    sample: Tensor
    """(B, F, C, h, w): the network's output for each latent frame, or for the last ones."""
    features: Tensor
    """(B, F, 2 * dim): what the heads read: the mean over a frame's tokens, and its summary token.

    Packed: ``(B, F, dim)``, the mean."""
    actions: RoutedActions


class AstraTransformer(ModelMixin, ConfigMixin):
    """Diffusion transformer over latent frames, conditioned on an action a frame.

    Args:
        in_channels: channels C of a latent frame.
        latent_size: height and width of a latent frame (causal; the packed layout takes any size).
        patch_size: side of the square of latents that makes a token.
        num_attention_heads, attention_head_dim: their product is the width.
        num_layers, ffn_dim, freq_dim, eps: as in Wan2.1.
        text_dim: width of text embeddings for cross-attention, None for none.
        attention: "causal" or "packed" (see the module's docstring).
        window: latent frames of history that are attended to in full (causal).
        summary_window: latent frames before those that are seen through their summary token (causal).
        condition_on_previous: give each frame's tokens the latent before it as further channels (causal).
        local_mixing: depthwise 3x3 convolution over each frame's tokens in the feed-forward (causal).
        modalities: row length of each modality's actions.
        scenario_prompt: learn a vector for each modality that tells the model which world it is in (causal).
        action_modulation: let further experts add the action to the time embedding too, so that it also scales and
            gates what the blocks compute (causal).
        action_dim: width of the shared action space.
        action_hidden_dim: hidden width of the modality projectors, None for a single linear layer.
        num_experts, top_k, routing: the mixture of action experts; routing is "learned" or "fixed".
        expert_order: with fixed routing the modalities in the order of their experts, None for that of ``modalities``
            (which a saved config does not keep).
    """

    blocks: Iterable[AstraBlock]

    @register_to_config
    def __init__(
        self,
        in_channels: int = 32,
        latent_size: tuple[int, int] = (8, 8),
        patch_size: int = 2,
        num_attention_heads: int = 4,
        attention_head_dim: int = 64,
        num_layers: int = 6,
        ffn_dim: int = 1024,
        freq_dim: int = 256,
        eps: float = 1e-6,
        text_dim: int | None = None,
        attention: str = "causal",
        window: int = 6,
        summary_window: int = 10,
        condition_on_previous: bool = True,
        local_mixing: bool = True,
        modalities: dict[str, int] | None = None,
        scenario_prompt: bool = False,
        action_modulation: bool = False,
        action_dim: int = 25,
        action_hidden_dim: int | None = 128,
        num_experts: int = 4,
        top_k: int = 2,
        routing: str = "learned",
        expert_order: list[str] | None = None,
    ):
        super().__init__()
        if attention not in ("causal", "packed"):
            raise ValueError(f"attention: got {attention!r}, allowed are 'causal' and 'packed'")
        if not modalities:
            raise ValueError("modalities: name at least one, as {name: row length}")
        expert_order = expert_order or list(modalities)
        self.register_to_config(expert_order=expert_order)
        row_dims = {name: modalities[name] for name in expert_order}
        dim = num_attention_heads * attention_head_dim
        grid = (latent_size[0] // patch_size, latent_size[1] // patch_size)
        patch_dim = in_channels * patch_size**2
        if attention == "packed" and (condition_on_previous or local_mixing):
            raise ValueError("attention: the packed layout has neither condition_on_previous nor local_mixing")
        self.patch_embedding = Linear(patch_dim * (2 if condition_on_previous else 1), dim)
        if attention == "causal":
            self.summary_embedding = Linear(in_channels * latent_size[0] * latent_size[1], dim)
        else:
            self.history_embedding = HistoryEmbedding(in_channels, dim)
        if text_dim is not None:
            self.text_embedding = nn.Sequential(
                nn.Linear(text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
            )
        self.time_embedding = TimeEmbedding(freq_dim, dim)
        if scenario_prompt:
            self.scenario_embedding = nn.Embedding(len(modalities), dim)
            nn.init.zeros_(self.scenario_embedding.weight)
        if action_modulation:
            self.modulation_experts = ActionExperts(num_experts, action_dim, dim)
            nn.init.zeros_(self.modulation_experts.weight)
        self.action_encoder = ActionEncoder(row_dims, action_dim, action_hidden_dim, num_experts, top_k, routing)
        self.blocks = nn.ModuleList(  # type: ignore[assignment]
            AstraBlock(
                dim,
                num_attention_heads,
                ffn_dim,
                eps,
                num_experts,
                action_dim,
                cross_attention=text_dim is not None,
                local_grid=grid if local_mixing else None,
            )
            for _ in range(num_layers)
        )
        self.norm_out = nn.LayerNorm(dim, eps=eps, elementwise_affine=False)
        self.proj_out = Linear(dim, patch_dim)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)
        self.scale_shift_table = nn.Parameter(torch.randn(2, dim) * dim**-0.5)
        self._fused_experts: Callable[[RoutedActions], Tensor] | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens a latent frame has in height and width."""
        height, width = self.config.latent_size
        return height // self.config.patch_size, width // self.config.patch_size

    @property
    def tokens_per_frame(self) -> int:
        """Tokens a latent frame has in the causal layout: its patches and its summary."""
        return self.grid[0] * self.grid[1] + 1

    def positions(self, times: Tensor) -> Tensor:
        """Rotary positions ``(..., S, 3)`` of the tokens of frames at ``times (...)``, the summary's at the centre."""
        height, width = self.grid
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        place = torch.stack([rows.flatten(), columns.flatten()], -1).double()
        place = torch.cat([place, place.mean(0, keepdim=True)]).to(times.device)
        times = times.double()[..., None, None].expand(*times.shape, len(place), 1)
        return torch.cat([times, place.expand(*times.shape[:-1], 2)], -1)

    def _patchify(self, latents: Tensor) -> Tensor:
        """``(B, F, C, H, W)`` to ``(B, F, h * w, C * p * p)``."""
        p = self.config.patch_size
        x = latents.unflatten(-1, (-1, p)).unflatten(-3, (-1, p))  # B F C h p w p
        return x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)

    def _unpatchify(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """``(B, F, h * w, C * p * p)`` to ``(B, F, C, H, W)``."""
        p = self.config.patch_size
        x = patches.unflatten(2, grid).unflatten(-1, (-1, p, p))  # B F h w C p p
        return x.permute(0, 1, 4, 2, 5, 3, 6).flatten(-2).flatten(-3, -2)

    @property
    def scenarios(self) -> list[str]:
        """Names of the scenarios by their numbers."""
        return sorted(self.config.modalities)  # a saved config does not keep their order

    def prompt(self, scenarios: Sequence[str | None]) -> Tensor | None:
        """The scenario prompt ``(B, 1, dim)`` of B worlds; None for a world that is not told where it is.

        Returns None if the model takes no prompt.
        """
        if not self.config.scenario_prompt:
            return None
        names = self.scenarios
        if unknown := [name for name in scenarios if name is not None and name not in names]:
            raise ValueError(f"scenarios: got {unknown[0]!r}, this model knows {names}")
        told = torch.tensor([name is not None for name in scenarios], device=self.device)
        index = torch.tensor([0 if name is None else names.index(name) for name in scenarios], device=self.device)
        return (self.scenario_embedding(index) * told[:, None]).unsqueeze(1)

    @apply_forward_hook
    def embed_text(self, embeddings: Tensor) -> list[KeysValues]:
        """What the blocks attend to in a text, from its embeddings ``(B, M, text_dim)``. Needed once an episode."""
        text = self.text_embedding(embeddings)
        return [block.attn2.keys_values(text) for block in self.blocks]

    @apply_forward_hook
    def pack(self, history: Tensor, new: int) -> PackedHistory:
        """Prepare the packed layout. Needed once for the frames that are denoised together.

        Args:
            history: latents ``(B, T, C, H, W)``, oldest first; the newest 20 are used.
            new: latent frames to denoise.
        """
        height, width = history.shape[-2:]
        if height % self.config.patch_size or width % self.config.patch_size:
            raise ValueError(f"history: got latents of {height}x{width}, both must divide by {self.config.patch_size}")
        packing = plan_packing(history.shape[1], new)
        positions, rows = (tensor.to(history.device) for tensor in token_layout(packing, height, width))
        rotary = Rotary.from_positions(positions, self.config.attention_head_dim)
        return PackedHistory(self.history_embedding(history, packing), rotary, rows)

    def forward(
        self,
        latents: Tensor,
        noise_level: Tensor,
        actions: RoutedActions,
        times: Tensor | None = None,
        previous: Tensor | None = None,
        mask: Tensor | None = None,
        caches: Sequence[LayerCache] | None = None,
        context: list[KeysValues] | None = None,
        history: PackedHistory | None = None,
        prompt: Tensor | None = None,
        wanted: int | None = None,
    ) -> TransformerOutput:
        """Predict.

        Args:
            latents: noisy latent frames ``(B, F, C, H, W)``.
            noise_level: of each frame, ``(B, F)`` in [0, 1]; packed: of all frames, ``(B, 1)``.
            actions: each frame's action out of :attr:`action_encoder`, tensors ``(B, F, ...)``; packed: those of the
                window, see :func:`astra_gym.models.packing.window_rows`.
            times: index in time of each frame, ``(B, F)``; only differences matter (causal).
            previous: the latent frame before each, ``(B, F, C, H, W)``, zeros where there is none (causal).
            mask: boolean, or added to scores, ``(tokens, keys)`` or ``(B, 1, tokens, keys)`` (causal).
            caches: for each layer the keys and values of history (causal).
            context: of :meth:`embed_text`, for cross-attention.
            history: of :meth:`pack` (packed).
            prompt: of :meth:`prompt` (causal).
            wanted: how many of the last frames are predicted, None for all; features are of all (causal).
        """
        if history is not None:
            return self._forward_packed(latents, noise_level, actions, context, history)
        if times is None:
            raise ValueError("times, history: the causal layout needs the first, the packed one the second")
        conditioning = self.condition(noise_level, actions, times, prompt)
        return self.predict(latents, conditioning, previous, mask, caches, context, wanted)

    def condition(
        self, noise_level: Tensor, actions: RoutedActions, times: Tensor, prompt: Tensor | None = None
    ) -> Conditioning:
        """What :meth:`predict` needs beside the latents; arguments as of :meth:`forward` in the causal layout.

        One frame at several levels, ``noise_level (B, levels)`` with actions and times of ``F = 1``, is computed at
        once; choose a level with :meth:`Conditioning.at`.
        """
        condition: Tensor | float = 0.0 if prompt is None else prompt
        layers = self._expert_layers()
        if self._fused_experts is None:
            outputs = [experts(actions) for experts in layers]
        else:
            outputs = list(self._fused_experts(actions).chunk(len(layers), -1))
        if self.config.action_modulation:
            condition = condition + outputs.pop()
        embedding, projected = self.time_embedding(noise_level, condition=condition)
        modulation = self.modulation(projected, projected.dtype)
        positions = self.positions(times).flatten(1, 2)
        halves = None if self._fused_experts is None else self.dtype
        rotary = Rotary.from_positions(positions, self.config.attention_head_dim, halves)
        adapters = [output.unsqueeze(2) for output in outputs]
        return Conditioning(embedding, modulation, adapters, rotary, actions, noise_level)

    def _expert_layers(self) -> list[ActionExperts]:
        """The experts of every block, and last those that modulate."""
        own = [self.modulation_experts] if self.config.action_modulation else []
        return [*(block.experts for block in self.blocks), *own]

    def modulation(self, projected: Tensor, dtype: torch.dtype) -> Tensor:
        """What each block adds, multiplies by and gates by, twice, ``(B, F, blocks, 6, dim)``: its own table, and what
        all get from the time embedding, ``(B, F, 6, dim)``; a factor is one more than the scale that these hold."""
        tables = torch.stack([block.scale_shift_table for block in self.blocks])
        one = tables.new_tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0])[:, None]
        return (tables + one + projected.float().unsqueeze(2)).to(dtype)

    def predict(
        self,
        latents: Tensor,
        conditioning: Conditioning,
        previous: Tensor | None = None,
        mask: Tensor | None = None,
        caches: Sequence[LayerCache] | None = None,
        context: list[KeysValues] | None = None,
        wanted: int | None = None,
    ) -> TransformerOutput:
        """The causal layout's pass over the blocks; arguments as of :meth:`forward`."""
        inputs = self._patchify(latents)
        if previous is not None:
            inputs = torch.cat([inputs, self._patchify(previous)], -1)
        tokens = self.patch_embedding(inputs)
        summary = self.summary_embedding(latents.flatten(2)).unsqueeze(2)
        x = torch.cat([tokens, summary], 2)
        for i, block in enumerate(self.blocks):
            text, cache = context[i] if context else None, caches[i] if caches else None
            modulation = conditioning.modulation[:, :, i]
            x = block(x, conditioning.adapters[i], modulation, conditioning.rotary, text, mask, cache)
        x = self.norm_out(x)
        features = torch.cat([x[:, :, :-1].mean(2), x[:, :, -1]], -1)
        kept = slice(x.shape[1] - wanted, None) if wanted is not None else slice(None)
        sample = self._project_out(x[:, kept, :-1], conditioning.embedding[:, kept])
        return TransformerOutput(self._unpatchify(sample, self.grid), features, conditioning.actions)

    def fuse(self, int8: bool = False) -> AstraTransformer:
        """Prepare for inference: fewer, larger matrix products. Weights must not change afterwards, nor move.

        With ``int8`` the blocks' products are of 8-bit integers; what comes in and goes out is not.
        """
        for block in self.blocks:
            block.attn1.fuse(block.projector, int8)
        self._fused_experts = join_experts(self._expert_layers())
        for name, module in self.named_modules():
            if isinstance(module, Linear):
                module.pack(int8 and name.startswith("blocks."))
            elif isinstance(module, Conv2d):
                module.pack()
        return self

    def _forward_packed(
        self,
        latents: Tensor,
        noise_level: Tensor,
        actions: RoutedActions,
        context: list[KeysValues] | None,
        history: PackedHistory,
    ) -> TransformerOutput:
        grid = (latents.shape[-2] // self.config.patch_size, latents.shape[-1] // self.config.patch_size)
        tokens = self.patch_embedding(self._patchify(latents))
        x = torch.cat([history.tokens, tokens.flatten(1, 2)], 1).unsqueeze(1)
        embedding, projected = self.time_embedding(noise_level, torch.float32)
        modulation = self.modulation(projected, x.dtype)
        # A token without an action has the zero code, not the row of zeros.
        rows = RoutedActions(F.pad(actions.code, (0, 0, 0, 1)), *(torch.cat([t, t[:, -1:]], 1) for t in actions[1:]))
        for i, block in enumerate(self.blocks):
            adapter = block.experts(rows)[:, history.rows].unsqueeze(1)
            x = block(x, adapter, modulation[:, :, i], history.rotary, context[i] if context else None)
        x = self.norm_out(x[:, 0, history.tokens.shape[1] :]).unflatten(1, (latents.shape[1], -1))
        sample = self._project_out(x, embedding)
        return TransformerOutput(self._unpatchify(sample, grid), x.mean(2), actions)

    def _project_out(self, x: Tensor, embedding: Tensor) -> Tensor:
        shift, scale = (self.scale_shift_table + embedding.float().unsqueeze(2)).unsqueeze(3).unbind(2)
        return self.proj_out(torch.addcmul(shift.to(x.dtype), x, (1 + scale).to(x.dtype)))
