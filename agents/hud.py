"""The player's panel of instruments, drawn beside the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pygame

Colour = tuple[int, int, int]

WIDTH, HEIGHT = 300, 640
"""Size of the panel in pixels; the height is the least it needs."""

BACKGROUND: Colour = (18, 20, 26)
TRACK: Colour = (42, 46, 58)
TEXT: Colour = (232, 234, 240)
FAINT: Colour = (140, 148, 166)
DREAM: Colour = (150, 120, 255)
SIMULATOR: Colour = (62, 190, 130)
WARM: Colour = (255, 176, 66)
GOOD: Colour = (90, 200, 120)
BAD: Colour = (240, 96, 96)
MARGIN = 20
SMALL, NORMAL, LARGE, HUGE = 20, 23, 28, 44
"""Sizes of the text."""


@dataclass
class HudState:
    """Everything that the panel shows."""

    title: str
    labels: Sequence[str]
    """Name of each number of the action."""
    low: np.ndarray
    high: np.ndarray
    action: np.ndarray
    """``float32 (action_dim,)``, within low and high."""
    rewards: Sequence[float] = ()
    """Reward of each block since the episode began, oldest first."""
    routing: np.ndarray | None = None
    """Router weights, ``float32 (num_experts,)``, summing to 1; None where there is no router."""
    fps: float = 0.0
    in_simulator: bool = False
    autopilot: bool = False
    paused: bool = False
    message: str = ""


class Hud:
    """Draws the panel, the banner and the help.

    Args:
        help_lines: keys and what they do, for the help page.
    """

    def __init__(self, help_lines: Sequence[tuple[str, str]]):
        pygame.font.init()
        self.help_lines = help_lines
        self._fonts = {size: pygame.font.Font(None, 2 * size) for size in (SMALL, NORMAL, LARGE, HUGE)}
        self._text = lru_cache(256)(self._render)

    def draw(self, surface: pygame.Surface, area: pygame.Rect, state: HudState) -> None:
        """Draw the panel into ``area`` of ``surface``."""
        surface.fill(BACKGROUND, area)
        left, right, y = area.left + MARGIN, area.right - MARGIN, area.top + MARGIN
        y = self._head(surface, left, right, y, state)
        y = self._section(surface, left, y, "ACTION")
        for label, low, high, value in zip(state.labels, state.low, state.high, state.action, strict=True):
            self._bar(surface, left, right, y, label, float(low), float(high), float(value), WARM)
            y += 28
        y = self._score(surface, left, right, y, state.rewards)
        if state.routing is not None:
            y = self._section(surface, left, y, "ROUTER")
            for number, weight in enumerate(state.routing, 1):
                self._bar(surface, left, right, y, f"expert {number}", 0.0, 1.0, float(weight), DREAM)
                y += 26
        self._foot(surface, left, right, area.bottom - MARGIN, state)

    def banner(self, surface: pygame.Surface, picture: pygame.Rect, title: str, subtitle: str = "") -> None:
        """A strip across the upper part of the picture."""
        strip = pygame.Rect(picture.left, picture.top + 40, picture.width, 80)
        _shade(surface, strip, 215)
        middle = strip.centery - (12 if subtitle else 0)
        self._write(surface, HUGE, title, TEXT, center=(strip.centerx, middle))
        if subtitle:
            self._write(surface, NORMAL, subtitle, TEXT, center=(strip.centerx, strip.centery + 22))

    def help(self, surface: pygame.Surface, picture: pygame.Rect) -> None:
        """The keys, over the whole picture."""
        _shade(surface, picture, 215)
        line_height = 32
        y = picture.centery - line_height * (len(self.help_lines) + 1) // 2
        self._write(surface, HUGE, "Keys", TEXT, midleft=(picture.left + 70, y))
        for keys, meaning in self.help_lines:
            y += line_height
            self._write(surface, LARGE, keys, WARM, midleft=(picture.left + 70, y + 14))
            self._write(surface, NORMAL, meaning, TEXT, midleft=(picture.left + 220, y + 14))

    def _render(self, size: int, text: str, colour: Colour) -> pygame.Surface:
        """Text drawn twice as large and reduced, which spaces its letters evenly."""
        large = self._fonts[size].render(text, True, colour)
        return pygame.transform.smoothscale(large, ((large.get_width() + 1) // 2, (large.get_height() + 1) // 2))

    def _write(self, surface: pygame.Surface, size: int, text: str, colour: Colour, **place: Any) -> None:
        image = self._text(size, text, colour)
        surface.blit(image, image.get_rect(**place))

    def _wrap(self, text: str, size: int, width: int) -> list[str]:
        """Break ``text`` into lines of at most ``width`` pixels where its words allow that."""
        lines: list[str] = []
        for word in text.split():
            if lines and self._fonts[size].size(f"{lines[-1]} {word}")[0] <= 2 * width:
                lines[-1] += f" {word}"
            else:
                lines.append(word)
        return lines

    def _head(self, surface: pygame.Surface, left: int, right: int, y: int, state: HudState) -> int:
        name, colour = ("SIMULATOR", SIMULATOR) if state.in_simulator else ("DREAM", DREAM)
        self._badge(surface, left, y, name, colour)
        self._write(surface, LARGE, f"{state.fps:.0f} fps", TEXT, topright=(right, y + 3))
        self._write(surface, SMALL, state.title, FAINT, topleft=(left, y + 38))
        self._write(surface, SMALL, f"block {len(state.rewards)}", FAINT, topright=(right, y + 38))
        return y + 72

    def _section(self, surface: pygame.Surface, left: int, y: int, title: str) -> int:
        self._write(surface, SMALL, title, FAINT, topleft=(left, y))
        return y + 22

    def _bar(
        self, surface: pygame.Surface, left: int, right: int, y: int, label: str, low: float, high: float, value: float,
        colour: Colour,
    ) -> None:  # fmt: skip
        """A labelled bar from zero (or from the bound nearest to it) to ``value``."""
        self._write(surface, NORMAL, label, TEXT, topleft=(left, y))
        self._write(surface, NORMAL, f"{value:.2f}", TEXT, topright=(right, y))
        groove = pygame.Rect(left + 82, y + 3, right - left - 136, 11)
        pygame.draw.rect(surface, TRACK, groove, border_radius=4)
        origin = min(max(0.0, low), high)
        ends = [groove.left + (x - low) / (high - low) * groove.width for x in sorted((origin, value))]
        if ends[1] - ends[0] >= 1:
            filled = pygame.Rect(round(ends[0]), groove.top, max(3, round(ends[1] - ends[0])), groove.height)
            pygame.draw.rect(surface, colour, filled, border_radius=4)
        if low < origin < high:
            middle = groove.left + (origin - low) / (high - low) * groove.width
            pygame.draw.line(surface, FAINT, (middle, groove.top - 2), (middle, groove.bottom + 1))

    def _score(self, surface: pygame.Surface, left: int, right: int, y: int, rewards: Sequence[float]) -> int:
        """Return, newest reward, and a bar for each of the newest rewards."""
        y += 12
        newest = rewards[-1] if rewards else 0.0
        self._write(surface, SMALL, "RETURN", FAINT, topleft=(left, y))
        self._write(surface, SMALL, "REWARD", FAINT, topleft=(left + 140, y))
        self._write(surface, HUGE, f"{sum(rewards):.1f}", TEXT, topleft=(left, y + 20))
        colour = BAD if newest < 0 else GOOD
        self._write(surface, HUGE, f"{newest:+.2f}", colour, topleft=(left + 140, y + 20))
        plot = pygame.Rect(left, y + 60, right - left, 44)
        pygame.draw.rect(surface, TRACK, plot, border_radius=4)
        recent = list(rewards)[-(plot.width - 8) // 4 :]
        span = max(1.0, *(abs(reward) for reward in recent)) if recent else 1.0
        for place, reward in enumerate(recent):
            height = round(abs(reward) / span * (plot.height // 2 - 4))
            top = plot.centery - height if reward >= 0 else plot.centery
            bar = pygame.Rect(plot.left + 4 + 4 * place, top, 3, max(1, height))
            surface.fill(GOOD if reward >= 0 else BAD, bar)
        return plot.bottom + 20

    def _foot(self, surface: pygame.Surface, left: int, right: int, bottom: int, state: HudState) -> None:
        self._write(surface, SMALL, "H  help      TAB  swap      ESC  quit", FAINT, bottomleft=(left, bottom))
        y, badge_left = bottom - 54, left
        for shown, name, colour in ((state.autopilot, "AUTOPILOT", WARM), (state.paused, "PAUSED", BAD)):
            if shown:
                badge_left = self._badge(surface, badge_left, y, name, colour) + 10
        for number, line in enumerate(reversed(self._wrap(state.message, NORMAL, right - left))):
            self._write(surface, NORMAL, line, TEXT, bottomleft=(left, y - 10 - 22 * number))

    def _badge(self, surface: pygame.Surface, left: int, y: int, name: str, colour: Colour) -> int:
        """A coloured label; returns its right edge."""
        text = self._text(NORMAL, name, BACKGROUND)
        box = pygame.Rect(left, y, text.get_width() + 20, 28)
        pygame.draw.rect(surface, colour, box, border_radius=6)
        surface.blit(text, text.get_rect(center=box.center))
        return box.right


def _shade(surface: pygame.Surface, area: pygame.Rect, strength: int) -> None:
    veil = pygame.Surface(area.size, pygame.SRCALPHA)
    veil.fill((*BACKGROUND, strength))
    surface.blit(veil, area)
