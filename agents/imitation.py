"""A head start for PPO: do as another agent does, before learning by reward.

The first third of the blocks are acted by the teacher, who now and then is pushed off its way by random actions; in the
others the pupil acts, and the teacher says what it would have done. So the pupil also sees where its own mistakes lead
(DAgger, Ross et al. 2011, arXiv 1011.0686). All of it happens in the environment that PPO then learns in, as a dream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
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
SHIFT = 4
"""Pixels by which augmented blocks are moved at most."""


@dataclass
class Lessons:
    """What a pupil learns from, and how."""

    blocks: int
    """Over all environments; rounded up to whole steps of all."""
    passes: int
    """Over all blocks so far, in each of :data:`ROUNDS`."""
    push: float = 1.0
    """Size of the random actions that push the teacher off its way, as a share of what is allowed."""
    augment: bool = False
    """Whether to learn from moved and relit blocks, see :func:`augmented`."""


def imitate(
    model: PPO,
    envs: VecEnv,
    teachers: Sequence[Agent],
    actions: gym.spaces.Box,
    scenario: str,
    lessons: Lessons,
) -> None:
    """Let ``model`` learn to do what a teacher would do, and count the lessons' blocks as its timesteps.

    Args:
        model: whose policy learns, by the likelihood of the teacher's actions; its value network does not.
        envs: to act in, in the form that SB3 learns from. A block takes 49,152 bytes of memory with frames of 64x64.
        teachers: one for each environment. They are shown all blocks of an episode, whoever acts.
        actions: the scenario's actions, which the teachers give.
        scenario: its name.
        lessons: what it learns from, and how.
    """
    controls = Controls(actions, scenario)
    pushes = gym.spaces.Box(lessons.push * actions.low, lessons.push * actions.high)
    pushed = [SkilledAgent(each, RandomAgent(pushes), SKILL) for each in teachers]
    steps = -(-lessons.blocks // envs.num_envs)
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
                loss = _learn(model, shown, told[:done].reshape(-1, told.shape[2]), lessons)
                bar.set_postfix({"loss": f"{loss:.3f}"})


def augmented(images: Tensor) -> Tensor:
    """Images ``(B, 3K, H, W)`` in 0..255, each moved by up to :data:`SHIFT` pixels, and in other light and tint.

    A moved image goes on at its edges as it ends there. All frames of a block are changed alike.
    """
    batch, channels, height, width = images.shape
    padded = F.pad(images.float(), (SHIFT,) * 4, mode="replicate")
    moved = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    for i, (row, column) in enumerate(torch.randint(2 * SHIFT + 1, (batch, 2)).tolist()):
        moved[i] = padded[i, :, row : row + height, column : column + width]
    contrast = 1 + 0.15 * torch.randn(batch, 1, 1, 1, device=images.device)
    tint = (1 + 0.08 * torch.randn(batch, 3, 1, 1, device=images.device)).repeat(1, channels // 3, 1, 1)
    light = 20 * torch.randn(batch, 1, 1, 1, device=images.device)
    return (127.5 + (moved - 127.5) * contrast * tint + light).clamp(0, 255)


def _learn(model: PPO, observations: np.ndarray, controls: np.ndarray, lessons: Lessons) -> float:
    """Make the teacher's controls likely; minus the logarithm of their likelihood, the mean over the last pass."""
    policy = model.policy
    policy.set_training_mode(True)
    optimizer = torch.optim.Adam(policy.parameters(), float(model.lr_schedule(1.0)), eps=1e-5)
    targets = torch.from_numpy(controls.clip(-1.0, 1.0)).to(model.device)
    losses: list[float] = []
    for _ in tqdm(range(lessons.passes), desc="learn", leave=False):
        losses = []
        for batch in torch.randperm(len(targets)).split(model.batch_size):
            images = torch.from_numpy(observations[batch.numpy()]).to(model.device)
            if lessons.augment:
                images = augmented(images)
            loss: Tensor = -policy.evaluate_actions(images, targets[batch.to(model.device)])[1].mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), model.max_grad_norm)
            optimizer.step()
            losses.append(loss.item())
    policy.set_training_mode(False)
    return float(np.mean(losses))
