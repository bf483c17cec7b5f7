"""``astra-gym infer``: a video from a picture, a video or an encoded clip, and a motion, with the released weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from astra_gym.camera import load_poses, nuscenes_rows, preset_rows
from astra_gym.conditions import FRAMES_PER_LATENT, load_condition_image, load_condition_video, load_encoded_clip
from astra_gym.episode import MAX_HISTORY, Block
from astra_gym.overlay import draw_keys
from astra_gym.pipeline import BLOCK, AstraPipeline
from astra_gym.precision import usable_device

FPS = 20
"""Frames a second of the released model's videos."""


@dataclass
class InferArgs:
    """Make a video with the released weights from a beginning (image, video or clip) and a motion (preset or poses)."""

    model: Path
    """Folder that astra-gym convert wrote."""
    output: Path = Path("videos/astra.mp4")
    """Video to write; a file of that name is replaced."""
    prompt: str | None = None
    """What is to be seen."""
    image: Path | None = None
    """Picture to begin with."""
    video: Path | None = None
    """Video to begin with, to be gone on with or to be shot again with another camera."""
    clip: Path | None = None
    """Encoded clip (.pth of the released data format) to begin with; its prompt is used if you give none."""
    start_frame: int = 0
    """First frame of the video to use."""
    condition_frames: int = 1
    """Latent frames to begin with, 4 video frames each after the first."""
    preset: int | None = None
    """Motion 1-7: forward, turn left, turn right, forward left, forward right, S, left then right."""
    poses: Path | None = None
    """Camera poses (.npy, .npz or .json, 4x4 world-to-camera with x right, y down, z forward, one a video frame); by
    default those of a clip."""
    scene: Path | None = None
    """Scene .json with keyframe_poses, one a latent frame; for modality nuscenes."""
    modality: Literal["sekai", "nuscenes", "openx"] = "sekai"
    """Kind of action."""
    num_blocks: int | None = None
    """Blocks to generate; None is 3 for a preset and all that there are poses for."""
    frames_per_block: int = BLOCK
    """Latent frames in a block."""
    max_history: int = MAX_HISTORY
    """Latent frames to keep: the first one and the newest."""
    num_inference_steps: int = 50
    """Denoising steps a block."""
    guidance_scale: float = 1.0
    """Action-free guidance; 1 is off, 2 is the released value where it is on."""
    text_guidance_scale: float = 1.0
    """Guidance on the prompt; 1 is off."""
    height: int = 480
    """Of the video in pixels; the beginning is scaled and cropped to it."""
    width: int = 832
    """Of the video in pixels."""
    overlay: bool = False
    """Draw the keys that the motion amounts to."""
    fps: int = FPS
    """Frames a second of the file."""
    seed: int = 0
    """Of the noise."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to compute."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Number type of the models."""
    offload: bool = False
    """Keep on the device only the model that is at work."""
    compile: bool = False
    """Compile the transformer: a slow first block, faster ones after it."""


def infer(args: InferArgs) -> str:
    """Make the video, block by block, and print how long each took.

    Returns:
        The path of the video.

    Raises:
        ValueError: naming the argument that is wrong.
    """
    if not (args.model / "model_index.json").is_file():
        raise ValueError(f"model: {str(args.model)!r} is no folder that astra-gym convert wrote")
    if args.overlay and args.modality == "nuscenes":
        raise ValueError("overlay: the rows of 'nuscenes' are no camera motion that keys could show")
    if args.fps < 1:
        raise ValueError(f"fps: got {args.fps}, allowed are integers from 1")
    if args.output.suffix != ".mp4":
        raise ValueError(f"output: got {str(args.output)!r}, allowed are names that end in .mp4")
    usable_device(args.device)
    conditions = _conditions(args)
    pipe = _load_pipeline(args)
    blocks = pipe.stream(
        **conditions,
        modality=args.modality,
        num_blocks=args.num_blocks,
        frames_per_block=args.frames_per_block,
        condition_frames=args.condition_frames,
        max_history=args.max_history,
        num_inference_steps=args.num_inference_steps,
        guidance_scale=args.guidance_scale,
        text_guidance_scale=args.text_guidance_scale,
        generator=torch.Generator().manual_seed(args.seed),
    )
    first = next(blocks)  # refuses what is wrong before a file is made
    with _video_writer(args.output, args.fps) as write:
        for number, block in enumerate(chain([first], blocks)):
            for frame in _frames(block, args.overlay):
                write(frame)
            timing = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in block.seconds.items())
            print(f"{f'block {number}' if number else 'beginning'}: {len(block.frames)} frames, {timing}", flush=True)
    return str(args.output)


