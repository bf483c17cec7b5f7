"""When to show the frames of a world that delivers them in blocks."""

from __future__ import annotations

from collections import deque

RESERVE = 1.1
"""A slow world's frames are spread over this many times the mean time of its blocks, so that few of them come late."""


class FramePacer:
    """Spreads the frames of blocks evenly in time.

    Frames are shown ``fps`` a second while blocks are computed fast enough. When they are not, the frames are spread
    over the time that a block takes to compute (a running mean and some reserve), so that the world moves slower but as
    evenly. Times are seconds of any steady clock.

    Args:
        fps: frames a second to show at most.
        frames_per_block: frames that one computation delivers.
    """

    def __init__(self, fps: float, frames_per_block: int):
        self.interval = self._shortest = 1.0 / fps
        self.frames_per_block = frames_per_block
        self._compute_seconds: float | None = None
        self._next = 0.0
        self._shown: deque[float] = deque(maxlen=int(max(2, min(fps, 50))))

    def computed(self, seconds: float) -> None:
        """A block took so long to compute."""
        before = self._compute_seconds
        self._compute_seconds = seconds if before is None else 0.8 * before + 0.2 * seconds
        self.interval = max(self._shortest, RESERVE * self._compute_seconds / self.frames_per_block)

    def due(self, now: float) -> bool:
        """Whether the next frame is to be shown."""
        return now >= self._next

    def show(self, now: float) -> None:
        """A frame is shown. One that comes late puts off those after it instead of hurrying them."""
        on_time = now - self._next < self.interval
        self._next = (self._next if on_time else now) + self.interval
        self._shown.append(now)

    def pause(self) -> None:
        """Frames stop for a while, which is not to count in :attr:`fps`."""
        self._shown.clear()

    @property
    def fps(self) -> float:
        """Frames a second over the last frames shown; 0 before there are two."""
        seconds = self._shown[-1] - self._shown[0] if len(self._shown) > 1 else 0.0
        return (len(self._shown) - 1) / seconds if seconds > 0 else 0.0
