"""A penalty for what the world is unsure of, so that a policy does not learn to live from the model's mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn


class DisagreementPenalty(VecEnvWrapper):
    """Lower each reward by ``penalty`` times how far apart several draws of noise would take the world's next latents.

    Where the model knows what comes, all draws lead to the same block; far from its data they do not. The draws share
    history and action with the step, so nothing has to be kept in line, and what is observed is not changed.

    Args:
        venv: worlds that report it as "spread" in ``info``: made with ``info_spread=draws``.
        penalty: reward a unit of spread; a latent's standard deviation over real frames is 1.

    Raises:
        ValueError: if the penalty is negative or not finite.
    """

    def __init__(self, venv: VecEnv, penalty: float):
        if not 0 <= penalty < np.inf:
            raise ValueError(f"disagreement_penalty: got {penalty}, allowed are numbers from 0")
        super().__init__(venv)
        self.penalty = penalty

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        spread = np.array([info["spread"] for info in infos], np.float32)
        return observations, rewards - np.float32(self.penalty) * spread, dones, infos