def _conditions(args: InferArgs) -> dict[str, Any]:
    """The pipeline's arguments for beginning, prompt and motion, read before the models are, which takes longer."""
    _check_one(args, ("image", "video", "clip"))
    motions = _check_one(args, ("preset", "poses", "scene"), at_least=0 if args.clip else 1)
    size = (args.height, args.width)
    conditions: dict[str, Any] = {"prompt": args.prompt, "preset": args.preset}
    if args.image is not None:
        conditions["image"] = load_condition_image(args.image, *size)[0]
    if args.video is not None:
        conditions["video"] = load_condition_video(args.video, *size, args.start_frame, args.condition_frames)
    if args.clip is not None:
        clip = load_encoded_clip(args.clip)
        conditions["latents"] = clip.latents
        if args.prompt is None:
            conditions["prompt_embeds"] = clip.prompt_embeds
        if not motions:
            conditions["poses"] = clip.extrinsics
    if args.preset is not None:
        preset_rows(args.preset, 1)  # refuses an unknown one
    if args.poses is not None:
        conditions["poses"] = load_poses(args.poses)
    if args.scene is not None:
        rows = _scene_rows(args.scene)
        conditions |= {"rows": rows[: args.condition_frames], "actions": rows[args.condition_frames :]}
    return conditions


def _check_one(args: InferArgs, names: tuple[str, ...], at_least: int = 1) -> list[str]:
    """Those of ``names`` that are given: one, or as few as ``at_least``."""
    given = [name for name in names if getattr(args, name) is not None]
    if not at_least <= len(given) <= 1:
        raise ValueError(f"{', '.join(names)}: got {' and '.join(given) or 'none'}, give exactly one")
    return given


def _scene_rows(path: Path) -> np.ndarray:
    try:
        scene = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"scene: cannot read {str(path)!r} ({error})") from None
    if not isinstance(scene, dict) or "keyframe_poses" not in scene:
        raise ValueError(f"scene: {str(path)!r} has no keyframe_poses")
    return nuscenes_rows(scene["keyframe_poses"])


def _load_pipeline(args: InferArgs) -> AstraPipeline:
    pipe = AstraPipeline.from_pretrained(args.model, dtype=getattr(torch, args.dtype))
    if args.offload:
        pipe.enable_model_cpu_offload(device=args.device)
    else:
        pipe.to(args.device)
    if args.compile:
        pipe.transformer.compile()
    return pipe


def _frames(block: Block, overlay: bool) -> Iterator[np.ndarray]:
    """A block's frames, with the keys of their latent frame's row if they are wanted."""
    if not overlay:
        yield from block.frames
        return
    before = FRAMES_PER_LATENT * len(block.rows) - len(block.frames)  # 3 in the beginning, whose first has one frame
    for i, frame in enumerate(block.frames):
        yield draw_keys(frame, block.rows[(i + before) // FRAMES_PER_LATENT])


@contextmanager
def _video_writer(path: Path, fps: int) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that adds a frame to an mp4, which gets its name when it is whole."""
    import imageio.v2 as imageio

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.mp4")
    try:
        writer: Any
        with imageio.get_writer(unfinished, fps=fps, codec="libx264", quality=8, macro_block_size=2) as writer:
            yield writer.append_data
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
