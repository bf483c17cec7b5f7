"""The released Astra as a diffusers pipeline: prompt, picture or video, and motion in, video out, block by block."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.utils import BaseOutput
from torch import Tensor
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from astra_gym.camera import load_poses, path_rows, preset_rows, still_rows
from astra_gym.conditions import ImageSource, VideoSource, load_condition_image, load_condition_video
from astra_gym.episode import MAX_HISTORY, AstraEpisode, Block, Guidance
from astra_gym.models.attention import KeysValues
from astra_gym.models.transformer import AstraTransformer
from astra_gym.models.video_codec import encode_video

MAX_TEXT_TOKENS = 512
BLOCK = 8
"""Latent frames that the released model was trained to make at once."""

Callback = Callable[["AstraPipeline", int, float, dict[str, Tensor]], dict[str, Tensor]]
PoseSource = np.ndarray | str | Path


@dataclass
class AstraPipelineOutput(BaseOutput):
    """A whole video."""

    frames: np.ndarray
    """uint8 (N, H, W, 3): the beginning, decoded, and the new frames."""
    latents: Tensor
    """float32 (1, F, C, h, w): of the new frames."""
    rows: np.ndarray
    """float32 (F, row_dim): their actions."""
    beginning_frames: int = 0
    """How many of the frames are the beginning; the arguments count latent frames."""
    timings: list[dict[str, float]] = field(default_factory=list)
    """Seconds of each block by stage: "denoise", "decode", and "encode" in the first."""


class AstraPipeline(DiffusionPipeline):
    """Video from actions, with the weights that ``astra-gym convert`` brought into one folder.

    ```python
    pipe = AstraPipeline.from_pretrained("astra", dtype=torch.bfloat16).to("cuda")
    video = pipe("a garden in the evening", image="garden.png", height=480, width=832, preset=4, num_blocks=3).frames
    ```

    Args:
        tokenizer, text_encoder: of UMT5.
        vae: Wan2.1's autoencoder.
        transformer: of the packed layout.
        scheduler: its shift sets the schedule.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _callback_tensor_inputs = ["latents"]

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: UMT5EncoderModel,
        vae: AutoencoderKLWan,
        transformer: AstraTransformer,
        scheduler: FlowMatchEulerDiscreteScheduler,
    ):
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=transformer, scheduler=scheduler
        )

    @torch.no_grad()
    def enable_sequential_cpu_offload(self, *arguments: Any, **options: Any) -> None:
        """Not possible: the transformer reads the weights of layers that then are not on the device."""
        raise RuntimeError("enable_sequential_cpu_offload: not possible; use enable_model_cpu_offload")

    def encode_prompt(self, prompt: str) -> Tensor:
        """UMT5's embeddings of a prompt, zeros after its end, ``(1, 512, text_dim)``."""
        text = " ".join(html.unescape(prompt).split())
        tokens = self.tokenizer(text, truncation=True, max_length=MAX_TEXT_TOKENS, return_tensors="pt")
        device = self._execution_device
        embeddings = self.text_encoder(tokens.input_ids.to(device), tokens.attention_mask.to(device)).last_hidden_state
        padding = MAX_TEXT_TOKENS - embeddings.shape[1]
        return torch.nn.functional.pad(embeddings, (0, 0, 0, padding)).to(self.transformer.dtype)

    def action_rows(
        self,
        modality: str,
        condition_frames: int,
        actions: np.ndarray | None = None,
        preset: int | None = None,
        poses: PoseSource | None = None,
        num_blocks: int | None = None,
        frames_per_block: int = BLOCK,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the beginning and of the new frames, from exactly one of ``actions``, ``preset`` and ``poses``.

        Args:
            modality: of the actions; presets and poses are "sekai".
            condition_frames: latent frames of the beginning.
            actions: rows of the new frames ``(F, row_dim)``, one a latent frame.
            preset: 1 to 7, see :data:`astra_gym.camera.PRESETS`; moves for all blocks.
            poses: a camera path for :func:`astra_gym.camera.path_rows` or a file of one, from the beginning's first
                frame on. The row of a latent frame is the motion to the next one, as in training, so that
                ``(P - 1) // 4 - condition_frames`` new latent frames come of extrinsics, one a video frame.
            num_blocks: generate so many blocks; 3 for a preset and all that there are for the others by default.
            frames_per_block: latent frames in a block.

        Raises:
            ValueError: naming the argument that is wrong.
        """
        given = [name for name, v in (("actions", actions), ("preset", preset), ("poses", poses)) if v is not None]
        if len(given) != 1:
            raise ValueError(f"actions, preset, poses: got {given or 'none'}, give exactly one")
        if frames_per_block < 1 or (num_blocks is not None and num_blocks < 1):
            raise ValueError(
                f"num_blocks, frames_per_block: got {num_blocks} and {frames_per_block}, at least 1 is needed"
            )
        if modality not in self.transformer.config.modalities:
            raise ValueError(f"modality: got {modality!r}, this model knows {list(self.transformer.config.modalities)}")
        row_dim = self.transformer.config.modalities[modality]
        if actions is not None:
            new = np.asarray(actions, np.float32)
            if new.ndim != 2 or new.shape[1] != row_dim or not len(new) or not np.isfinite(new).all():
                raise ValueError(f"actions: got shape {new.shape}, allowed are finite rows (frames, {row_dim})")
            beginning = _neutral_rows(condition_frames, row_dim)
        elif row_dim != 13:
            raise ValueError(f"modality: presets and poses need one whose rows are poses, {modality!r} has none")
        elif preset is not None:
            new = preset_rows(preset, (3 if num_blocks is None else num_blocks) * frames_per_block)
            beginning = still_rows(condition_frames)
        else:
            assert poses is not None
            path = load_poses(poses) if isinstance(poses, (str, Path)) else poses
            rows = path_rows(path)
            beginning, new = rows[:condition_frames], rows[condition_frames:]
            if not len(new):
                raise ValueError(
                    f"poses: got {len(path)}, enough for {len(rows)} latent frames; {condition_frames + 1} are needed,"
                    f" {condition_frames} of them for the beginning"
                )
        if num_blocks is not None:
            if len(new) < num_blocks * frames_per_block:
                raise ValueError(f"num_blocks: got {num_blocks}, the {given[0]} suffice for {len(new)} latent frames")
            new = new[: num_blocks * frames_per_block]
        return beginning, new

    @torch.no_grad()
    def begin(
        self,
        prompt: str | None = None,
        image: ImageSource | None = None,
        video: VideoSource | None = None,
        latents: Tensor | None = None,
        rows: np.ndarray | None = None,
        modality: str = "sekai",
        height: int | None = None,
        width: int | None = None,
        start_frame: int = 0,
        condition_frames: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 1.0,
        text_guidance_scale: float = 1.0,
        generator: torch.Generator | None = None,
        prompt_embeds: Tensor | None = None,
        max_history: int = MAX_HISTORY,
    ) -> AstraEpisode:
        """An episode to be stepped by hand, or by :meth:`stream`.

        Args:
            prompt: what is to be seen; None is the empty prompt.
            image, video, latents: the beginning, exactly one: a picture, a video, or latents ``(1, T, C, h, w)``.
            rows: actions of the beginning ``(T, row_dim)``; None is a world that stood still.
            modality: of the actions.
            height, width: to fit the picture or the video to; None takes its own size, which must then divide by 16.
            start_frame: first frame of the video to use.
            condition_frames: latent frames of the beginning; None takes all.
            num_inference_steps: denoising steps.
            guidance_scale: action-free guidance, 1 is off.
            text_guidance_scale: guidance on the prompt, 1 is off.
            generator: of the noise.
            prompt_embeds: embeddings ``(1, M, text_dim)`` to use in place of a prompt.
            max_history: latent frames to keep, the first one and the newest; the model sees the newest 20.

        Raises:
            ValueError: naming the argument that is wrong.
        """
        given = [name for name, v in (("image", image), ("video", video), ("latents", latents)) if v is not None]
        if len(given) != 1:
            raise ValueError(f"image, video, latents: got {given or 'none'}, give exactly one")
        if prompt is not None and prompt_embeds is not None:
            raise ValueError("prompt, prompt_embeds: give one of them")
        guidance = Guidance(num_inference_steps, self.scheduler.config.shift, guidance_scale, text_guidance_scale)
        device = self._execution_device
        begin = time.perf_counter()
        if latents is None:
            if image is not None:
                frames = load_condition_image(image, height, width)
            else:
                assert video is not None
                frames = load_condition_video(video, height, width, start_frame, condition_frames)
            latents = encode_video(self.vae, frames, device)
        else:
            channels = self.transformer.config.in_channels
            if latents.ndim != 5 or latents.shape[0] != 1 or latents.shape[2] != channels:
                raise ValueError(f"latents: got shape {tuple(latents.shape)}, allowed is (1, T, {channels}, h, w)")
            wanted = latents.shape[1] if condition_frames is None else condition_frames
            if not 1 <= wanted <= latents.shape[1]:
                raise ValueError(f"condition_frames: got {wanted}, allowed are 1 to {latents.shape[1]}, the latents")
            latents = latents[:, :wanted]
        seconds = time.perf_counter() - begin
        if rows is None:
            rows = _neutral_rows(latents.shape[1], self.transformer.config.modalities.get(modality, 13))
        context = self._context(self.encode_prompt(prompt or "") if prompt_embeds is None else prompt_embeds)
        empty = self._context(self.encode_prompt("")) if text_guidance_scale != 1.0 else None
        episode = AstraEpisode(
            self.transformer,
            self.vae,
            latents,
            rows,
            modality,
            context,
            empty,
            guidance,
            generator,
            device,
            max_history,
        )
        episode.first_seconds["encode"] = seconds
        return episode

    def stream(
        self,
        prompt: str | None = None,
        actions: np.ndarray | None = None,
        preset: int | None = None,
        poses: PoseSource | None = None,
        num_blocks: int | None = None,
        frames_per_block: int = BLOCK,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
        **beginning: Any,
    ) -> Iterator[Block]:
        """Generate, and yield each block as soon as it is decoded. The first is the beginning, its frames decoded.

        Args:
            prompt: what is to be seen.
            actions, preset, poses, num_blocks, frames_per_block: the motion, see :meth:`action_rows`.
            callback_on_step_end: called as ``callback(pipe, step, timestep, {"latents": ...})`` after each denoising
                step; latents in the dictionary it returns replace them.
            callback_on_step_end_tensor_inputs: what it is given, ["latents"].
            beginning: image, video and the other arguments of :meth:`begin`.
        """
        if unknown := set(callback_on_step_end_tensor_inputs or ()) - set(self._callback_tensor_inputs):
            raise ValueError(
                f"callback_on_step_end_tensor_inputs: got {sorted(unknown)}, allowed are {self._callback_tensor_inputs}"
            )
        modality = beginning.get("modality", "sekai")
        motion = (actions, preset, poses, num_blocks, frames_per_block)
        self.action_rows(modality, 1, *motion)  # refuses bad motion before anything is encoded
        episode = self.begin(prompt, **beginning)
        condition_rows, new_rows = self.action_rows(modality, episode.latents.shape[1], *motion)
        if beginning.get("rows") is None:
            episode.rows = torch.from_numpy(condition_rows)
        yield Block(episode.first_frames, episode.latents, episode.rows.numpy(), episode.first_seconds)
        for start in range(0, len(new_rows), frames_per_block):
            with self.progress_bar(total=episode.guidance.num_inference_steps) as bar:

                def after_step(step: int, timestep: float, latents: Tensor, bar: Any = bar) -> Tensor | None:
                    bar.update()
                    if callback_on_step_end is None:
                        return None
                    return callback_on_step_end(self, step, timestep, {"latents": latents}).get("latents")

                yield episode.step(new_rows[start : start + frames_per_block], after_step)
        self.maybe_free_model_hooks()

    def __call__(self, prompt: str | None = None, return_dict: bool = True, **arguments: Any) -> Any:
        """The whole video at once.

        Args:
            prompt: what is to be seen.
            return_dict: False returns a tuple.
            arguments: those of :meth:`stream` and :meth:`begin`.

        Returns:
            :class:`AstraPipelineOutput`, or a tuple of its values.
        """
        first, *blocks = self.stream(prompt, **arguments)
        output = AstraPipelineOutput(
            frames=np.concatenate([block.frames for block in (first, *blocks)]),
            latents=torch.cat([block.latents for block in blocks], 1),
            rows=np.concatenate([block.rows for block in blocks]),
            beginning_frames=len(first.frames),
            timings=[block.seconds for block in (first, *blocks)],
        )
        return output if return_dict else output.to_tuple()

    def _context(self, embeddings: Tensor) -> list[KeysValues]:
        return self.transformer.embed_text(embeddings.to(self._execution_device, self.transformer.dtype))


def _neutral_rows(count: int, row_dim: int) -> np.ndarray:
    """Rows of a world that stands still: no motion in a pose, no rotation in a translation and a quaternion."""
    if row_dim == 13:
        return still_rows(count)
    rows = np.zeros((count, row_dim), np.float32)
    rows[:, 3] = 1  # w of the quaternion
    return rows
