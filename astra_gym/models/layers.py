"""Linear and convolutional layers that can keep their weights as the processor's products want them."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_PACKED = 4
"""Shapes of its input, with the threads at work, for which a packed convolution keeps rearranged weights."""


class Linear(nn.Linear):
    """``torch.nn.Linear``, with a GELU after it if asked for, that :meth:`pack` makes faster at inference.

    On a CPU, PyTorch rearranges a layer's matrix into oneDNN's blocks at every call, which for few tokens takes longer
    than the product. A packed layer keeps a rearranged copy, or one in 8-bit integers.

    Args:
        in_features, out_features: as for ``torch.nn.Linear``.
        gelu: apply a GELU (tanh approximation) to the result.
    """

    def __init__(self, in_features: int, out_features: int, gelu: bool = False):
        super().__init__(in_features, out_features)
        self.gelu = gelu
        self._packed: Tensor | None = None
        self._quantized: Any = None

    @torch.no_grad()
    def pack(self, int8: bool = False) -> None:
        """Prepare for inference where that pays. Weights must not change afterwards, nor move.

        With ``int8`` the product is one of 8-bit integers: weights are rounded once, to 255 levels a row, inputs at
        every call, to 128 levels between the least and the largest (what AVX2's instructions hold without overflow).
        """
        if int8:
            self._quantized = _in_int8(self.weight, self.bias)
        elif can_pack(self.weight):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        if self._packed is not None and not torch.compiler.is_compiling():  # the compiler packs by itself
            after, kind = ("gelu", "tanh") if self.gelu else ("none", "")
            return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, after, [], kind)
        if self._quantized is not None:
            x = torch.ops.quantized.linear_dynamic(x, self._quantized, True)
        else:
            x = super().forward(x)
        return F.gelu(x, approximate="tanh") if self.gelu else x


class Conv2d(nn.Conv2d):
    """``torch.nn.Conv2d``, with a SiLU after it if asked for, that :meth:`pack` makes faster at inference.

    What holds for :class:`Linear` holds for a convolution: PyTorch rearranges its weights at every call.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, groups: as for ``torch.nn.Conv2d``.
        silu: apply a SiLU to the result.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        silu: bool = False,
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, groups=groups)
        self.silu = silu
        self._packs = False
        self._packed: dict[tuple[int, ...], Tensor] = {}

    def pack(self) -> None:
        """Prepare for inference where that pays. Weights must not change afterwards, nor move.

        How oneDNN wants them depends on the pictures and the threads, so they are rearranged when such pictures first
        come. Its guess without them costs ten times the product on a processor with AVX2 and no AVX512.
        """
        self._packs = can_pack(self.weight) and self.kernel_size != (1, 1)
        self._packed.clear()

    @torch.no_grad()
    def _weight_for(self, x: Tensor) -> Tensor:
        key = (*x.shape, torch.get_num_threads())
        if key not in self._packed:
            if len(self._packed) == MOST_PACKED:
                self._packed.clear()
            layout = (self.padding, self.stride, self.dilation, self.groups)
            weight = self.weight.detach()
            self._packed[key] = torch.ops.mkldnn._reorder_convolution_weight(weight, *layout, x.shape)
        return self._packed[key]

    def forward(self, x: Tensor, base: Tensor | None = None) -> Tensor:
        """Convolve ``x (B, C, H, W)``; with ``base``, which may be overwritten, add the result to that."""
        if self._packs and not torch.compiler.is_compiling():
            layout = (self._weight_for(x), self.bias, self.padding, self.stride, self.dilation, self.groups)
            if base is not None and not self.silu:
                return torch.ops.mkldnn._convolution_pointwise_.binary(base, x, *layout, "add", None, None, [], None)
            x = torch.ops.mkldnn._convolution_pointwise(x, *layout, "swish" if self.silu else "none", [], "")
        else:
            x = super().forward(x)
            x = F.silu(x) if self.silu else x
        return x if base is None else base + x


def can_pack(weight: Tensor) -> bool:
    """Whether this PyTorch and this processor have oneDNN's product for such a matrix."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32


def can_quantize() -> bool:
    """Whether this PyTorch has products of 8-bit integers for this processor."""
    engines = {"x86", "fbgemm", "onednn"}
    return hasattr(torch.ops.quantized, "linear_dynamic") and torch.backends.quantized.engine in engines


def _in_int8(weight: Tensor, bias: Tensor) -> Any:
    """A layer's weights as the product of 8-bit integers wants them."""
    scale = weight.detach().float().abs().amax(1).clamp(min=1e-8) / 127
    with warnings.catch_warnings():
        # PyTorch means to move its quantised tensors elsewhere; until then this is the one way to fill its product.
        warnings.filterwarnings("ignore", message=".*quantized tensor creation functions", category=UserWarning)
        rounded = torch.quantize_per_channel(
            weight.detach().float(), scale, torch.zeros(len(scale), dtype=torch.long), 0, torch.qint8
        )
        return torch.ops.quantized.linear_prepack(rounded, bias.detach().float())
