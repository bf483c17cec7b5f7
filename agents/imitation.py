"""A head start for PPO: do as another agent does, before learning by reward.

The first third of the blocks are acted by the teacher, who now and then is pushed off its way by random actions; in the
others the pupil acts, and the teacher says what it would have done. So the pupil also sees where its own mistakes lead
(DAgger, Ross et al. 2011, arXiv 1011.0686). All of it happens in the environment that PPO then learns in, as a dream.
Recorded episodes can be learned from besides: the teacher watches them and says what it would do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from tqdm import tqdm

from astra_gym.agents.policies import Agent, RandomAgent, SkilledAgent, correct
from astra_gym.agents.sb3 import Controls, stack_frames, unstack_frames
from astra_gym.data.episodes import Episode

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
    recorded: Iterable[Episode] = (),
) -> None:
    """Let ``model`` learn to do what a teacher would do, and count the lessons' blocks as its timesteps.

    Args:
        model: whose policy learns, by the likelihood of the teacher's actions; its value network does not.
        envs: to act in, in the form that SB3 learns from. A block takes 49,152 bytes of memory with frames of 64x64.
        teachers: one for each environment. They are shown all blocks of an episode, and told what was done, whoever
            acts.
        actions: the scenario's actions, which the teachers give.
        scenario: its name.
        lessons: what it learns from, and how.
        recorded: episodes to learn from besides, in each round.
    """
    controls = Controls(actions, scenario)
    pushes = gym.spaces.Box(lessons.push * actions.low, lessons.push * actions.high)
    pushed = [SkilledAgent(each, RandomAgent(pushes), SKILL) for each in teachers]
    steps = -(-lessons.blocks // envs.num_envs)
    observations, fresh = np.asarray(envs.reset()), np.ones(envs.num_envs, bool)
    seen: list[np.ndarray] = []
    told: list[np.ndarray] = []
    for episode in tqdm(recorded, desc="watch", unit="episode", disable=not recorded):
        seen.extend(stack_frames(episode.blocks))
        told.extend(controls.controls(action) for action in watch(teachers[0], episode))
    with tqdm(total=steps * envs.num_envs, desc="imitate", unit="block") as bar:
        for turn, part in enumerate(np.array_split(np.arange(steps), ROUNDS)):
            for _ in part:
                for i in np.flatnonzero(fresh).tolist():
                    pushed[i].reset(model.num_timesteps + i)
                images = unstack_frames(observations)
                acted = np.stack([each.act(image) for each, image in zip(pushed, images, strict=True)])
                seen.extend(observations)
                told.extend(controls.controls(np.stack([each.meant for each in pushed])))
                chosen = controls.controls(acted) if turn == 0 else model.predict(observations)[0]
                for teacher, action in zip(teachers, controls.actions(chosen), strict=True):
                    correct(teacher, action)
                following, _, fresh, _ = envs.step(chosen)
                observations = np.asarray(following)
                model.num_timesteps += envs.num_envs
                bar.update(envs.num_envs)
            if len(part):
                loss = _learn(model, seen, np.stack(told), lessons)
                bar.set_postfix({"loss": f"{loss:.3f}"})


def watch(teacher: Agent, episode: Episode) -> Iterator[np.ndarray]:
    """What ``teacher`` would do in each block of an episode in which another one acts."""
    teacher.reset()
    for t, block in enumerate(episode.blocks):
        if t > 0:
            correct(teacher, episode.actions[t - 1])
        yield teacher.act(block)


def augmented(images: Tensor) -> Tensor:
    """Images ``uint8 (B, 3K, H, W)``, each moved by up to :data:`SHIFT` pixels, and in other light and tint, as floats.

    A moved image goes on at its edges as it ends there. All frames of a block are changed alike.
    """
    batch, channels, height, width = images.shape
    down, right = torch.randint(-SHIFT, SHIFT + 1, (2, batch, 1), device=images.device)
    rows = (torch.arange(height, device=images.device) + down).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + right).clamp(0, width - 1)
    each = torch.arange(batch, device=images.device)[:, None, None]
    moved = images[each, :, rows[:, :, None], columns[:, None]].float()  # (B, H, W, 3K)
    contrast = 1 + 0.15 * torch.randn(batch, 1, 1, 1, device=images.device)
    tint = (1 + 0.08 * torch.randn(batch, 1, 1, 3, device=images.device)).repeat(1, 1, 1, channels // 3)
    light = 20 * torch.randn(batch, 1, 1, 1, device=images.device)
    gain = contrast * tint
    return moved.mul_(gain).add_(127.5 * (1 - gain) + light).clamp_(0, 255).movedim(-1, 1)


def _learn(model: PPO, observations: Sequence[np.ndarray], controls: np.ndarray, lessons: Lessons) -> float:
    """Make the teacher's controls likely; minus the logarithm of their likelihood, the mean over the last pass."""
    policy = model.policy
    policy.set_training_mode(True)
    optimizer = torch.optim.Adam(policy.parameters(), float(model.lr_schedule(1.0)), eps=1e-5)
    updates = lessons.passes * -(-len(controls) // model.batch_size)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1.0 / updates, updates)
    targets = torch.from_numpy(controls.clip(-1.0, 1.0)).to(model.device)
    losses: list[float] = []
    with tqdm(total=updates, desc="learn", unit="update", leave=False) as bar:
        for _ in range(lessons.passes):
            losses = []
            for batch in torch.randperm(len(targets)).split(model.batch_size):
                images = torch.from_numpy(np.stack([observations[i] for i in batch])).to(model.device)
                images = augmented(images) if lessons.augment else images
                images = images.to(memory_format=torch.channels_last)  # in which convolutions learn faster
                loss: Tensor = -policy.evaluate_actions(images, targets[batch.to(model.device)])[1].mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(policy.parameters(), model.max_grad_norm)
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
                bar.update()
    policy.set_training_mode(False)
    return float(np.mean(losses))
