"""Pictures for people: frames enlarged, with the action and the return underneath, and sheets of many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from astra_gym.actions import Modality

BACKGROUND, TEXT, FAINT = (18, 20, 24), (236, 238, 240), (70, 74, 82)
POSITIVE, NEGATIVE = (92, 186, 255), (255, 142, 92)
MARGIN = 8


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font at ``size`` pixels."""
    return ImageFont.load_default(size)


def enlarge(frame: np.ndarray, scale: int) -> Image.Image:
    """``frame`` with every pixel repeated ``scale`` times both ways."""
    height, width = frame.shape[:2]
    return Image.fromarray(frame).resize((width * scale, height * scale), Image.Resampling.NEAREST)


def draw_action(
    draw: ImageDraw.ImageDraw, modality: Modality, action: np.ndarray | None, box: tuple[int, int, int, int]
) -> None:
    """Draw one bar for each number of the action into ``box`` (left, top, right, bottom); None draws empty bars."""
    left, top, right, bottom = box
    slot = (right - left) / modality.action_dim
    labels = [label.split(" (")[0] for label in modality.labels]
    text = _fitting_font(labels, slot - MARGIN)
    for i, (label, low, high) in enumerate(zip(labels, modality.low, modality.high, strict=True)):
        start, end = round(left + i * slot), round(left + (i + 1) * slot) - MARGIN
        draw.text((start, top - 1), label, TEXT, text)
        bar = (start, bottom - 8, end, bottom)
        draw.rectangle(bar, FAINT)
        rest = start + (end - start) * (np.clip(0.0, low, high) - low) / (high - low)
        if action is not None:
            value = start + (end - start) * (np.clip(action[i], low, high) - low) / (high - low)
            colour = POSITIVE if action[i] >= 0 else NEGATIVE
            draw.rectangle((round(min(rest, value)), bar[1], round(max(rest, value)), bar[3]), colour)
        draw.line((round(rest), bar[1] - 2, round(rest), bar[3] + 2), TEXT)


def _fitting_font(labels: Sequence[str], width: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The largest font from 12 pixels down to 7 in which the longest label is no wider than ``width``."""
    sizes = (font(size) for size in range(12, 7, -1))
    return next((each for each in sizes if max(map(each.getlength, labels)) <= width), font(7))


def panel(
    frames: Sequence[np.ndarray],
    captions: Sequence[str],
    footers: Sequence[str],
    modality: Modality,
    action: np.ndarray | None,
    scale: int,
) -> np.ndarray:
    """One picture of a video: frames side by side, captions above, the action and a line for each frame underneath.

    Args:
        frames: ``uint8 (H, W, 3)``, one or more of the same size.
        captions: what each frame shows; no caption line if all are empty.
        footers: a short line for each frame.
        modality: of the action.
        action: ``float (action_dim,)``, or None.
        scale: pixels for each pixel of a frame.

    Returns:
        ``uint8 (H', W', 3)`` with even sides, as video codecs want them.
    """
    pictures = [enlarge(frame, scale) for frame in frames]
    width, height = pictures[0].size
    head = 24 if any(captions) else 0
    total = (len(pictures) * (width + MARGIN) - MARGIN, head + height + 56)
    canvas = Image.new("RGB", (total[0] + total[0] % 2, total[1] + total[1] % 2), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for i, picture in enumerate(pictures):
        left = i * (width + MARGIN)
        canvas.paste(picture, (left, head))
        draw.text((left + MARGIN, 4), captions[i], TEXT, font(14))
        draw.text((left + MARGIN, head + height + 5), footers[i], TEXT, _font_for(footers[i], width - MARGIN))
    draw_action(draw, modality, action, (MARGIN, head + height + 25, total[0], head + height + 49))
    return np.asarray(canvas)


def _font_for(line: str, width: int):
    """The largest font, from 13 down to 8 pixels, in which ``line`` is no wider than ``width`` pixels."""
    return next((each for each in map(font, range(13, 8, -1)) if each.getlength(line) <= width), font(8))


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]], blocks: Sequence[int], captions: Sequence[str], scale: int, columns: int = 8
) -> np.ndarray:
    """Frames at intervals on one picture, each with its block number.

    Args:
        rows: one sequence of frames ``uint8 (H, W, 3)`` for each world; frames of one moment stand below each other.
        blocks: number of the block that each frame belongs to.
        captions: name of each world, written beside its frames; none are written if all are empty.
        scale: pixels for each pixel of a frame.
        columns: moments beside each other.

    Returns:
        ``uint8 (H', W', 3)``.
    """
    height, width = (side * scale for side in rows[0][0].shape[:2])
    gap, number = 4, 18
    margin = 14 + 9 * max(map(len, captions)) if any(captions) else gap
    band = number + len(rows) * (height + gap) + gap
    bands = -(-len(blocks) // columns)
    sheet = Image.new("RGB", (margin + min(columns, len(blocks)) * (width + gap), bands * band), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for i, block in enumerate(blocks):
        left, top = margin + i % columns * (width + gap), i // columns * band
        draw.text((left, top + 3), f"block {block}", TEXT, font(12))
        for j, frames in enumerate(rows):
            sheet.paste(enlarge(frames[i], scale), (left, top + number + j * (height + gap)))
    for i in range(bands):
        for j, caption in enumerate(captions):
            draw.text((MARGIN, i * band + number + j * (height + gap) + height // 2 - 8), caption, TEXT, font(14))
    return np.asarray(sheet)
