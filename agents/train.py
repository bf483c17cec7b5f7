"""Learn to act in a world with PPO of Stable-Baselines3: ``python scripts/train_agent.py AstraDrive-v0``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor
from tqdm import tqdm

from astra_gym.agents.policies import make_agent
from astra_gym.agents.rollout import is_simulator, make_block_env, run_episode
from astra_gym.agents.sb3 import wrap_for_sb3
from astra_gym.agents.vec_env import AstraVecEnv, VecScaledReward
from astra_gym.envs.vector import AstraVectorEnv

EVALUATION_SEEDS = range(10_000, 10_010)
"""Episodes that every policy is judged on; training draws its seeds elsewhere."""


@dataclass
class TrainAgentArgs:
    """Train a PPO policy on the frames of a world."""

    env: tyro.conf.Positional[str] = "AstraDrive-v0"
    """Gymnasium id of an Astra environment or of one of its simulators (AstraSim/...)."""
    output: Path = Path("runs/agent")
    """Folder for the policy (policy.zip), the TensorBoard log and the evaluation (evaluation.json)."""
    resume: bool = False
    """Go on from the policy in the folder."""
    timesteps: int = 100_000
    """Blocks to learn from, those before a resume included."""
    num_envs: int = 4
    """Episodes at a time: a world steps them together, a simulator in turn; more give more varied batches."""
    blocks: int = 250
    """Longest episode, in blocks."""
    seed: int = 0
    """Of the policy's first weights, its exploration, and the episodes."""
    n_steps: int = 256
    """Blocks that each environment contributes to an update."""
    batch_size: int = 128
    """Blocks in a gradient step."""
    n_epochs: int = 4
    """Passes over an update's blocks."""
    learning_rate: float = 3e-4
    """Of Adam."""
    gamma: float = 0.98
    """Discount a block; this looks ahead about 4 seconds."""
    gae_lambda: float = 0.95
    """Discount of advantage estimates."""
    entropy: float = 0.003
    """Weight of the bonus for exploring."""
    reward_scale: float = 0.1
    """What rewards are multiplied by before PPO sees them; logs and evaluations show them unscaled."""
    checkpoint_every: int = 5_000
    """Blocks between two saves of the policy."""
    evaluation_episodes: int = 5
    """Episodes to judge the trained policy on, at most 10; 0 skips it."""
    evaluate_in_simulator: bool = False
    """Judge the policy in the true simulator too."""
    world: str = "small"
    """Name of a bundled world or path of a world's folder."""
    device: str = "cpu"
    """Where the world and the policy run, cpu or cuda."""

    def __post_init__(self) -> None:
        allowed = len(EVALUATION_SEEDS)
        if not 0 <= self.evaluation_episodes <= allowed:
            raise ValueError(f"evaluation_episodes: got {self.evaluation_episodes}, allowed are 0 to {allowed}")
        if self.num_envs * self.n_steps % self.batch_size:
            raise ValueError(f"batch_size: got {self.batch_size}, allowed are divisors of num_envs * n_steps")


class SaveAndShow(BaseCallback):
    """Save the policy now and then, whole at any moment, and show how far the training is."""

    def __init__(self, path: Path, every: int, total: int):
        super().__init__()
        self.path, self.every, self.total = path, every, total

    def _on_training_start(self) -> None:
        done = self.model.num_timesteps
        self.next_save = done + self.every
        self.bar = tqdm(total=self.total, initial=done, desc="ppo", unit="block")

    def _on_step(self) -> bool:
        self.bar.update(self.num_timesteps - self.bar.n)
        return True

    def _on_rollout_end(self) -> None:
        returns = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        if returns:
            self.bar.set_postfix({"return": f"{np.mean(returns):.1f}"})

    def _on_rollout_start(self) -> None:
        # Between two updates: what is saved contains the last one in full.
        if self.num_timesteps >= self.next_save:
            self.next_save = self.num_timesteps + self.every
            save_policy(self.model, self.path)

    def _on_training_end(self) -> None:
        self.bar.close()
        save_policy(self.model, self.path)


