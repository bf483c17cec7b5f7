"""Pictures that go with the figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def save_grid(path: Path, frames: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str = "") -> None:
    """A labelled table of frames as a PNG.

    Args:
        path: of the file; its folder must exist.
        frames: ``uint8 (R, C, H, W, 3)``.
        rows: ``R`` labels.
        columns: ``C`` labels.
        title: above the table.
    """
    from matplotlib.figure import Figure

    count_down, count_across, height, width = frames.shape[:4]
    gap = 2
    canvas = np.full((count_down * (height + gap), count_across * (width + gap), 3), 255, np.uint8)
    for i in range(count_down):
        for j in range(count_across):
            top, left = i * (height + gap), j * (width + gap)
            canvas[top : top + height, left : left + width] = frames[i, j]
    figure = Figure(figsize=(1.2 + 1.05 * count_across, 0.6 + 1.05 * count_down), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(canvas, interpolation="nearest")
    axes.set_xticks(np.arange(count_across) * (width + gap) + width / 2, columns, fontsize=8)
    axes.set_yticks(np.arange(count_down) * (height + gap) + height / 2, rows, fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=9)
    figure.savefig(path, bbox_inches="tight")


def save_curves(
    path: Path,
    blocks: Sequence[int],
    curves: dict[str, Sequence[float]],
    block_seconds: float,
    ylabel: str,
    title: str,
) -> None:
    """Lines against the number of dreamt blocks as a PNG; baselines are dashed, worlds are solid."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for name, values in curves.items():
        axes.plot(blocks, values, "-o" if name.startswith("world") else "--", markersize=3.5, label=name)
    axes.set_xlabel(f"blocks dreamt ({block_seconds:g} s each)")
    axes.set_ylabel(ylabel)
    axes.set_xticks(list(blocks))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    axes.set_title(title, fontsize=9)
    figure.savefig(path, bbox_inches="tight")
