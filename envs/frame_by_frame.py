"""Watch an Astra environment one video frame at a time."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np


class FrameByFrame(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Make one step one video frame, for tools that take one picture a step.

    ``RecordVideo`` and ``gymnasium.utils.play`` ask for a picture after each step, so of a block they would only see
    the newest frame. With this wrapper they see every frame, at the world's frame rate:

        env = FrameByFrame(gym.make("AstraDrive-v0", render_mode="rgb_array"))
        env = RecordVideo(env, "videos")

    The action counts in the step that begins a block and is held for the rest of it. Reward and the end of the episode
    arrive with the block's last frame, the observation is always that of the newest block.

    Args:
        env: an Astra environment made with ``render_mode="rgb_array"``, possibly wrapped.

    Raises:
        ValueError: if ``env`` has another render mode.
    """

    def __init__(self, env: gym.Env):
        if env.render_mode != "rgb_array":
            raise ValueError(f"env: got one with render_mode={env.render_mode!r}, allowed is 'rgb_array'")
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self.metadata = env.metadata | {"render_fps": env.get_wrapper_attr("fps")}
        self._frames = np.zeros(0)
        self._shown = 0
        self._outcome: tuple[Any, ...] = ()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        observation, info = self.env.reset(seed=seed, options=options)
        self._begin_block()
        self._shown = len(self._frames) - 1
        return observation, info

    def step(self, action):
        if not len(self._frames) or self._shown == len(self._frames) - 1:
            self._outcome = self.env.step(action)
            self._begin_block()
        else:
            self._shown += 1
        observation, reward, terminated, truncated, info = self._outcome
        if self._shown < len(self._frames) - 1:
            reward, terminated, truncated = 0.0, False, False
        return observation.copy(), reward, terminated, truncated, deepcopy(info)

    def render(self):
        """The frame of this step, ``uint8 (H, W, 3)``."""
        if not len(self._frames):
            raise gym.error.ResetNeeded("render: call reset first")
        return self._frames[self._shown].copy()

    def _begin_block(self) -> None:
        self._frames = self.env.get_wrapper_attr("frames")
        self._shown = 0
