"""The window of ``render_mode="human"``."""

from __future__ import annotations

import time

import numpy as np
from gymnasium.error import DependencyNotInstalled


class Window:
    """Shows frames scaled up, evenly in time.

    Args:
        title: of the window.
        fps: frames a second.
        size: height of the window in pixels.
        aspect: width over height.
    """

    def __init__(self, title: str, fps: float, size: int = 512, aspect: float = 1.0):
        try:
            import pygame
        except ImportError as error:
            raise DependencyNotInstalled("render_mode='human' needs pygame: pip install pygame") from error
        self._pygame = pygame
        self._interval = 1.0 / fps
        self._due = 0.0
        pygame.display.init()
        self._screen = pygame.display.set_mode((round(size * aspect), size))
        pygame.display.set_caption(title)

    def show(self, frames: np.ndarray) -> None:
        """Show ``uint8 (K, H, W, 3)``, each frame when it is due; returns when the last one is on the screen.

        The time until the next frame is due is the caller's: the next block is computed in it. A block that comes late
        is shown at the same pace as any other.
        """
        pygame = self._pygame
        self._due = max(self._due, time.perf_counter())
        for frame in frames:
            pygame.event.pump()
            time.sleep(max(0.0, self._due - time.perf_counter()))
            picture = pygame.surfarray.make_surface(frame.swapaxes(0, 1))
            pygame.transform.scale(picture, self._screen.get_size(), self._screen)
            pygame.display.flip()
            self._due += self._interval

    def close(self) -> None:
        """Close the window; closing it twice does no harm."""
        self._pygame.display.quit()
