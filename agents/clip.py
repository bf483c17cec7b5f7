"""Keep the last seconds of play and save them as a video."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

import numpy as np

from astra_gym.files import replacing


class ClipBuffer:
    """A ring of the newest frames.

    Args:
        seconds: how much to keep.
        fps: frames a second, also of the saved video.
    """

    def __init__(self, seconds: float, fps: float):
        self.fps = fps
        self.frames: deque[np.ndarray] = deque(maxlen=max(1, round(seconds * fps)))

    def add(self, frame: np.ndarray) -> None:
        """Keep ``frame``, ``uint8 (H, W, 3)``; the oldest makes room."""
        self.frames.append(frame)


def clip_path(folder: Path, name: str) -> Path:
    """A file in ``folder`` that does not exist yet, called after ``name`` and the time of day."""
    stem = f"{name.replace('/', '-')}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, number = folder / f"{stem}.mp4", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.mp4"
    return path


def save_clip(frames: list[np.ndarray], fps: float, path: Path, height: int = 512) -> Path:
    """Write frames ``uint8 (H, W, 3)`` as an mp4 and return its path.

    Small frames are enlarged by a whole number to at most ``height`` pixels. The file gets its name when it is whole.
    """
    from moviepy import ImageSequenceClip

    zoom = max(1, height // frames[0].shape[0])

    def enlarge(frame: np.ndarray) -> np.ndarray:
        large = frame.repeat(zoom, 0).repeat(zoom, 1)
        return large[: large.shape[0] // 2 * 2, : large.shape[1] // 2 * 2]  # the codec wants even sides

    with replacing(path) as unfinished, ImageSequenceClip(frames, fps=fps).image_transform(enlarge) as clip:
        clip.write_videofile(str(unfinished), codec="libx264", audio=False, threads=1, logger=None)
    return path
