"""What a video begins with: a picture, a video, or a clip that was encoded before, at the size that the model wants."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from astra_gym.media import read_image, read_video

SIDE_MULTIPLE = 16
"""Height and width in pixels divide by this: 8 for the autoencoder, 2 for the patches."""
FRAMES_PER_LATENT = 4
"""Video frames of a latent frame; the first has one."""

ImageSource = np.ndarray | Image.Image | str | os.PathLike
VideoSource = np.ndarray | str | os.PathLike


def fit_frame(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale ``uint8 (H, W, 3)`` to cover ``height x width`` and cut off what sticks out, evenly on both sides."""
    own_height, own_width = frame.shape[:2]
    if (own_height, own_width) == (height, width):
        return frame
    scale = min(own_height / height, own_width / width)
    crop_height, crop_width = scale * height, scale * width
    left, top = (own_width - crop_width) / 2, (own_height - crop_height) / 2
    box = (left, top, left + crop_width, top + crop_height)
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS, box=box))


def check_size(height: int, width: int) -> None:
    """Refuse a size that the model cannot make."""
    if height < SIDE_MULTIPLE or width < SIDE_MULTIPLE or height % SIDE_MULTIPLE or width % SIDE_MULTIPLE:
        raise ValueError(f"height, width: got {height}x{width}, allowed are multiples of {SIDE_MULTIPLE}")


def load_condition_image(image: ImageSource, height: int | None = None, width: int | None = None) -> np.ndarray:
    """A picture as the one frame ``uint8 (1, H, W, 3)``.

    Args:
        image: array ``uint8 (H, W, 3)``, PIL image, or path.
        height, width: to fit it to; None takes the picture's own size, which must then divide by 16.

    Raises:
        ValueError: naming ``image`` or its size.
    """
    if isinstance(image, (str, os.PathLike)):
        pixels = read_image(image)
    else:
        pixels = np.asarray(image.convert("RGB")) if isinstance(image, Image.Image) else image
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"image: got {_describe(pixels)}, allowed are uint8 (H, W, 3), a PIL image and a path")
    return _fit("image", pixels[None], height, width)


def load_condition_video(
    video: VideoSource,
    height: int | None = None,
    width: int | None = None,
    start_frame: int = 0,
    latent_frames: int | None = None,
) -> np.ndarray:
    """The part of a video that makes whole latent frames, ``uint8 (1 + 4 n, H, W, 3)``.

    Args:
        video: array ``uint8 (T, H, W, 3)`` or path.
        height, width: to fit it to; None takes the video's own size, which must then divide by 16.
        start_frame: first frame to use.
        latent_frames: 1 + n; None takes as many as there are.

    Raises:
        ValueError: naming ``video``, ``start_frame`` or ``latent_frames``.
    """
    if start_frame < 0 or (latent_frames is not None and latent_frames < 1):
        raise ValueError(
            f"start_frame, latent_frames: got {start_frame} and {latent_frames}, at least 0 and 1 are needed"
        )
    wanted = None if latent_frames is None else 1 + FRAMES_PER_LATENT * (latent_frames - 1)
    if isinstance(video, (str, os.PathLike)):
        stop = None if wanted is None else start_frame + wanted
        frames = np.array(list(islice(read_video(video), start_frame, stop)))
    else:
        if not isinstance(video, np.ndarray) or video.dtype != np.uint8 or video.ndim != 4 or video.shape[3] != 3:
            raise ValueError(f"video: got {_describe(video)}, allowed are uint8 (T, H, W, 3) and a path")
        frames = video[start_frame:][:wanted]
    if len(frames) < (wanted or 1):
        raise ValueError(f"video: it has {len(frames)} frames from frame {start_frame}, {wanted or 1} are needed")
    whole = 1 + (len(frames) - 1) // FRAMES_PER_LATENT * FRAMES_PER_LATENT
    return _fit("video", frames[:whole], height, width)


@dataclass
class EncodedClip:
    """A clip of the released data format, encoded before."""

    latents: Tensor
    """float32 (1, T, C, h, w)."""
    extrinsics: np.ndarray | None
    """(P, 4, 4), if it has camera poses."""
    prompt_embeds: Tensor | None
    """(1, M, text_dim), if it has a prompt."""


def load_encoded_clip(path: str | os.PathLike) -> EncodedClip:
    """Read a ``.pth`` of the released data format; nothing but tensors and arrays is unpickled.

    Raises:
        ValueError: if it cannot be read or has no latents.
    """
    from numpy._core.multiarray import _reconstruct

    plain: list[Any] = [_reconstruct, np.ndarray, np.dtype, type(np.dtype(np.float32)), type(np.dtype(np.float64))]
    try:
        with torch.serialization.safe_globals(plain):
            content = torch.load(path, map_location="cpu", weights_only=True)
        latents = content["latents"].float()
    except (OSError, RuntimeError, EOFError, LookupError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"clip: cannot read {str(path)!r} as an encoded clip ({reason})") from None
    if latents.ndim != 4:
        raise ValueError(f"clip: {str(path)!r} has latents of shape {tuple(latents.shape)}, allowed is (C, T, h, w)")
    camera, text = content.get("cam_emb") or {}, content.get("prompt_emb")
    extrinsics = camera.get("extrinsic") if isinstance(camera, dict) else None
    embeds = text.get("context") if isinstance(text, dict) else text
    return EncodedClip(
        latents.transpose(0, 1)[None],
        None if extrinsics is None else np.asarray(extrinsics, np.float64),
        None if embeds is None else embeds.float().reshape(1, -1, embeds.shape[-1]),
    )


def _fit(name: str, frames: np.ndarray, height: int | None, width: int | None) -> np.ndarray:
    own_height, own_width = frames.shape[1:3]
    if (height is None) != (width is None):
        raise ValueError(f"height, width: got {height} and {width}, give both or neither")
    if height is None or width is None:
        if own_height % SIDE_MULTIPLE or own_width % SIDE_MULTIPLE or 0 in (own_height, own_width):
            raise ValueError(
                f"{name}: got {own_height}x{own_width} pixels, both must divide by {SIDE_MULTIPLE};"
                " give height and width to have it fitted"
            )
        return frames
    check_size(height, width)
    if 0 in (own_height, own_width):
        raise ValueError(f"{name}: got {own_height}x{own_width} pixels")
    return np.stack([fit_frame(frame, height, width) for frame in frames])


def _describe(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
