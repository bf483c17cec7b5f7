"""Pictures and videos from outside, brought to the square frames that a world works on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

Crop = tuple[int, int, int, int]
Source = np.ndarray | str | os.PathLike


def resize_frame(frame: np.ndarray, size: int, crop: Crop | None = None) -> np.ndarray:
    """Crop ``frame`` and scale it to a square by area averaging.

    Args:
        frame: ``uint8 (H, W, 3)``.
        size: side of the result in pixels.
        crop: ``(left, top, right, bottom)`` in pixels of ``frame``; None takes the largest centred square.

    Returns:
        ``uint8 (size, size, 3)``.
    """
    height, width = frame.shape[:2]
    if crop is None:
        side = min(height, width)
        left, top = (width - side) // 2, (height - side) // 2
        crop = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BOX, box=crop))


def load_image(source: Source, size: int) -> np.ndarray:
    """One picture as a centre-cropped square frame.

    Args:
        source: ``uint8 (H, W, 3)`` or the path of an image file.
        size: side of the result in pixels.

    Returns:
        ``uint8 (size, size, 3)``.

    Raises:
        ValueError: naming ``image``, if the array has another shape or type or the file cannot be read.
    """
    if isinstance(source, np.ndarray):
        _check_array("image", source, dims=3)
        return resize_frame(source, size)
    return resize_frame(read_image(source), size)


def read_image(source: str | os.PathLike) -> np.ndarray:
    """The picture in a file, ``uint8 (H, W, 3)``.

    Raises:
        ValueError: naming ``image``, if it cannot be read.
    """
    path = _existing_file("image", source)
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"image: cannot read {str(path)!r} as an image ({error})") from None


def load_video(source: Source, size: int, min_frames: int = 1) -> np.ndarray:
    """A video as centre-cropped square frames, oldest first. The frame rate is taken as it is.

    Args:
        source: ``uint8 (T, H, W, 3)`` or the path of a video file that ffmpeg reads.
        size: side of the frames in pixels.
        min_frames: fewest frames that will do.

    Returns:
        ``uint8 (T, size, size, 3)``.

    Raises:
        ValueError: naming ``video``, on an array of another shape or type, an unreadable file, or too few frames.
    """
    if isinstance(source, np.ndarray):
        _check_array("video", source, dims=4)
        frames = [resize_frame(frame, size) for frame in source]
    else:
        frames = [resize_frame(frame, size) for frame in read_video(source)]
    if len(frames) < min_frames:
        raise ValueError(f"video: got {len(frames)} frames, at least {min_frames} are needed")
    return np.stack(frames)


def read_video(source: str | os.PathLike) -> Iterator[np.ndarray]:
    """The frames ``uint8 (H, W, 3)`` in a file that ffmpeg reads, one after the other.

    Raises:
        ValueError: naming ``video``, if it cannot be read.
    """
    import imageio_ffmpeg

    path = _existing_file("video", source)
    try:
        frames = imageio_ffmpeg.read_frames(str(path))
        width, height = next(frames)["size"]
        for pixels in frames:
            yield np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[-1]  # before it stands ffmpeg's whole configuration
        raise ValueError(f"video: cannot read {str(path)!r} as a video ({reason})") from None


def _existing_file(name: str, source: str | os.PathLike) -> Path:
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(f"{name}: got {type(source).__name__}, allowed are a uint8 array and the path of a file")
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"{name}: there is no file {str(path)!r}")
    return path


def _check_array(name: str, array: np.ndarray, dims: int) -> None:
    if array.dtype != np.uint8 or array.ndim != dims or array.shape[-1] != 3 or 0 in array.shape[-3:]:
        expected = "(H, W, 3)" if dims == 3 else "(T, H, W, 3)"
        raise ValueError(f"{name}: got {array.dtype} {array.shape}, allowed is uint8 {expected}")
