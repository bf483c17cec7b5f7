"""The price of jerking the controls."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from astra_gym.agents.rollout import make_block_env
from astra_gym.agents.sb3 import wrap_for_sb3
from astra_gym.agents.train import TrainAgentArgs, make_vec_env
from astra_gym.agents.vec_env import ActionRatePenalty, AstraVecEnv

STEPS = ([[0, 0], [0, 0]], [[1, 0], [0, 3]], [[-1, 0], [0, 1]], [[-1, 0], [0, 1]])
"""Two worlds' controls; 3 counts as 1."""
COSTS = ([0, 0], [1, 1], [4, 0], [0, 0])


def worlds() -> AstraVecEnv:
    return AstraVecEnv(gym.make_vec("astra_gym:AstraDrive-v0", num_envs=2, autoreset_mode="SameStep"))


def test_a_reward_loses_the_square_of_the_change():
    plain, priced = worlds(), ActionRatePenalty(worlds(), 0.5)
    for envs in (plain, priced):
        envs.seed(0)
        envs.reset()
    for controls, costs in zip(STEPS, COSTS, strict=True):
        earned, left = (envs.step(np.array(controls, np.float32))[1] for envs in (plain, priced))
        np.testing.assert_allclose(earned - left, 0.5 * np.array(costs), atol=1e-5)


def test_an_episode_begins_without_a_change():
    def make():
        return wrap_for_sb3(make_block_env("AstraSim/Drive-v0", blocks=2))

    plain, priced = DummyVecEnv([make]), ActionRatePenalty(DummyVecEnv([make]), 1.0)
    lost = []
    for envs in (plain, priced):
        envs.seed(0)
        envs.reset()
    for controls in ([[0.0, 0.0]], [[0.5, 0.0]], [[-0.5, 0.0]], [[0.5, 0.0]]):  # episodes of two blocks
        lost.append(float((plain.step(np.array(controls))[1] - priced.step(np.array(controls))[1])[0]))
    assert lost == pytest.approx([0, 0.25, 0, 1])


def test_logs_show_what_was_earned():
    args = TrainAgentArgs("AstraDrive-v0", action_rate_penalty=100.0, num_envs=2, n_steps=128, blocks=3)
    envs = make_vec_env(args, args.settings())
    envs.reset()
    for sign in (1, -1, 1):
        _, rewards, _, infos = envs.step(np.full((2, 2), sign, np.float32))
    assert (rewards < -10).all()
    assert all(info["episode"]["r"] > -10 for info in infos)


def test_a_wrong_penalty_is_told():
    with pytest.raises(ValueError, match="action_rate_penalty: got -1, allowed are numbers from 0"):
        ActionRatePenalty(worlds(), -1)
