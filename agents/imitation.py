"""A head start for PPO: do as another agent does, before learning by reward.

The first third of the blocks are acted by the teacher, who now and then is pushed off its way by random actions; in the
others the pupil acts, and the teacher says what it would have done. So the pupil also sees where its own mistakes lead
(DAgger, Ross et al. 2011, arXiv 1011.0686). All of it happens in the environment that PPO then learns in, as a dream.
"""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from tqdm import tqdm

from astra_gym.agents.policies import Agent, RandomAgent
from astra_gym.agents.sb3 import Controls, unstack_frames

ROUNDS = 3
"""Of acting and learning."""
EPOCHS = 4
"""Passes over all blocks so far in each round."""
PUSHED = 0.25
"""Share of the teacher's stretches in which it is pushed."""


def imitate(
    model: PPO, envs: VecEnv, teachers: Sequence[Agent], actions: gym.spaces.Box, scenario: str, blocks: int
) -> float:
    """Let ``model`` learn from ``blocks`` blocks to do what a teacher would do, and count them as its timesteps.

    Args:
        model: whose policy learns, by the likelihood of the teacher's actions; its value network does not.
        envs: to act in, in the form that SB3 learns from. A block takes 49,152 bytes of memory with frames of 64x64.
        teachers: one for each environment. They are shown all blocks of an episode, whoever acts.
        actions: the scenario's actions, which the teacher gives.
        scenario: its name.
        blocks: over all environments; rounded up to whole steps of all.

    Returns:
        Mean squared difference between the pupil's and the teacher's controls, which lie in -1..1, over the last
        round's blocks before it learned from them.
    """
    controls = Controls(actions, scenario)
    steps = -(-blocks // envs.num_envs)
    turns = [len(part) for part in np.array_split(np.arange(steps), ROUNDS)]
    seen: list[np.ndarray] = []
    told: list[np.ndarray] = []
    difference = float("nan")
    observations, fresh = np.asarray(envs.reset()), np.ones(envs.num_envs, bool)
    pushes = [Push(actions, number) for number in range(envs.num_envs)]
    with tqdm(total=blocks, desc="imitate", unit="block") as bar:
        for turn, length in enumerate(turns):
            errors = []
            for _ in range(length):
                for world in np.flatnonzero(fresh).tolist():
                    teachers[world].reset(model.num_timesteps + world)
                images = unstack_frames(observations)
                wanted = np.stack([each.act(image) for each, image in zip(teachers, images, strict=True)])
                mean = model.predict(observations, deterministic=True)[0]
                seen.append(observations.copy())
                told.append(controls.controls(wanted))
                errors.append(float(np.square(mean - told[-1]).mean()))
                if turn == 0:
                    pushed = [push(action) for push, action in zip(pushes, wanted, strict=True)]
                    acted = controls.controls(np.stack(pushed))
                else:
                    acted = model.predict(observations)[0]
                following, _, fresh, _ = envs.step(acted)
                observations = np.asarray(following)
                model.num_timesteps += envs.num_envs
                bar.update(envs.num_envs)
            difference = float(np.mean(errors)) if errors else difference
            bar.set_postfix({"difference": f"{difference:.3f}"})
            _learn(model, np.concatenate(seen), np.concatenate(told))
    return difference


class Push:
    """Replaces an agent's action by a random one for a share of the time, in stretches of some blocks."""

    def __init__(self, actions: gym.spaces.Box, seed: int):
        self.random, self.rng = RandomAgent(actions, seed), np.random.default_rng(seed)
        self._under_way = False

    def __call__(self, action: np.ndarray) -> np.ndarray:
        if self.random.blocks_left == 0:
            self._under_way = bool(self.rng.random() < PUSHED)
        random = self.random.act(action)
        return random if self._under_way else action


def _learn(model: PPO, observations: np.ndarray, controls: np.ndarray) -> None:
    """Make the teacher's controls likely."""
    policy = model.policy
    policy.set_training_mode(True)
    rate = float(model.lr_schedule(1.0))
    optimizer = torch.optim.Adam(policy.parameters(), rate, eps=1e-5)
    targets = torch.from_numpy(controls.clip(-1.0, 1.0)).to(model.device)
    for _ in tqdm(range(EPOCHS), desc="learn", leave=False):
        for batch in torch.randperm(len(targets)).split(model.batch_size):
            images = torch.from_numpy(observations[batch.numpy()]).to(model.device)
            loss: Tensor = -policy.evaluate_actions(images, targets[batch.to(model.device)])[1].mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), model.max_grad_norm)
            optimizer.step()
    policy.set_training_mode(False)
