"""What environments on the released weights share: an episode of video, stepped by actions in physical units."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from astra_gym.envs.base import LATENT_BOUND, RENDER_MODES, AstraEnv, check_views
from astra_gym.released_actions import ReleasedModality
from astra_gym.rewards import RewardFunction

if TYPE_CHECKING:
    import torch

    from astra_gym.episode import AstraEpisode, Block

FPS = 20
OPTIONS = ("image", "video", "prompt", "actions")
"""Keys of ``reset(options=...)``."""


def is_released(world: str | Path) -> bool:
    """Whether ``world`` is a folder that ``astra-gym convert`` wrote."""
    return (Path(world) / "model_index.json").is_file()


class ReleasedEnv(AstraEnv):
    """A Gymnasium environment whose physics is the released Astra model. A scenario is a subclass with its modality.

    Args:
        world: folder that ``astra-gym convert`` wrote.
        reward_fn: called as ``reward_fn(frames, latents, info)`` after each step, see :mod:`astra_gym.rewards`. The
            released weights have no reward head, so it must be given.
        prompt: what is to be seen.
        image, video: the beginning where ``reset`` names none: an array or a path.
        height, width: of the frames in pixels, multiples of 16; the beginning is scaled and cropped to it.
        latents_per_step: latent frames that a step makes, 4 frames each. The released model was trained to make 8.
        render_mode, obs_type, device, dtype: as for :class:`~astra_gym.envs.base.AstraEnv`.
        num_inference_steps: denoising steps; None takes the 50 that the model was released with.
        guidance_scale: strength of action guidance; None is 1, none.
        info_routing: put the weights of the action experts into ``info``: the modality's own has them all.
        offload: keep on the device only the model that is at work.

    Raises:
        ValueError: naming the argument that is wrong.
        FileNotFoundError: if ``world`` is no such folder.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": FPS}
    modality: ReleasedModality

    def __init__(
        self,
        world: str | Path = "small",
        reward_fn: RewardFunction | None = None,
        prompt: str = "",
        image: np.ndarray | str | Path | None = None,
        video: np.ndarray | str | Path | None = None,
        height: int = 480,
        width: int = 832,
        latents_per_step: int = 8,
        render_mode: str | None = None,
        obs_type: str = "block",
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        info_routing: bool = False,
        offload: bool = False,
    ):
        if not is_released(world):
            raise FileNotFoundError(
                f"world: {str(world)!r} is no folder that 'astra-gym convert' wrote; {type(self).__name__} needs one,"
                " since no bundled world was trained for it"
            )
        if not callable(reward_fn):
            raise ValueError(
                f"reward_fn: got {reward_fn!r}; the released weights have no reward head, give a callable such as"
                " astra_gym.rewards.GoalImage"
            )
        check_views(render_mode, obs_type)
        if latents_per_step < 1:
            raise ValueError(f"latents_per_step: got {latents_per_step}, allowed are 1, 2, 3, ...")

        from astra_gym.conditions import FRAMES_PER_LATENT, check_size
        from astra_gym.pipeline import AstraPipeline
        from astra_gym.precision import resolve_dtype

        check_size(height, width)
        self._pipe = AstraPipeline.from_pretrained(world, dtype=resolve_dtype(dtype))
        self._pipe.set_progress_bar_config(disable=True)
        if offload:
            self._pipe.enable_model_cpu_offload(device=device)
        else:
            self._pipe.to(device)
        self.reward_fn, self.prompt = reward_fn, prompt
        self._beginning = {"image": image, "video": video}
        self.latents_per_step, self.info_routing = latents_per_step, info_routing
        self._guidance = {
            "num_inference_steps": 50 if num_inference_steps is None else num_inference_steps,
            "guidance_scale": 1.0 if guidance_scale is None else guidance_scale,
        }
        self._prompt_embeds: dict[str, torch.Tensor] = {}
        self._episode: AstraEpisode | None = None
        self._frame = 0

        self.render_mode, self.obs_type = render_mode, obs_type
        self.fps = FPS
        per_step = FRAMES_PER_LATENT * latents_per_step
        self.metadata = type(self).metadata | {
            "render_fps": FPS if render_mode in (None, "human") else max(1, round(FPS / per_step))
        }
        self.action_space = self.modality.action_space
        self._frames = np.zeros((per_step, height, width, 3), np.uint8)
        channels = self._pipe.transformer.config.in_channels
        self._latent = np.zeros((latents_per_step, channels, height // 8, width // 8), np.float32)
        self._window = None
        self.observation_space = self._make_observation_space()

    def _make_observation_space(self) -> spaces.Box:
        if self.obs_type == "latent":
            return spaces.Box(-LATENT_BOUND, LATENT_BOUND, self._latent.shape, np.float32)
        shape = self._frames.shape if self.obs_type == "block" else self._frames.shape[1:]
        return spaces.Box(0, 255, shape, np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Begin an episode.

        Args:
            seed: fixes everything the world draws later.
            options: "image" (``uint8 (H, W, 3)`` or a path) or "video" (``uint8 (T, H, W, 3)`` or a path, oldest frame
                first), where neither the environment was made with one; "prompt" in place of the environment's; with
                "video" also "actions", one for each of its latent frames after the first.

        Raises:
            ValueError: naming the option that is wrong.
        """
        super(AstraEnv, self).reset(seed=seed)
        import torch

        options = dict(options or {})
        if unknown := [key for key in options if key not in OPTIONS]:
            raise ValueError(f"options: got unknown key {unknown[0]!r}, allowed are {OPTIONS}")
        named = {key: options.get(key) for key in ("image", "video")}
        beginning = named if any(value is not None for value in named.values()) else self._beginning
        if all(value is None for value in beginning.values()):
            raise ValueError("image, video: give reset(options={'image': ...}) or make the environment with one")
        prompt = options.get("prompt")
        generator = torch.Generator().manual_seed(int(self.np_random.integers(2**31)))
        episode = self._pipe.begin(
            **beginning,
            prompt_embeds=self._embed(self.prompt if prompt is None else str(prompt)),
            modality=self.modality.model_modality,
            height=self._frames.shape[1],
            width=self._frames.shape[2],
            generator=generator,
            **self._guidance,
        )
        if options.get("actions") is not None:
            actions = np.asarray(options["actions"])
            expected = (episode.latents.shape[1] - 1, self.modality.action_dim)
            if beginning["video"] is None or actions.shape != expected:
                raise ValueError(f"actions: got shape {actions.shape}, allowed is {expected}, with the option 'video'")
            first = episode.rows[0].numpy()
            episode.rows[1:] = torch.from_numpy(self.modality.rows_after(first, actions))
        self._episode, self._frame = episode, 0
        self._frames = _newest(episode.first_frames, len(self._frames))
        self._latent = _newest(episode.latents[0].cpu().numpy(), len(self._latent))
        self._show()
        return self._observation(), self._info(None)

    def step(self, action: np.ndarray):
        """Hold ``action`` for one step; values beyond the action space are clipped.

        Raises:
            ResetNeeded: before the first ``reset``.
            ValueError: on a wrong shape or a number that is not finite.
        """
        if self._episode is None:
            raise ResetNeeded("call reset() before step(): no episode has begun")
        if np.shape(action) != self.action_space.shape:
            raise ValueError(f"action: got shape {np.shape(action)}, allowed is {self.action_space.shape}")
        held = np.repeat(np.asarray(action)[None], self.latents_per_step, 0)
        block = self._episode.step(self.modality.rows_after(self._episode.rows[-1].numpy(), held))
        self._frames = block.frames
        self._latent = block.latents[0].cpu().numpy()
        self._frame += len(block.frames)
        self._show()
        info = self._info(block)
        reward = float(self.reward_fn(self._frames, self._latent, info))
        return self._observation(), reward, False, False, info

    def render(self):
        """The newest frame, the frames of the newest step, or None, as ``render_mode`` says."""
        if self._episode is None:
            raise ResetNeeded("call reset() before render(): no episode has begun")
        return self._picture()

    def get_state(self) -> dict[str, Any]:
        """A snapshot of the whole environment for :meth:`set_state`; wrappers, such as a time limit, are not in it."""
        if self._episode is None:
            raise ResetNeeded("call reset() before get_state(): no episode has begun")
        return {
            "episode": self._episode.state(),
            "np_random": self.np_random.bit_generator.state,
            "np_random_seed": self.np_random_seed,
            "frame": self._frame,
            "frames": self._frames.copy(),
            "latent": self._latent.copy(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a snapshot of this environment."""
        if self._episode is None:
            raise ResetNeeded("call reset() before set_state(): no episode has begun")
        self._episode.load_state(state["episode"])
        self.np_random.bit_generator.state = state["np_random"]
        self._np_random_seed = state["np_random_seed"]
        self._frame = state["frame"]
        self._frames, self._latent = state["frames"].copy(), state["latent"].copy()

    def _embed(self, prompt: str) -> torch.Tensor:
        if prompt not in self._prompt_embeds:
            self._prompt_embeds = {prompt: self._pipe.encode_prompt(prompt)}
        return self._prompt_embeds[prompt]

    def _info(self, step: Block | None) -> dict[str, Any]:  # type: ignore[override]
        info: dict[str, Any] = {"frame": self._frame}
        if self.info_routing:
            config = self._pipe.transformer.config
            info["routing"] = np.zeros(config.num_experts, np.float32)
            info["routing"][list(config.modalities).index(self.modality.model_modality)] = step is not None
        return info


def _newest(frames: np.ndarray, count: int) -> np.ndarray:
    """The last ``count`` entries; where there are fewer, the first one stood still."""
    missing = max(0, count - len(frames))
    return np.concatenate([np.repeat(frames[:1], missing, 0), frames[-count:]])
