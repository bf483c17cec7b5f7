"""The form in which Stable-Baselines3 learns best from an environment of blocks, and its policies as agents."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from astra_gym.actions import DRIVE, MANIPULATION

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.policies import BasePolicy


def stack_frames(blocks: np.ndarray) -> np.ndarray:
    """Blocks ``(..., K, H, W, 3)`` as images with the frames as channels, oldest first, ``(..., 3K, H, W)``."""
    *batch, frames, height, width, colours = blocks.shape
    return np.moveaxis(blocks, -1, -3).reshape(*batch, frames * colours, height, width)


def unstack_frames(images: np.ndarray) -> np.ndarray:
    """The blocks ``(..., K, H, W, 3)`` that :func:`stack_frames` has made into ``images (..., 3K, H, W)``."""
    *batch, channels, height, width = images.shape
    return np.moveaxis(images.reshape(*batch, channels // 3, 3, height, width), -3, -1)


def stacked_space(space: spaces.Space) -> spaces.Box:
    """The space of stacked frames of a space of blocks.

    Raises:
        ValueError: if it is another space.
    """
    shape = space.shape or ()
    if len(shape) != 4:
        raise ValueError(f"env: got observations of shape {shape}, allowed are blocks of frames (K, H, W, 3)")
    return spaces.Box(0, 255, (shape[0] * shape[3], *shape[1:3]), np.uint8)


class Controls:
    """Controls in -1..1 around rest, as SB3 recommends.

    Gas and brake become one pedal, since nobody wants both at once: ``[steer, pedal]``, where a pedal above 0 is gas
    and one below 0 is brake. A block is pushed along the table: ``[dx, dy]``, and height and fingers stay as they are.
    In other scenarios each number is mapped linearly.

    Args:
        actions: space of a scenario's actions.
        scenario: its name.
    """

    def __init__(self, actions: spaces.Space, scenario: str):
        if not isinstance(actions, spaces.Box):
            raise ValueError(f"env: got the action space {actions}, allowed is a Box")
        self.low, self.high = actions.low, actions.high
        self.has_pedals, self.on_table = (
            scenario == own.name and actions == own.action_space for own in (DRIVE, MANIPULATION)
        )
        self.space = spaces.Box(-1.0, 1.0, (len(self.low) - self.has_pedals - 2 * self.on_table,), np.float32)

    def actions(self, controls: np.ndarray) -> np.ndarray:
        """The scenario's actions ``float32 (..., action_dim)`` for controls ``(..., n)``.

        Raises:
            ValueError: if there are more or fewer of them.
        """
        controls = np.clip(controls, -1.0, 1.0)
        if controls.shape[-1:] != self.space.shape:
            raise ValueError(f"controls: got shape {controls.shape}, allowed is (..., {self.space.shape[0]})")
        if self.has_pedals:
            steer, pedal = controls[..., 0], controls[..., 1]
            return np.stack([steer, pedal.clip(0.0), (-pedal).clip(0.0)], -1).astype(np.float32)
        if self.on_table:
            controls = np.concatenate([controls, np.zeros_like(controls)], -1)
        return (self.low + (controls + 1.0) / 2.0 * (self.high - self.low)).astype(np.float32)

    def controls(self, actions: np.ndarray) -> np.ndarray:
        """The controls ``float32 (..., n)`` for a scenario's actions ``(..., action_dim)``."""
        if self.has_pedals:
            steer, gas, brake = np.moveaxis(actions, -1, 0)
            return np.stack([steer, gas - brake], -1).astype(np.float32)
        controls = 2.0 * (actions - self.low) / (self.high - self.low) - 1.0
        return (controls[..., :2] if self.on_table else controls).astype(np.float32)


class StackedFrames(gym.ObservationWrapper):
    """Observe a block as one image of ``3K`` channels, which come first, as SB3's ``CnnPolicy`` wants them.

    Args:
        env: environment that observes blocks of frames, ``uint8 (K, H, W, 3)``.

    Raises:
        ValueError: if it observes something else.
    """

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self.observation_space = stacked_space(env.observation_space)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return stack_frames(observation)


class SymmetricControls(gym.ActionWrapper):
    """Act by :class:`Controls`."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        scenario = env.get_wrapper_attr("modality").name if env.has_wrapper_attr("modality") else ""
        self.controls = Controls(env.action_space, scenario)
        self.action_space = self.controls.space

    def action(self, action: np.ndarray) -> np.ndarray:
        """The wrapped environment's action."""
        return self.controls.actions(action)


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


def algorithm_of(path: str | Path) -> str:
    """Which learner saved the .zip at ``path``: "ppo" or "sac".

    Raises:
        ValueError: if it is no such file, or of another learner.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            data = json.loads(archive.read("data"))
        module = data["policy_class"]["__module__"]
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"agent: cannot read {str(path)!r} as a policy of Stable-Baselines3 ({error})") from error
    # Learners on their own experience share one module of policies; of these only PPO clips.
    if module == "stable_baselines3.common.policies" and "clip_range" in data:
        return "ppo"
    if module == "stable_baselines3.sac.policies":
        return "sac"
    raise ValueError(f"agent: {str(path)!r} has a policy of {module}, allowed are those of PPO and SAC")


def load_model(path: str | Path) -> BaseAlgorithm:
    """The PPO or SAC that was saved at ``path``, to act with on the CPU.

    Raises:
        ValueError: if the file is no such model.
    """
    from stable_baselines3 import PPO, SAC

    algorithm = algorithm_of(path)
    try:
        if algorithm == "sac":
            return SAC.load(path, device="cpu", buffer_size=1)
        return PPO.load(path, device="cpu")
    except Exception as error:  # a damaged file fails in many ways
        raise ValueError(f"agent: cannot read {str(path)!r} as a policy of {algorithm.upper()} ({error})") from error


class SB3Agent:
    """A policy that PPO or SAC has learned in an environment wrapped by :func:`wrap_for_sb3`; it does not explore.

    Args:
        path: the .zip that SB3 saved, or the .safetensors of :func:`astra_gym.agents.learned.export_agent`.
        env: environment to act in, not wrapped for SB3.

    Raises:
        ValueError: if the file is not such a policy, or was learned with other observations or actions.
    """

    def __init__(self, path: str | Path, env: gym.Env):
        controls = SymmetricControls(StackedFrames(env))
        expected = (controls.observation_space, controls.action_space)
        self.model: BaseAlgorithm | BasePolicy
        if Path(path).suffix == ".safetensors":
            from astra_gym.agents.learned import load_policy

            self.model = load_policy(Path(path), *expected)
        else:
            self.model = load_model(path)
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
