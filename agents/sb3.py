"""The form in which Stable-Baselines3 learns best from an environment of blocks, and its policies as agents."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium import spaces


def stack_frames(block: np.ndarray) -> np.ndarray:
    """A block ``(K, H, W, 3)`` as one image with the frames as channels, ``(3K, H, W)``, the oldest frame first."""
    frames, height, width, colours = block.shape
    return block.transpose(0, 3, 1, 2).reshape(frames * colours, height, width)


class StackedFrames(gym.ObservationWrapper):
    """Observe a block as one image of ``3K`` channels, which come first, as SB3's ``CnnPolicy`` wants them.

    Args:
        env: environment that observes blocks of frames, ``uint8 (K, H, W, 3)``.

    Raises:
        ValueError: if it observes something else.
    """

    def __init__(self, env: gym.Env):
        super().__init__(env)
        shape = env.observation_space.shape or ()
        if len(shape) != 4:
            raise ValueError(f"env: got observations of shape {shape}, allowed are blocks of frames (K, H, W, 3)")
        self.observation_space = spaces.Box(0, 255, (shape[0] * shape[3], *shape[1:3]), np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return stack_frames(observation)


class SymmetricControls(gym.ActionWrapper):
    """Controls in -1..1 around rest, as SB3 recommends.

    Gas and brake become one pedal, since nobody wants both at once: ``[steer, pedal]``, where a pedal above 0 is gas
    and one below 0 is brake. In environments without gas and brake each number is mapped linearly.
    """

    def __init__(self, env: gym.Env):
        super().__init__(env)
        space = env.action_space
        if not isinstance(space, spaces.Box):
            raise ValueError(f"env: got the action space {space}, allowed is a Box")
        self.low, self.high = space.low, space.high
        self.has_pedals = env.get_wrapper_attr("modality").name == "drive"
        self.action_space = spaces.Box(-1.0, 1.0, (len(self.low) - self.has_pedals,), np.float32)

    def action(self, action: np.ndarray) -> np.ndarray:
        """The wrapped environment's action."""
        action = np.clip(action, -1.0, 1.0)
        if self.has_pedals:
            steer, pedal = action
            return np.array([steer, max(pedal, 0.0), max(-pedal, 0.0)], np.float32)
        return (self.low + (action + 1.0) / 2.0 * (self.high - self.low)).astype(np.float32)


class ScaledReward(gym.RewardWrapper):
    """Multiply rewards by ``scale``, so that returns are about one and value networks learn at once."""

    def __init__(self, env: gym.Env, scale: float):
        super().__init__(env)
        self.scale = scale

    def reward(self, reward):
        return float(reward) * self.scale


def wrap_for_sb3(env: gym.Env, reward_scale: float = 1.0) -> gym.Env:
    """``env`` with stacked frames, symmetric controls and scaled rewards."""
    return ScaledReward(SymmetricControls(StackedFrames(env)), reward_scale)


class SB3Agent:
    """A policy that PPO has learned in an environment wrapped by :func:`wrap_for_sb3`; it acts without exploring.

    Args:
        path: the .zip that SB3 saved.
        env: environment to act in, not wrapped for SB3.

    Raises:
        ValueError: if the file is not such a policy, or was learned with other observations or actions.
    """

    def __init__(self, path: str | Path, env: gym.Env):
        from stable_baselines3 import PPO

        controls = SymmetricControls(StackedFrames(env))
        try:
            self.model = PPO.load(path, device="cpu")
        except Exception as error:  # a file that is no policy fails in many ways
            raise ValueError(f"agent: cannot read {str(path)!r} as a PPO policy ({error})") from error
        expected = (controls.observation_space, controls.action_space)
        learned = (self.model.observation_space, self.model.action_space)
        if learned != expected:
            raise ValueError(f"agent: {str(path)!r} was learned with {learned}, here the spaces are {expected}")
        self._controls = controls

    def reset(self, seed: int | None = None) -> None:
        """Nothing to do: the policy has no memory and makes no random choice."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The environment's action for a block ``uint8 (K, H, W, 3)``."""
        action, _ = self.model.predict(stack_frames(observation), deterministic=True)
        return self._controls.action(action)
