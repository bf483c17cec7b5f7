"""Measures of frames. Blocks are ``uint8 (..., K, H, W, 3)``."""

from __future__ import annotations

import numpy as np

BEST_PSNR = 60.0
"""PSNR of identical blocks, and of any closer than that."""
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def squared_error(blocks: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean squared error of each block, ``float64 (...)``, over frames, pixels and colours."""
    difference = blocks.astype(np.float32) - truth.astype(np.float32)
    return np.square(difference).mean((-4, -3, -2, -1), dtype=np.float64)


def psnr(error: np.ndarray | float) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of a mean squared error in grey levels."""
    return np.minimum(BEST_PSNR, 10 * np.log10(255.0**2 / np.maximum(error, 1e-12)))


def ssim(blocks: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity of each block ``(N, K, H, W, 3)``, ``float64 (N,)``: the mean over its frames."""
    from skimage.metrics import structural_similarity

    return np.array(
        [
            np.mean([structural_similarity(a, b, channel_axis=-1) for a, b in zip(block, true, strict=True)])
            for block, true in zip(blocks, truth, strict=True)
        ]
    )


def luminance(frames: np.ndarray) -> np.ndarray:
    """Brightness of frames ``(..., H, W, 3)`` as the eye weighs colours, in grey levels, ``float32 (..., H, W)``."""
    return frames.astype(np.float32) @ _LUMINANCE


def gradient_magnitude(frames: np.ndarray) -> np.ndarray:
    """Sharpness of frames ``(..., H, W, 3)``: mean |dx| + |dy| of their luminance in grey levels, ``float (...)``."""
    grey = luminance(frames)
    across = np.abs(np.diff(grey, axis=-1)).mean((-2, -1))
    down = np.abs(np.diff(grey, axis=-2)).mean((-2, -1))
    return across + down


def fine_detail(frames: np.ndarray) -> np.ndarray:
    """Mean |Laplacian| of the luminance of frames ``(..., H, W, 3)`` in grey levels, ``float (...)``.

    A blurred edge keeps its gradient, only spread out, and so most of its :func:`gradient_magnitude`, but not this.
    """
    grey = luminance(frames)
    inner = grey[..., 1:-1, 1:-1]
    neighbours = grey[..., :-2, 1:-1] + grey[..., 2:, 1:-1] + grey[..., 1:-1, :-2] + grey[..., 1:-1, 2:]
    return np.abs(neighbours - 4 * inner).mean((-2, -1))


def road_mask(frames: np.ndarray) -> np.ndarray:
    """Which pixels of frames ``(..., H, W, 3)`` are CarRacing's grey road (not grass, car, kerb or void), ``bool``."""
    values = frames.astype(np.int16)
    spread = values.max(-1) - values.min(-1)
    brightness = values.mean(-1)
    return (spread < 30) & (brightness > 60) & (brightness < 150)


def road_visible(frames: np.ndarray) -> np.ndarray:
    """Whether at least 5 % of each frame is road, ``bool (...)``."""
    return road_mask(frames).mean((-2, -1)) >= 0.05


def on_road(frames: np.ndarray) -> np.ndarray:
    """Whether most of the ground just ahead of the car is road, ``bool (...)``, in 64x64 frames."""
    return road_mask(frames)[..., 38:48, 26:38].mean((-2, -1)) > 0.5


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of all numbers in two arrays; NaN if one of them is constant."""
    a, b = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else float("nan")
