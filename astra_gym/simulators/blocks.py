"""Turn any Gymnasium environment that renders into one whose step is a block of frames."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from astra_gym.actions import Modality
from astra_gym.envs.starts import OPTIONS
from astra_gym.media import Crop, resize_frame


def is_image(space: gym.Space) -> bool:
    """Whether ``space`` holds RGB images, ``uint8 (H, W, 3)``."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3 and space.shape[-1] == 3


def make_visible(env_id: str, **options: Any) -> gym.Env:
    """The environment, rendering RGB pictures unless pictures are what it observes."""
    env = gym.make(env_id, disable_env_checker=True, **options)
    if is_image(env.observation_space) or len(env.observation_space.shape or ()) == 4:
        return env
    env.close()
    return gym.make(env_id, render_mode="rgb_array", disable_env_checker=True, **options)


class BlockFrames(gym.Wrapper):
    """Hold each action for a block of consecutive frames and observe all of them.

    The observation is ``uint8 (frames, size, size, 3)``, oldest frame first; the reward is the sum over the block.
    Frames are the wrapped environment's observations where those are RGB images, else what its ``render()`` returns.
    After ``reset`` the block repeats the first frame: the world stood still. An episode that ends within a block
    repeats its last frame up to the block's length.

    Args:
        env: environment with image observations or ``render_mode="rgb_array"``.
        frames: frames (steps of ``env``) a block.
        size: side of the square frames in pixels.
        crop: ``(left, top, right, bottom)`` of the source image, None for the largest centred square.

    Raises:
        ValueError: if ``env`` neither observes nor renders RGB images.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}

    def __init__(self, env: gym.Env, frames: int = 4, size: int = 64, crop: Crop | None = None):
        super().__init__(env)
        self._observes_image = is_image(env.observation_space)
        if not self._observes_image and env.render_mode != "rgb_array":
            raise ValueError(
                f"env: {env} has no image observations and render_mode={env.render_mode!r}; "
                "make it with render_mode='rgb_array'"
            )
        self.frames_per_block, self.size, self.crop = frames, size, crop
        self.observation_space = spaces.Box(0, 255, (frames, size, size, 3), np.uint8)
        self.metadata = env.metadata | {"render_modes": ["rgb_array"]}
        self._block = np.zeros(self.observation_space.shape, np.uint8)

    @property
    def frames(self) -> np.ndarray:
        """A copy of the newest block, ``uint8 (frames, size, size, 3)``, oldest frame first."""
        return self._block.copy()

    def _frame(self, observation: Any) -> np.ndarray:
        image = observation if self._observes_image else self.env.render()
        return resize_frame(np.asarray(image), self.size, self.crop)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        observation, info = self.env.reset(seed=seed, options=options)
        self._block = np.stack([self._frame(observation)] * self.frames_per_block)
        return self._block.copy(), info

    def step(self, action):
        total, block = 0.0, []
        terminated = truncated = False
        info: dict[str, Any] = {}
        for _ in range(self.frames_per_block):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            block.append(self._frame(observation))
            if terminated or truncated:
                break
        block += [block[-1]] * (self.frames_per_block - len(block))
        self._block = np.stack(block)
        return self._block.copy(), total, bool(terminated), bool(truncated), info

    def render(self):
        """The newest frame, ``uint8 (size, size, 3)``."""
        return self._block[-1].copy()


class Simulator(BlockFrames):
    """What the ground truths share: blocks of 4 frames, their arguments, and a picture in either render mode.

    A scenario's simulator is a subclass that names its modality.

    Args:
        env: the simulator, frame by frame.
        render_mode: "rgb_array" or None; ``render()`` gives the newest frame in both. ``metadata["render_fps"]`` is of
            these in "rgb_array", one a block, as in a world; ``fps`` is of all frames.
        size: side of the square frames in pixels.
        crop: as for :class:`BlockFrames`.
    """

    modality: Modality
    """What an action means here."""

    def __init__(self, env: gym.Env, render_mode: str | None, size: int, crop: Crop | None = None):
        super().__init__(env, frames=4, size=size, crop=crop)
        self._render_mode = render_mode
        self.fps: int = self.modality.fps
        shown = self.fps if render_mode is None else max(1, round(self.fps / self.frames_per_block))
        self.metadata = self.metadata | {"render_fps": shown}

    @property
    def render_mode(self) -> str | None:  # type: ignore[override]
        return self._render_mode

    @property
    def spec(self):
        """That of the simulator as a whole; what it wraps inside is its own affair."""
        return self.unwrapped.spec

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Begin an episode; what a learned world's options ask for, a simulator cannot do.

        Raises:
            ValueError: on such options.
        """
        if refused := [key for key in options or () if key in OPTIONS]:
            raise ValueError(f"options: got {refused}, which only a learned world takes")
        return super().reset(seed=seed, options=options)

    def step(self, action):
        """Hold ``action`` for one block; values beyond the action space are clipped.

        Raises:
            ValueError: on a wrong shape or a number that is not finite.
        """
        self.modality.check_shape(action)
        return super().step(self.modality.checked(action))

    @staticmethod
    def check_arguments(max_episode_blocks: int | None, render_mode: str | None, size: int) -> None:
        """Raise a ValueError that names the argument which no simulator takes."""
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode: got {render_mode!r}, allowed are None and 'rgb_array'")
        if max_episode_blocks is not None and not (isinstance(max_episode_blocks, int) and max_episode_blocks > 0):
            raise ValueError(f"max_episode_blocks: got {max_episode_blocks!r}, allowed are None and 1, 2, 3, ...")
        if not (isinstance(size, int) and size > 0):
            raise ValueError(f"size: got {size!r}, allowed are 1, 2, 3, ...")
