"""What every Astra environment shares: one learned world behind Gymnasium's interface."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from astra_gym.actions import Modality
from astra_gym.envs.starts import draw_beginnings, read_options, start_bank

if TYPE_CHECKING:
    import torch

    from astra_gym.bundles import Start
    from astra_gym.envs.window import Window
    from astra_gym.world import World, WorldStep

OBS_TYPES = ("block", "frame", "latent")
RENDER_MODES = ("rgb_array", "rgb_array_list", "human")
LATENT_BOUND = 16.0
"""Latent observations are clipped to this; each channel has unit variance over real frames."""
MAX_HELD_KEYS = 6


def check_views(render_mode: str | None, obs_type: str, render_modes: Sequence[str] = RENDER_MODES) -> None:
    """Raise a ValueError if what is to be seen of a world is not among what there is."""
    if render_mode is not None and render_mode not in render_modes:
        raise ValueError(f"render_mode: got {render_mode!r}, allowed are None and {render_modes}")
    if obs_type not in OBS_TYPES:
        raise ValueError(f"obs_type: got {obs_type!r}, allowed are {OBS_TYPES}")


def make_world(
    world: str | Path,
    scenarios: Sequence[str],
    device: str | torch.device,
    dtype: str | torch.dtype | None,
    num_inference_steps: int | None,
    guidance_scale: float | None = None,
    temperature: float | None = None,
    compiled: bool = False,
) -> World:
    """A batch with one world of each of ``scenarios``; the arguments are those of :class:`AstraEnv`."""
    if num_inference_steps is not None and not (isinstance(num_inference_steps, int) and num_inference_steps > 0):
        raise ValueError(f"num_inference_steps: got {num_inference_steps!r}, allowed are None and 1, 2, 3, ...")
    if guidance_scale is not None and not (isinstance(guidance_scale, Real) and 0 <= guidance_scale < float("inf")):
        raise ValueError(f"guidance_scale: got {guidance_scale!r}, allowed are None and numbers from 0")

    from astra_gym.bundles import load_bundle
    from astra_gym.world import World

    bundle = load_bundle(world, device=device, dtype=dtype)
    if untrained := [name for name in scenarios if name not in bundle.starts]:
        raise ValueError(
            f"world: {world!r} was not trained for {untrained[0]!r}, only {list(bundle.starts)}; name the folder of one"
            f" that was (`astra-gym train --scenarios {untrained[0]}` makes one)"
        )
    made = World(bundle, len(scenarios), scenarios, num_inference_steps, guidance_scale, temperature, compiled)
    made.warm_up()
    return made


def observation_space(world: World, obs_type: str) -> spaces.Box:
    """The space of what is seen of one world."""
    config, model = world.bundle.config, world.bundle.transformer.config
    frame = (config.frame_size, config.frame_size, 3)
    if obs_type == "latent":
        return spaces.Box(-LATENT_BOUND, LATENT_BOUND, (model.in_channels, *model.latent_size), np.float32)
    return spaces.Box(0, 255, frame if obs_type == "frame" else (config.frames_per_block, *frame), np.uint8)


class AstraEnv(gym.Env[np.ndarray, np.ndarray]):
    """A Gymnasium environment whose physics is a world model. A scenario is a subclass that names its modality.

    Args:
        world: name of a bundled world, or the folder of one.
        render_mode: "rgb_array" renders the newest frame, "rgb_array_list" all frames of the newest block, "human"
            shows every frame in a window. ``metadata["render_fps"]`` is what Gymnasium's tools need for true speed: in
            the first two the blocks in a second, as they show one picture a step (rounded, since
            ``gymnasium.utils.play`` insists on an integer).
        obs_type: "block" observes all frames of the newest block, "frame" the newest frame, "latent" the model's own
            description of the block.
        device: of the model, such as "cpu" or "cuda".
        dtype: of the model, such as "bfloat16"; None takes what is best on the device; "int8" is float32 with the
            transformer's large products in 8-bit integers.
        num_inference_steps: denoising steps a block; None takes the world's default.
        guidance_scale: strength of action guidance, 1 is none; None takes the world's default.
        temperature: of what is left to chance, above 0: lower is truer on average, higher more varied; None takes the
            world's default.
        compiled: let PyTorch's compiler make the model's passes; making the environment then takes a minute, and on
            a CPU a C++ compiler.
        info_routing: put the router's weights into ``info``.
        starts: folder of collected episodes (``astra-gym collect``), any moment of which may be a beginning; None
            takes the world's own bank.

    Raises:
        ValueError: naming the argument that is wrong; also where the world's weights are corrupt.
        FileNotFoundError: if there is no such world, or a file of it is missing, or there are no episodes.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 50}
    modality: Modality
    """What an action means here."""
    simulator_id: str
    """Gymnasium id of the ground truth, which has the same interface."""

    def __init__(
        self,
        world: str | Path = "small",
        render_mode: str | None = None,
        obs_type: str = "block",
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        info_routing: bool = False,
        compiled: bool = False,
        starts: str | Path | None = None,
    ):
        check_views(render_mode, obs_type)
        names = [self.modality.name]
        self._world = make_world(
            world, names, device, dtype, num_inference_steps, guidance_scale, temperature, compiled
        )
        self._bank = start_bank(self._world, self.modality, starts)
        self.render_mode = render_mode
        self.obs_type = obs_type
        self.info_routing = info_routing

        config = self._world.bundle.config
        self.fps: int = self.modality.fps
        """Frames of video a second."""
        per_second = self.fps if render_mode in (None, "human") else round(self.fps / config.frames_per_block)
        self.metadata = type(self).metadata | {"render_fps": per_second}
        self.action_space = self.modality.action_space
        self.observation_space = observation_space(self._world, obs_type)
        self._start: Start | None = None
        self._frames = np.zeros((config.frames_per_block, config.frame_size, config.frame_size, 3), np.uint8)
        self._latent = np.zeros(0, np.float32)
        self._window: Window | None = None

    @property
    def start(self) -> Start:
        """Where the episode began.

        Raises:
            ResetNeeded: before the first ``reset``.
        """
        if self._start is None:
            raise ResetNeeded("call reset() first: no episode has begun")
        return self._start

    @property
    def frames(self) -> np.ndarray:
        """A copy of the newest block, ``uint8 (K, H, W, 3)``, oldest frame first."""
        return self._frames.copy()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Begin an episode.

        Args:
            seed: fixes the start and everything the world draws later.
            options: at most one of "start" (place in the bank of starts), "image" (``uint8 (H, W, 3)`` or a
                path) and "video" (``uint8 (T, H, W, 3)`` or a path, oldest frame first); with "video" also "actions",
                one for each of its whole blocks. "prompt" tells the world which scenario it is in: a scenario's name, a
                text that speaks of one, or "" for nothing; by default its own.

        Raises:
            ValueError: naming the option that is wrong.
        """
        asked = read_options(self._world, self._bank, self.modality, options)  # refuses before anything has changed
        super().reset(seed=seed)
        [beginning] = draw_beginnings(self._bank, asked, [self.np_random])
        self._frames = self._world.reset([beginning.start], [beginning.seed], prompts=[beginning.prompt])[0]
        self._latent = beginning.start.latents[-1].float().cpu().numpy()
        self._start = beginning.start
        self._show()
        return self._observation(), self._info(None)

    def step(self, action: np.ndarray):
        """Hold ``action`` for one block of frames; values beyond the action space are clipped.

        Raises:
            ResetNeeded: before the first ``reset``.
            ValueError: on a wrong shape or a number that is not finite.
        """
        if self._start is None:
            raise ResetNeeded("call reset() before step(): no episode has begun")
        self.modality.check_shape(action)
        step = self._world.step(self.modality.rows(action)[None])
        self._frames = step.frames[0]
        self._latent = step.latents[0].float().cpu().numpy()
        self._show()
        return self._observation(), float(step.reward[0]), bool(step.terminated[0]), False, self._info(step)

    def render(self):
        """The newest frame, the frames of the newest block, or None, as ``render_mode`` says."""
        if self._start is None:
            raise ResetNeeded("call reset() before render(): no episode has begun")
        return self._picture()

    def _picture(self) -> np.ndarray | list[np.ndarray] | None:
        if self.render_mode is None:
            gym.logger.warn("render() does nothing without a render_mode: gym.make(..., render_mode='rgb_array')")
        if self.render_mode == "rgb_array":
            return self._frames[-1].copy()
        if self.render_mode == "rgb_array_list":
            return [frame.copy() for frame in self._frames]
        return None

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def get_state(self) -> dict[str, Any]:
        """A snapshot of the whole environment for :meth:`set_state`; wrappers, such as a time limit, are not in it."""
        return {
            "start": self.start,
            "world": self._world.state(),
            "np_random": self.np_random.bit_generator.state,
            "np_random_seed": self.np_random_seed,
            "frames": self._frames.copy(),
            "latent": self._latent.copy(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a snapshot, of this environment or of another one made with the same arguments."""
        self._world.load_state(state["world"])
        self.np_random.bit_generator.state = state["np_random"]
        self._np_random_seed = state["np_random_seed"]
        self._start = state["start"]
        self._frames = state["frames"].copy()
        self._latent = state["latent"].copy()

    def __reduce__(self):
        raise TypeError(f"{type(self).__name__} cannot be copied or pickled; use get_state and set_state")

    def get_keys_to_action(self) -> dict[tuple[int, ...] | str, np.ndarray]:
        """Up to six of the bound keys held together, as pygame's key codes, to the action; "" is no key at all.

        For ``gymnasium.utils.play``, which needs every combination spelt out.
        """
        import pygame

        names = [name for keys in self.modality.key_bindings for name in keys]
        codes = {name: getattr(pygame, f"K_{name if len(name) == 1 else name.upper()}") for name in names}
        table: dict[tuple[int, ...] | str, np.ndarray] = {"": self.modality.from_keys(set())}
        for count in range(1, MAX_HELD_KEYS + 1):
            for held in combinations(names, count):
                table[tuple(codes[name] for name in held)] = self.modality.from_keys(set(held))
        return table

    def _observation(self) -> np.ndarray:
        if self.obs_type == "latent":
            return self._latent.clip(-LATENT_BOUND, LATENT_BOUND)
        return self._frames[-1].copy() if self.obs_type == "frame" else self._frames.copy()

    def _info(self, step: WorldStep | None) -> dict[str, Any]:
        info: dict[str, Any] = {"start": -1 if self.start.index is None else self.start.index}
        if self.info_routing:
            num_experts = self._world.bundle.transformer.config.num_experts
            info["routing"] = np.zeros(num_experts, np.float32) if step is None else step.routing[0].copy()
        return info

    def _show(self) -> None:
        if self.render_mode != "human":
            return
        if self._window is None:
            from astra_gym.envs.window import Window

            height, width = self._frames.shape[1:3]
            self._window = Window(type(self).__name__, self.fps, aspect=width / height)
        self._window.show(self._frames)
