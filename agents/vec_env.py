"""Many worlds in the form of Stable-Baselines3's vector environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from astra_gym.agents.sb3 import Controls, stack_frames, stacked_space
from astra_gym.envs.vector import AstraVectorEnv


class AstraVecEnv(VecEnv):
    """Worlds of one scenario as SB3 learns from them: stacked frames, symmetric controls, reset in the step of the end.

    The worlds share their attributes and methods: ``set_attr`` and ``env_method`` act on all of them at once.

    Args:
        env: worlds that observe blocks, made with ``autoreset_mode="SameStep"``. With ``copy=False`` it saves a copy.

    Raises:
        ValueError: if the worlds are of several scenarios, observe something else, or are reset otherwise.
    """

    def __init__(self, env: AstraVectorEnv):
        if len(set(env.scenarios)) > 1:
            raise ValueError(f"env: got the scenarios {sorted(set(env.scenarios))}, allowed is one")
        if env.autoreset_mode != AutoresetMode.SAME_STEP:
            raise ValueError(f"env: got autoreset_mode {env.autoreset_mode.value!r}, allowed is 'SameStep'")
        self.env, self.spec = env, env.spec
        self._controls = Controls(env.single_action_space, env.scenarios[0])
        super().__init__(env.num_envs, stacked_space(env.single_observation_space), self._controls.space)
        self.metadata = env.metadata
        self._actions = np.zeros(env.action_space.shape or (), np.float32)

    def reset(self) -> np.ndarray:
        """Begin all episodes anew, with the seeds and options that were set for it."""
        if any(self._options):  # each world has options of its own
            for i, options in enumerate(self._options):
                alone = np.arange(self.num_envs) == i
                blocks, infos = self.env.reset(seed=self._seeds, options={**options, "reset_mask": alone})
                self.reset_infos[i] = self._info(infos, i)
        else:
            blocks, infos = self.env.reset(seed=self._seeds)
            self.reset_infos = [self._info(infos, i) for i in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return stack_frames(blocks)

    def step_async(self, actions: np.ndarray) -> None:
        """Take the controls for the next step."""
        self._actions = self._controls.actions(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Step all worlds; those whose episode ends are reset."""
        blocks, rewards, terminations, truncations, infos = self.env.step(self._actions)
        dones = terminations | truncations
        each = []
        for i, done in enumerate(dones):
            info = self._info(infos["final_info"] if done else infos, i)
            info["TimeLimit.truncated"] = bool(truncations[i] and not terminations[i])
            if done:
                info["terminal_observation"] = stack_frames(infos["final_obs"][i])
                self.reset_infos[i] = self._info(infos, i)
            each.append(info)
        return stack_frames(blocks), rewards.astype(np.float32), dones, each

    def close(self) -> None:
        """Close the worlds."""
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Each world's newest frame."""
        return list(self.env.render() or [None] * self.num_envs)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The worlds' common attribute, once for each index."""
        return [getattr(self.env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set the worlds' common attribute."""
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *method_args, indices: VecEnvIndices = None, **method_kwargs) -> list[Any]:
        """Call a method of all worlds once; its result, once for each index."""
        result = getattr(self.env, method_name)(*method_args, **method_kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """Never: wrappers of single environments cannot wrap these worlds."""
        return [False for _ in self._get_indices(indices)]

    @staticmethod
    def _info(infos: dict[str, Any], world: int) -> dict[str, Any]:
        """One world's info out of that of all."""
        return {key: value[world] for key, value in infos.items() if not key.startswith(("_", "final_"))}


class VecScaledReward(VecEnvWrapper):
    """Multiply rewards by ``scale``, so that returns are about one and value networks learn at once."""

    def __init__(self, venv: VecEnv, scale: float):
        super().__init__(venv)
        self.scale = scale

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        return observations, rewards * np.float32(self.scale), dones, infos
