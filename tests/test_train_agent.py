"""Learning: PPO runs in a world, goes on after an interruption, and leaves a policy that can be judged and recorded."""

import json

import numpy as np
import pytest
import tyro
from stable_baselines3 import PPO

from astra_gym.agents.policies import make_agent
from astra_gym.agents.rollout import make_block_env
from astra_gym.agents.train import EVALUATION_SEEDS, TrainAgentArgs, train_agent

SIMULATOR = "AstraSim/Drive-v0"
WORLD = "AstraDrive-v0"


def tiny(env_id: str, output, **changes) -> TrainAgentArgs:
    settings = {"num_envs": 2, "n_steps": 16, "batch_size": 16, "n_epochs": 1, "blocks": 10, "timesteps": 64}
    settings |= {"evaluation_episodes": 0, "checkpoint_every": 32}
    return TrainAgentArgs(env_id, output, **{**settings, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short training in the simulator, judged."""
    output = tmp_path_factory.mktemp("agent")
    return train_agent(tiny(SIMULATOR, output, evaluation_episodes=1))


def test_training_leaves_policy_log_and_judgement(trained):
    assert trained.name == "policy.zip"
    assert list(trained.parent.glob("ppo_1/events.out.tfevents.*"))
    results = json.loads((trained.parent / "evaluation.json").read_text())
    assert set(results) == {SIMULATOR}
    assert {name: len(returns) for name, returns in results[SIMULATOR].items()} == {"policy": 1, "random": 1}
    assert not list(trained.parent.glob(".unfinished*"))
    assert PPO.load(trained).num_timesteps == 64


def test_policy_acts(trained):
    env = make_block_env(SIMULATOR, blocks=5)
    agent = make_agent(str(trained), env)
    block, _ = env.reset(seed=0)
    assert env.action_space.contains(agent.act(block))
    env.close()


def test_training_goes_on(trained):
    before = PPO.load(trained).policy.state_dict()
    train_agent(tiny(SIMULATOR, trained.parent, timesteps=96, resume=True))
    after = PPO.load(trained)
    assert after.num_timesteps == 96
    assert any(not np.array_equal(before[name], value) for name, value in after.policy.state_dict().items())
    assert [path.name for path in trained.parent.glob("ppo_*")] == ["ppo_1"]
    train_agent(tiny(SIMULATOR, trained.parent, timesteps=96, resume=True))  # nothing is left to do
    assert PPO.load(trained).num_timesteps == 96


def test_training_in_the_dream_judged_in_both_worlds(tmp_path):
    settings = {"num_envs": 1, "n_steps": 8, "batch_size": 8, "timesteps": 8, "blocks": 3}
    train_agent(tiny(WORLD, tmp_path, **settings, evaluation_episodes=1, evaluate_in_simulator=True))
    results = json.loads((tmp_path / "evaluation.json").read_text())
    assert list(results) == [WORLD, SIMULATOR]


def test_a_policy_is_not_overwritten(trained):
    with pytest.raises(FileExistsError, match="--resume"):
        train_agent(tiny(SIMULATOR, trained.parent))


def test_nothing_to_resume(tmp_path):
    with pytest.raises(FileNotFoundError, match="resume"):
        train_agent(tiny(SIMULATOR, tmp_path, resume=True))


def test_command_line():
    args = tyro.cli(TrainAgentArgs, args=[SIMULATOR, "--timesteps", "10", "--resume", "--entropy", "0"])
    assert (args.env, args.timesteps, args.resume, args.entropy) == (SIMULATOR, 10, True, 0.0)


def test_settings_are_checked(tmp_path):
    with pytest.raises(ValueError, match="batch_size: got 7"):
        tiny(SIMULATOR, tmp_path, batch_size=7)
    with pytest.raises(ValueError, match="evaluation_episodes: got 99"):
        tiny(SIMULATOR, tmp_path, evaluation_episodes=99)
    assert len(set(EVALUATION_SEEDS)) == 10
