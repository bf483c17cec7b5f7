"""Episodes of one's own as what a world's episodes begin from."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from astra_gym.actions import DRIVE
from astra_gym.agents.train import TrainAgentArgs, make_vec_env, train_agent
from astra_gym.data.episode_starts import EpisodeStarts
from astra_gym.data.episodes import LatentEpisodes, read_episodes
from astra_gym.envs import AstraVectorEnv

LENGTH = 10
"""Blocks that the bundled world remembers."""


def test_every_moment_but_an_end_is_a_start_with_what_came_before_it():
    steps = torch.arange(7.0)
    actions = torch.stack([steps / 10, 0 * steps, 0 * steps], 1)
    actions[[0, 4]] = torch.nan
    data = LatentEpisodes(
        latents=steps[:, None, None, None].half().expand(7, 1, 1, 1),
        actions=actions,
        rewards=torch.zeros(7),
        terminations=torch.tensor([0, 0, 0, 1, 0, 0, 0]).bool(),
        offsets=torch.tensor([0, 4, 7]),
        seeds=torch.tensor([70, 80]),
    )
    bank = EpisodeStarts(data, DRIVE, length=2)
    starts = [bank[place] for place in range(len(bank))]
    assert [start.latents.flatten().tolist() for start in starts] == [[0], [0, 1], [1, 2], [4], [4, 5], [5, 6]]
    assert [start.sim_seed for start in starts] == [70, 70, 70, 80, 80, 80]
    assert [start.index for start in starts] == list(range(6))
    assert [len(start.sim_actions) for start in starts] == [0, 1, 2, 0, 1, 2]
    assert starts[4].rows[0].tolist() == [0, 0, 0, 0]  # nothing led to an episode's first block
    np.testing.assert_allclose(DRIVE.actions(starts[5].rows.numpy()), starts[5].sim_actions, atol=1e-6)


def test_an_environment_begins_in_them(episodes):
    env = gym.make("AstraDrive-v0", starts=episodes / "train")
    blocks = np.concatenate([episode.blocks for episode in read_episodes(episodes / "train")])
    places = set()
    for seed in range(8):
        observation, info = env.reset(seed=seed)
        again, _ = env.reset(seed=seed)
        np.testing.assert_array_equal(observation, again)
        # No episode here ends before its time, so places are those of the blocks.
        assert np.abs(observation.astype(int) - blocks[info["start"]]).mean() < 6
        places.add(info["start"])
    assert len(places) > 5
    env.reset(options={"start": 1})
    assert len(env.unwrapped.start.latents) == 2
    env.reset(options={"start": 24})
    assert len(env.unwrapped.start.latents) == LENGTH
    with pytest.raises(ValueError, match=f"start: got {len(blocks)}, allowed are the integers 0 to {len(blocks) - 1}"):
        env.reset(options={"start": len(blocks)})


def test_many_worlds_begin_where_single_ones_do(episodes):
    envs = AstraVectorEnv(["drive", "drone"], starts={"drive": episodes / "train"})
    single = gym.make("AstraDrive-v0", starts=episodes / "train")
    observations, infos = envs.reset(seed=5)
    observation, info = single.reset(seed=5)
    assert infos["start"][0] == info["start"]
    np.testing.assert_array_equal(observations[0], observation)
    assert envs.starts[1] is not None and envs.starts[1].sim_seed >= 1_000_000  # the bank's


def test_what_they_must_not_be_is_told(episodes, tmp_path):
    with pytest.raises(FileNotFoundError, match="starts: no Minari dataset in"):
        gym.make("AstraDrive-v0", starts=tmp_path)
    with pytest.raises(ValueError, match="starts: .* was collected from AstraSim/Drive-v0 .* those of drone"):
        gym.make("AstraDrone-v0", starts=episodes / "train")
    with pytest.raises(ValueError, match="starts: got .* allowed is a folder for each by name"):
        AstraVectorEnv(["drive", "drone"], starts=episodes / "train")
    with pytest.raises(ValueError, match=r"starts: got a folder for 'camera', allowed are \['drive'\]"):
        AstraVectorEnv("drive", starts={"camera": episodes / "train"})
    args = TrainAgentArgs("AstraSim/Drive-v0", starts=episodes / "train")
    with pytest.raises(ValueError, match="starts: got .* AstraSim/Drive-v0 is a simulator, allowed is None"):
        make_vec_env(args, args.settings())


def test_an_agent_learns_from_them(episodes):
    args = TrainAgentArgs("AstraDrive-v0", starts=episodes / "train", num_envs=4, n_steps=64)
    envs = make_vec_env(args, args.settings())
    assert envs.reset().shape == (4, 12, 64, 64)
    envs.close()


def test_an_agent_learns_what_another_would_do_in_them(episodes, tmp_path, capsys):
    starts = episodes / "train"
    args = TrainAgentArgs("AstraDrive-v0", tmp_path, starts=starts, imitate="scripted", imitate_recorded=True)
    small = {
        "imitate_blocks": 4,
        "imitate_passes": 1,
        "num_envs": 2,
        "n_steps": 16,
        "batch_size": 16,
        "blocks": 2,
        "timesteps": 4,
    }
    path = train_agent(dataclasses.replace(args, evaluation_episodes=0, **small))
    assert f"watch: {len(list(read_episodes(starts)))}episode" in capsys.readouterr().err
    assert PPO.load(path).num_timesteps == 4