def save_policy(model: BaseAlgorithm, path: Path) -> None:
    """Write the policy so that a kill at any moment leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".unfinished-{path.name}")
    model.save(unfinished)
    os.replace(unfinished, path)


def make_vec_env(args: TrainAgentArgs) -> VecEnv:
    """``num_envs`` environments in the form that PPO learns from; their logs have unscaled returns."""
    if not is_simulator(args.env):
        worlds = gym.make_vec(
            args.env,
            num_envs=args.num_envs,
            max_episode_steps=args.blocks,
            world=args.world,
            device=args.device,
            autoreset_mode="SameStep",
            copy=False,
        )
        assert isinstance(worlds, AstraVectorEnv)
        return VecScaledReward(VecMonitor(AstraVecEnv(worlds)), args.reward_scale)

    def make() -> gym.Env:
        env = make_block_env(args.env, args.blocks, args.world, args.device)
        return wrap_for_sb3(Monitor(env), args.reward_scale)

    makers: list[Callable[[], gym.Env]] = [make] * args.num_envs
    return DummyVecEnv(makers)


def train_agent(args: TrainAgentArgs) -> Path:
    """Train the policy that ``args`` asks for, judge it, and return its file.

    Raises:
        FileExistsError: if the folder holds a policy and ``resume`` is off.
        FileNotFoundError: if it holds none and ``resume`` is on.
        ValueError: if the environment cannot be learned from.
    """
    path = args.output / "policy.zip"
    if path.exists() and not args.resume:
        raise FileExistsError(f"output: {path} exists; go on with --resume or name another folder")
    if args.resume and not path.exists():
        raise FileNotFoundError(f"resume: there is no {path}")
    envs = make_vec_env(args)
    settings = {name: getattr(args, name) for name in ("n_steps", "batch_size", "n_epochs", "gamma", "gae_lambda")}
    settings |= {"learning_rate": args.learning_rate, "ent_coef": args.entropy, "tensorboard_log": str(args.output)}
    if args.resume:
        model = PPO.load(path, envs, args.device, **settings)
        # Other episodes than those before, and the same ones for the same state of training.
        model.set_random_seed(args.seed + model.num_timesteps)
    else:
        model = PPO(
            "CnnPolicy",
            envs,
            seed=args.seed,
            device=args.device,
            policy_kwargs={"log_std_init": -0.5},
            **settings,
        )
    todo = max(0, args.timesteps - model.num_timesteps)
    if todo:
        progress = SaveAndShow(path, args.checkpoint_every, args.timesteps)
        model.learn(todo, progress, tb_log_name="ppo", reset_num_timesteps=not args.resume)
    envs.close()
    if args.evaluation_episodes:
        evaluate_policy(args, path)
    return path


def evaluate_policy(args: TrainAgentArgs, path: Path) -> dict[str, dict[str, list[float]]]:
    """Returns of the policy at ``path`` and of random actions, by environment; also in evaluation.json beside it."""
    ids = [args.env]
    if args.evaluate_in_simulator and not is_simulator(args.env):
        env = make_block_env(args.env, args.blocks, args.world, args.device)
        ids.append(env.unwrapped.simulator_id)  # type: ignore[attr-defined]
        env.close()
    results: dict[str, dict[str, list[float]]] = {}
    for env_id in ids:
        env = make_block_env(env_id, args.blocks, args.world, args.device)
        results[env_id] = {}
        for name in (str(path), "random"):
            agent = make_agent(name, env)
            seeds = tqdm(EVALUATION_SEEDS[: args.evaluation_episodes], f"judge in {env_id}", leave=False)
            returns = [sum(step.reward for step in run_episode(env, agent, seed)) for seed in seeds]
            results[env_id][Path(name).stem] = returns
            tqdm.write(f"{env_id}, {Path(name).stem}: return {np.mean(returns):.1f} ± {np.std(returns):.1f}")
        env.close()
    unfinished = args.output / ".unfinished-evaluation.json"
    unfinished.write_text(json.dumps(results, indent=2) + "\n")
    unfinished.replace(args.output / "evaluation.json")
    return results
