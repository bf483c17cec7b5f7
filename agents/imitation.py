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

from astra_gym.agents.policies import Agent, RandomAgent, SkilledAgent
from astra_gym.agents.sb3 import Controls, unstack_frames

ROUNDS = 3
"""Of acting and learning."""
SKILL = 0.75
"""Share of the teacher's stretches in which it is not pushed, see :class:`SkilledAgent`."""


def imitate(
    model: PPO,
    envs: VecEnv,
    teachers: Sequence[Agent],
    actions: gym.spaces.Box,
    scenario: str,
    blocks: int,
    passes: int,
) -> None:
    """Let ``model`` learn from ``blocks`` blocks to do what a teacher would do, and count them as its timesteps.

    Args:
        model: whose policy learns, by the likelihood of the teacher's actions; its value network does not.
        envs: to act in, in the form that SB3 learns from. A block takes 49,152 bytes of memory with frames of 64x64.
        teachers: one for each environment. They are shown all blocks of an episode, whoever acts.
        actions: the scenario's actions, which the teachers give.
        scenario: its name.
        blocks: over all environments; rounded up to whole steps of all.
        passes: over all blocks so far, in each of :data:`ROUNDS`.
    """
    controls = Controls(actions, scenario)
    pushed = [SkilledAgent(each, RandomAgent(actions), SKILL) for each in teachers]
    steps = -(-blocks // envs.num_envs)
    observations, fresh = np.asarray(envs.reset()), np.ones(envs.num_envs, bool)
    seen = np.empty((steps, *observations.shape), observations.dtype)
    told = np.empty((steps, envs.num_envs, *(controls.space.shape or ())), np.float32)
    with tqdm(total=steps * envs.num_envs, desc="imitate", unit="block") as bar:
        for turn, part in enumerate(np.array_split(np.arange(steps), ROUNDS)):
            for step in part:
                for i in np.flatnonzero(fresh).tolist():
                    pushed[i].reset(model.num_timesteps + i)
                images = unstack_frames(observations)
                acted = np.stack([each.act(image) for each, image in zip(pushed, images, strict=True)])
                seen[step] = observations
                told[step] = controls.controls(np.stack([each.meant for each in pushed]))
                mine = controls.controls(acted) if turn == 0 else model.predict(observations)[0]
                following, _, fresh, _ = envs.step(mine)
                observations = np.asarray(following)
                model.num_timesteps += envs.num_envs
                bar.update(envs.num_envs)
            if len(part):
                done = part[-1] + 1
                shown = seen[:done].reshape(-1, *seen.shape[2:])
                loss = _learn(model, shown, told[:done].reshape(-1, told.shape[2]), passes)
                bar.set_postfix({"loss": f"{loss:.3f}"})


def _learn(model: PPO, observations: np.ndarray, controls: np.ndarray, passes: int) -> float:
    """Make the teacher's controls likely; minus the logarithm of their likelihood, the mean over the last pass."""
    policy = model.policy
    policy.set_training_mode(True)
    optimizer = torch.optim.Adam(policy.parameters(), float(model.lr_schedule(1.0)), eps=1e-5)
    targets = torch.from_numpy(controls.clip(-1.0, 1.0)).to(model.device)
    losses: list[float] = []
    for _ in tqdm(range(passes), desc="learn", leave=False):
        losses = []
        for batch in torch.randperm(len(targets)).split(model.batch_size):
            images = torch.from_numpy(observations[batch.numpy()]).to(model.device)
            loss: Tensor = -policy.evaluate_actions(images, targets[batch.to(model.device)])[1].mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), model.max_grad_norm)
            optimizer.step()
            losses.append(loss.item())
    policy.set_training_mode(False)
    return float(np.mean(losses))
