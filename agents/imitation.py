"""A head start for PPO: do as another agent does, before learning by reward.

The first third of the blocks are acted by the teacher, who now and then is pushed off its way by random actions; in the
others the pupil acts, and the teacher says what it would have done. So the pupil also sees where its own mistakes lead
(DAgger, Ross et al. 2011, arXiv 1011.0686). The value network learns what the pupil earns there, so that PPO can go on
from both. All of it happens in the environment that PPO then learns in, as a dream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv
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
        model: whose policy learns, by the likelihood of the teacher's actions, and whose value network learns, from the
            returns of the blocks in which the pupil acts.
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
    rounds = np.array_split(np.arange(steps), ROUNDS)
    observations, fresh = np.asarray(envs.reset()), np.ones(envs.num_envs, bool)
    seen = np.empty((steps, *observations.shape), observations.dtype)
    told = np.empty((steps, envs.num_envs, *(controls.space.shape or ())), np.float32)
    earned, over = np.empty((steps, envs.num_envs), np.float32), np.empty((steps, envs.num_envs), bool)
    with tqdm(total=steps * envs.num_envs, desc="imitate", unit="block") as bar:
        for turn, part in enumerate(rounds):
            for step in part:
                for i in np.flatnonzero(fresh).tolist():
                    pushed[i].reset(model.num_timesteps + i)
                images = unstack_frames(observations)
                acted = np.stack([each.act(image) for each, image in zip(pushed, images, strict=True)])
                seen[step] = observations
                told[step] = controls.controls(np.stack([each.meant for each in pushed]))
                mine = controls.controls(acted) if turn == 0 else model.predict(observations)[0]
                following, rewards, fresh, infos = envs.step(mine)
                earned[step], over[step] = _with_what_is_cut_off(model, rewards, infos), fresh
                observations = np.asarray(following)
                model.num_timesteps += envs.num_envs
                bar.update(envs.num_envs)
            if len(part):
                done = part[-1] + 1
                worth = discounted_returns(earned[:done], over[:done], _values(model, observations), model.gamma)
                worth[: len(rounds[0])] = np.nan  # what the teacher earned
                lesson = (each.reshape(-1, *each.shape[2:]) for each in (seen[:done], told[:done], worth))
                loss = learn(model, *lesson, passes)
                bar.set_postfix({"loss": f"{loss:.3f}"})


def _values(model: PPO, observations: np.ndarray) -> np.ndarray:
    """What the model expects to earn from there on."""
    with torch.no_grad():
        return model.policy.predict_values(model.policy.obs_to_tensor(observations)[0]).squeeze(1).cpu().numpy()


def _with_what_is_cut_off(model: PPO, rewards: np.ndarray, infos: Sequence[dict[str, Any]]) -> np.ndarray:
    """Rewards of a step; where a time limit ends an episode, with what the model expects to earn after it."""
    rewards = np.array(rewards, np.float32)
    for i, info in enumerate(infos):
        if info.get("TimeLimit.truncated"):
            rewards[i] += model.gamma * _values(model, info["terminal_observation"][None])[0]
    return rewards


def discounted_returns(rewards: np.ndarray, over: np.ndarray, after: np.ndarray, gamma: float) -> np.ndarray:
    """Discounted sums of rewards ``float (steps, envs)`` up to each episode's end.

    Args:
        rewards: of each step.
        over: bool (steps, envs), whether the step ends the episode.
        after: float (envs,), what is to come after the last step.
        gamma: discount a step.
    """
    returns = np.empty_like(rewards)
    for step in reversed(range(len(rewards))):
        after = returns[step] = rewards[step] + gamma * np.where(over[step], 0, after)
    return returns


def learn(model: PPO, observations: np.ndarray, controls: np.ndarray, returns: np.ndarray, passes: int) -> float:
    """Make the teacher's controls likely, and let the value network's last layer learn the returns that are known: what
    comes before it is the policy's, too, which errors of returns would drown.

    Args:
        model: whose policy and value network learn.
        observations: ``(N, ...)`` as the policy sees them.
        controls: float32 (N, ...), the teacher's.
        returns: float32 (N,), NaN where they are not known.
        passes: over all of these.

    Returns:
        Minus the logarithm of the controls' likelihood, the mean over the last pass.
    """
    policy = model.policy
    policy.set_training_mode(True)
    optimizer = torch.optim.Adam(policy.parameters(), float(model.lr_schedule(1.0)), eps=1e-5)
    targets = torch.from_numpy(controls.clip(-1.0, 1.0)).to(model.device)
    worth = torch.from_numpy(returns).to(model.device)
    losses: list[float] = []
    for _ in tqdm(range(passes), desc="learn", leave=False):
        losses = []
        for batch in torch.randperm(len(targets)).split(model.batch_size):
            images = torch.from_numpy(observations[batch.numpy()]).to(model.device)
            wanted = worth[batch.to(model.device)]
            values, likelihood, _ = policy.evaluate_actions(images, targets[batch.to(model.device)])
            surprise, missed = -likelihood.mean(), (values.squeeze(1) - wanted)[~wanted.isnan()]
            optimizer.zero_grad(set_to_none=True)
            surprise.backward(retain_graph=True)
            torch.nn.utils.clip_grad_norm_(policy.parameters(), model.max_grad_norm)
            (missed.square().sum() / max(1, len(missed))).backward(inputs=list(policy.value_net.parameters()))
            optimizer.step()
            losses.append(surprise.item())
    policy.set_training_mode(False)
    return float(np.mean(losses))
