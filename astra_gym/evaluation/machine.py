"""What this machine can do: its clock, its memory and its matrix products."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch


def describe(device: torch.device) -> dict[str, Any]:
    """Names and numbers that figures of speed should be read with."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load_before": round(os.getloadavg()[0], 1),
    }


def seconds_of(work: Callable[[], object], times: int, device: torch.device) -> list[float]:
    """Seconds of each of so many runs, each until the device has finished."""
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begin)
    return seconds


def median_seconds(work: Callable[[], object], times: int, device: torch.device) -> float:
    """Median of so many runs, each until the device has finished."""
    return sorted(seconds_of(work, times, device))[times // 2]


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating point operations a second of a large square matrix product, once the processor is up to speed."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    times = min(100, max(3, int(0.5 / median_seconds(lambda: a @ b, 3, device))))  # a processor may emulate bfloat16
    median_seconds(lambda: a @ b, times, device)  # warms up: wide units start slowly
    return 2 * size**3 / median_seconds(lambda: a @ b, times, device)


def product_seconds(seconds: float, times: int, device: torch.device) -> list[float]:
    """The machine's own jitter: seconds of each of so many runs of matrix products that take about ``seconds``."""
    a, b, result = torch.randn(3, 512, 512, device=device)
    products = max(1, round(seconds / median_seconds(lambda: torch.mm(a, b, out=result), 5, device)))

    def run() -> None:
        for _ in range(products):
            torch.mm(a, b, out=result)

    return seconds_of(run, times, device)


def measure_memory(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that ``work`` takes, and by how many bytes this process's memory grows at its peak (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, begin = memory("VmRSS"), time.perf_counter()
    work()
    return time.perf_counter() - begin, memory("VmHWM") - before


def memory(field: Literal["VmRSS", "VmHWM"]) -> float:
    """Bytes of memory that this process holds now, or held at its peak (Linux; NaN elsewhere)."""
    if sys.platform != "linux":
        return float("nan")
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return 1024.0 * int(line.split()[1])
