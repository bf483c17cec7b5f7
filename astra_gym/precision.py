"""Devices, and which floating-point numbers each computes best in."""

from __future__ import annotations

import torch


def usable_device(device: str | torch.device) -> torch.device:
    """The device called ``device``.

    Raises:
        ValueError: if torch cannot use it here.
    """
    try:
        target = torch.device(device)
        torch.empty(0, dtype=torch.float64, device=target)  # in which angles are computed
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"device: got {device!r}, which torch cannot use here ({reason})") from error
    return target


def native_dtype(device: str | torch.device) -> torch.dtype:
    """bfloat16 where the device has instructions for it, else float32.

    A processor without them emulates bfloat16, which takes a hundred times as long as float32.
    """
    if torch.device(device).type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        processor = torch.cpu.get_capabilities()
        native = bool(processor.get("avx512_bf16") or processor.get("amx_bf16"))
    return torch.bfloat16 if native else torch.float32


def computes_in_bf16(device: str | torch.device, asked: bool | None = None) -> bool:
    """Whether to compute in bfloat16: as asked, or where the device is made for it."""
    return native_dtype(device) == torch.bfloat16 if asked is None else asked


def resolve_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """A torch dtype from its name; None is float32.

    Raises:
        ValueError: if it is another than float32, bfloat16 and float16.
    """
    resolved = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype or torch.float32
    if resolved not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"dtype: got {dtype!r}, allowed are float32, bfloat16, float16 (and int8 for bundles)")
    return resolved
