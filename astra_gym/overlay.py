"""Keys drawn into the picture: what the camera is told to do, as the WASD and arrow keys that would do it."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TRANSLATION_THRESHOLD = 0.01
ROTATION_THRESHOLD = 0.005
"""In radians. A motion beyond these counts as a key held down."""

MOVE_KEYS = {"W": (1, 0), "A": (0, 1), "S": (1, 1), "D": (2, 1)}
TURN_KEYS = {"up": (1, 0), "left": (0, 1), "down": (1, 1), "right": (2, 1)}
"""Column and row of each key on its pad."""
ARROWS = {
    "up": ((0.5, 0.25), (0.2, 0.75), (0.8, 0.75)),
    "down": ((0.5, 0.75), (0.2, 0.25), (0.8, 0.25)),
    "left": ((0.25, 0.5), (0.75, 0.2), (0.75, 0.8)),
    "right": ((0.75, 0.5), (0.25, 0.2), (0.25, 0.8)),
}
"""Corners of each arrow as parts of a key."""


def held_keys(row: np.ndarray) -> set[str]:
    """The keys that an action row ``(13,)`` amounts to: W, A, S, D to move; up, left, down, right to turn."""
    r00, _, r02, tx, _, _, r12, _, _, _, r22, tz = row[:12]
    yaw, pitch = np.arctan2(r02, r00), np.arctan2(-r12, r22)
    pressed = {
        "W": tz < -TRANSLATION_THRESHOLD,
        "S": tz > TRANSLATION_THRESHOLD,
        "A": tx < -TRANSLATION_THRESHOLD,
        "D": tx > TRANSLATION_THRESHOLD,
        "left": yaw > ROTATION_THRESHOLD,
        "right": yaw < -ROTATION_THRESHOLD,
        "up": pitch < -ROTATION_THRESHOLD,
        "down": pitch > ROTATION_THRESHOLD,
    }
    return {key for key, down in pressed.items() if down}


def draw_keys(frame: np.ndarray, row: np.ndarray) -> np.ndarray:
    """A copy of ``uint8 (H, W, 3)`` with both pads in its lower corners; held keys are bright."""
    height, width = frame.shape[:2]
    key = max(8, round(min(height, width) * 0.09))
    gap = max(1, key // 8)
    margin = key // 2
    picture = Image.fromarray(frame).convert("RGBA")
    layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    font = ImageFont.load_default(size=key * 0.6)
    held = held_keys(row)
    pad_width = 3 * key + 2 * gap
    top = height - margin - 2 * key - gap
    for left, keys in ((margin, MOVE_KEYS), (width - margin - pad_width, TURN_KEYS)):
        for name, (column, line) in keys.items():
            x, y = left + column * (key + gap), top + line * (key + gap)
            down = name in held
            fill = (255, 255, 255, 220) if down else (40, 40, 40, 120)
            ink = (20, 20, 20, 255) if down else (230, 230, 230, 200)
            draw.rounded_rectangle((x, y, x + key, y + key), radius=key // 6, fill=fill)
            if name in ARROWS:
                draw.polygon([(x + u * key, y + v * key) for u, v in ARROWS[name]], fill=ink)
            else:
                draw.text((x + key / 2, y + key / 2), name, fill=ink, font=font, anchor="mm")
    return np.asarray(Image.alpha_composite(picture, layer).convert("RGB"))
