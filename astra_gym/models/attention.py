"""Attention with rotary positions and a cache of what came before."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astra_gym.models.layers import Linear

KeysValues = tuple[Tensor, Tensor]
"""Keys and values, each ``(B, heads, tokens, head_dim)``."""


class LayerCache(Protocol):
    """Where one layer's attention finds the keys and values of history."""

    def extend(self, keys: Tensor, values: Tensor) -> KeysValues:
        """History's keys and values followed by the given ones, each ``(B, heads, tokens, head_dim)``."""


def rotary_angles(positions: Tensor, head_dim: int) -> Tensor:
    """Angles of the 3-D rotary embedding, ``(..., head_dim / 2)``, from positions ``(..., 3)`` in time, height, width.

    Height and width take a third of the head each, rounded down to pairs, time the rest (as in Wan2.1); base 10,000.
    Computed in float64, since time grows without bound.
    """
    spatial = 2 * (head_dim // 6)
    angles = []
    for axis, dim in enumerate((head_dim - 2 * spatial, spatial, spatial)):
        frequencies = 10_000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim)
        angles.append(positions[..., axis, None].double() * frequencies)
    return torch.cat(angles, -1)


class Rotary(NamedTuple):
    """Rotary factors."""

    factors: Tensor
    """As complex numbers, broadcastable to ``(B, tokens, heads, head_dim / 2)``."""
    cosines: Tensor | None = None
    """For :meth:`rotate_halves`, broadcastable to ``(B, tokens, heads, head_dim)``."""
    sines: Tensor | None = None
    """The same, those of the first half negative."""

    @classmethod
    def from_positions(cls, positions: Tensor, head_dim: int, halves: torch.dtype | None = None) -> Rotary:
        """From positions ``(B, tokens, 3)``; with ``halves`` also what :meth:`rotate_halves` needs, in that dtype."""
        angles = rotary_angles(positions, head_dim).unsqueeze(-2)
        factors = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
        if halves is None:
            return cls(factors)
        cosine, sine = factors.real.to(halves), factors.imag.to(halves)
        return cls(factors, torch.cat([cosine, cosine], -1), torch.cat([-sine, sine], -1))

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate adjacent pairs of ``x (B, tokens, heads, head_dim)``."""
        pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * self.factors).flatten(-2).to(x.dtype)

    def rotate_halves(self, x: Tensor) -> Tensor:
        """Rotate pairs that lie half a head apart, which needs no detour through complex numbers."""
        assert self.cosines is not None and self.sines is not None
        return torch.addcmul(x * self.cosines, x.roll(x.shape[-1] // 2, -1), self.sines)


class Attention(nn.Module):
    """Multi-head attention with queries and keys RMS-normalised over the whole width."""

    def __init__(self, dim: int, num_heads: int, eps: float):
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(dim, dim)
        self.to_v = nn.Linear(dim, dim)
        self.to_out = nn.Linear(dim, dim)
        self.norm_q = nn.RMSNorm(dim, eps=eps)
        self.norm_k = nn.RMSNorm(dim, eps=eps)
        self.fused: FusedAttention | None = None

    def fuse(self, projector: nn.Linear, int8: bool = False) -> None:
        """For inference: what is done to queries, keys and values alike is done once, and so are output and
        ``projector``; if asked, in 8-bit integers."""
        self.fused = FusedAttention(self, projector, int8)

    def _heads(self, x: Tensor, rotary: Rotary | None = None) -> Tensor:
        x = x.unflatten(-1, (self.num_heads, -1))
        return (x if rotary is None else rotary.rotate(x)).transpose(1, 2)

    def keys_values(self, source: Tensor, rotary: Rotary | None = None) -> KeysValues:
        """What tokens ``(B, M, dim)``, such as a text's, are attended to by."""
        return self._heads(self.norm_k(self.to_k(source)), rotary), self._heads(self.to_v(source))

    def forward(
        self,
        x: Tensor,
        rotary: Rotary | None = None,
        context: KeysValues | None = None,
        mask: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Attend from tokens ``x (B, N, dim)`` to ``context``, by default to themselves and to history."""
        if context is None and rotary is not None and self.fused is not None:
            q, k, v = self.fused.queries_keys_values(x, rotary)
        else:
            q = self._heads(self.norm_q(self.to_q(x)), rotary)
            k, v = self.keys_values(x, rotary) if context is None else context
        if cache is not None:
            k, v = cache.extend(k, v)
        out = attend(q, k, v, mask)
        return (self.to_out if self.fused is None else self.fused.to_out)(out.transpose(1, 2).flatten(2))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention of ``(B, heads, tokens, head_dim)``.

    PyTorch's own for a CPU is made for long sequences. In bfloat16 two plain products take about half its time for the
    few tokens of a latent frame where there are many worlds, and little more where there is one; and about half its
    time for a clip in training.

    Args:
        q, k, v: queries, keys and values.
        mask: broadcastable to ``(B, heads, queries, keys)``: boolean, or what to add to the scaled scores, in their
            dtype.
    """
    few = q.shape[2] <= (1024 if torch.is_grad_enabled() else 32)
    plain = few and q.device.type == "cpu" and q.dtype == torch.bfloat16 and (mask is None or mask.dtype == q.dtype)
    if not plain or torch.compiler.is_compiling():  # the compiler knows PyTorch's own
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scale, scores = q.shape[-1] ** -0.5, q @ k.transpose(-1, -2)
    scores = scores.mul_(scale) if mask is None else torch.add(mask, scores, alpha=scale)
    return scores.softmax(-1) @ v


class FusedAttention:
    """Copies of an attention's weights: q, k and v beside each other, the projector multiplied into the output.

    Channels of queries and keys are in another order in each head, which their products do not notice: those that the
    rotary embedding takes as a pair lie half a head apart.
    """

    @torch.no_grad()
    def __init__(self, attention: Attention, projector: nn.Linear, int8: bool):
        self.num_heads, self.eps = attention.num_heads, attention.norm_q.eps
        layers = (attention.to_q, attention.to_k)
        weight = torch.cat([*(self._by_halves(layer.weight) for layer in layers), attention.to_v.weight])
        bias = torch.cat([*(self._by_halves(layer.bias) for layer in layers), attention.to_v.bias])
        self.to_qkv = _packed(weight, bias, int8)
        norms = (attention.norm_q, attention.norm_k)
        self.norm_weight = torch.stack([self._by_halves(norm.weight) for norm in norms])
        outer, inner = projector.weight.float(), attention.to_out
        bias = outer @ inner.bias.float() + projector.bias
        weight = (outer @ inner.weight.float()).to(inner.weight.dtype)
        self.to_out = _packed(weight, bias.to(inner.bias.dtype), int8)

    def _by_halves(self, rows: Tensor) -> Tensor:
        """Rows in the order: the first of all pairs of a head, then the second ones."""
        return rows.unflatten(0, (self.num_heads, -1, 2)).transpose(1, 2).flatten(0, 2)

    def queries_keys_values(self, x: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        """Each ``(B, heads, N, head_dim)`` from tokens ``(B, N, dim)``."""
        qkv = self.to_qkv(x).unflatten(-1, (3, -1))
        both = qkv[:, :, :2]
        length = torch.linalg.vector_norm(both, dim=-1, keepdim=True, dtype=torch.float32)
        inverse = (length.square_() / both.shape[-1] + self.eps).rsqrt_()
        both = (both * inverse.to(both.dtype)).mul_(self.norm_weight)
        q, k = rotary.rotate_halves(both.flatten(2).unflatten(-1, (2 * self.num_heads, -1))).transpose(1, 2).chunk(2, 1)
        return q, k, qkv[:, :, 2].unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def _packed(weight: Tensor, bias: Tensor, int8: bool) -> Linear:
    layer = Linear(weight.shape[1], weight.shape[0])
    layer.weight, layer.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
    layer.pack(int8)
    return layer
