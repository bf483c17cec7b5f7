"""A linear layer that can keep its matrix as the processor's matrix product wants it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """``torch.nn.Linear``, with a GELU after it if asked for, that :meth:`pack` makes faster at inference.

    For bfloat16 on a CPU, PyTorch rearranges a layer's matrix into oneDNN's blocks at every call, which for few tokens
    takes longer than the product. A packed layer keeps a rearranged copy.

    Args:
        in_features, out_features: as for ``torch.nn.Linear``.
        gelu: apply a GELU (tanh approximation) to the result.
    """

    def __init__(self, in_features: int, out_features: int, gelu: bool = False):
        super().__init__(in_features, out_features)
        self.gelu = gelu
        self._packed: Tensor | None = None

    @torch.no_grad()
    def pack(self) -> None:
        """Prepare for inference where that pays. Weights must not change afterwards, nor move."""
        if can_pack(self.weight):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        if self._packed is not None:
            after, kind = ("gelu", "tanh") if self.gelu else ("none", "")
            return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, after, [], kind)
        x = super().forward(x)
        return F.gelu(x, approximate="tanh") if self.gelu else x


def can_pack(weight: Tensor) -> bool:
    """Whether this PyTorch has oneDNN for such a matrix, and calls of it pay."""
    return weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and torch.backends.mkldnn.is_available()
