"""Collecting, reading and encoding episodes of real simulators."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
import torch

from astra_gym.actions import DRIVE
from astra_gym.data.collect import CollectArgs, collect, make_block_env
from astra_gym.data.episodes import latent_episodes, read_episodes
from astra_gym.models.autoencoder import BlockAutoencoder
from astra_gym.training.clips import ClipSampler, draw_jointly
from astra_gym.training.parallel import Draws


def test_the_dataset_is_minaris(episodes):
    dataset = minari.MinariDataset(episodes / "train")
    assert dataset.total_episodes == 3
    assert dataset.spec.env_spec.id == "AstraSim/Drive-v0"
    assert dataset[0].observations.shape == (25, 4, 64, 64, 3)
    assert dataset.recover_environment().action_space == DRIVE.action_space


def test_the_folder_may_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    collect(CollectArgs(output=Path("data/drive/train"), episodes=1, blocks=2, workers=1))
    assert len(next(read_episodes(Path("data/drive/train"))).actions) == 2


def test_episodes_replay_in_the_simulator_and_splits_differ(episodes):
    train, val = list(read_episodes(episodes / "train")), list(read_episodes(episodes / "val"))
    assert {e.seed for e in train}.isdisjoint({e.seed for e in val})
    env = gym.make("AstraSim/Drive-v0")
    episode = train[1]
    observation, _ = env.reset(seed=episode.seed)
    np.testing.assert_array_equal(observation, episode.blocks[0])
    for action, block, reward in zip(episode.actions, episode.blocks[1:], episode.rewards, strict=True):
        observation, got, *_ = env.step(action)
        np.testing.assert_array_equal(observation, block)
        assert got == pytest.approx(reward, abs=1e-4)


def test_any_rendering_environment_can_be_collected(tmp_path):
    collect(CollectArgs(env="CartPole-v1", policy="random", output=tmp_path / "cart", episodes=2, blocks=5, workers=1))
    episode = next(read_episodes(tmp_path / "cart"))
    assert episode.blocks.shape[1:] == (4, 64, 64, 3)
    assert episode.blocks.std() > 0


def test_blocks_hold_the_action_and_sum_the_reward():
    env = make_block_env("CartPole-v1")
    env.reset(seed=0)
    _, reward, terminated, truncated, _ = env.step(1)
    assert reward == 4.0 and not terminated and not truncated


def test_bad_arguments_are_named(tmp_path, episodes):
    with pytest.raises(ValueError, match="policy: 'nobody'"):
        collect(CollectArgs(policy="nobody", output=tmp_path / "x"))
    with pytest.raises(FileExistsError, match="output"):
        collect(CollectArgs(output=episodes / "train"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        collect(CollectArgs(output=tmp_path / "full"))
    with pytest.raises(ValueError, match=r"policy: its actions are of shape \(3,\), the environment takes \(4,\)"):
        collect(CollectArgs(env="AstraSim/Drone-v0", policy="hurried-follower", output=tmp_path / "d"))
    with pytest.raises(ValueError, match="policy: 'mixed-racer' cannot act in AstraSim/Drive-v0"):
        collect(CollectArgs(policy="mixed-racer", output=tmp_path / "d"))
    for name, value in (("episodes", 0), ("blocks", 0), ("workers", 0), ("first_seed", -1)):
        with pytest.raises(ValueError, match=f"^{name}: got {value}, allowed are whole numbers from"):
            CollectArgs(**{name: value})
    with pytest.raises(FileNotFoundError, match=r"--env AstraSim/Drone-v0 .*--first-seed 1000000"):
        next(read_episodes(tmp_path / "drone" / "val"))
    with pytest.raises(FileNotFoundError, match="data: no Minari dataset"):
        next(read_episodes(tmp_path))


def test_parts_of_an_unknown_collection_are_refused(tmp_path):
    (tmp_path / "d.parts").mkdir()
    (tmp_path / "d.parts" / "0.npz").write_bytes(b"")
    with pytest.raises(ValueError, match="episodes of an unknown environment"):
        collect(CollectArgs(output=tmp_path / "d", episodes=1))


def test_settings_of_a_collection_that_has_nothing_yet_may_change(tmp_path):
    parts = tmp_path / "d.parts"
    parts.mkdir()
    (parts / "settings.json").write_text(json.dumps({"env": "Mistaken-v0", "policy": "random", "blocks": 2}))
    collect(CollectArgs(env="CartPole-v1", output=tmp_path / "d", episodes=1, blocks=2, workers=1))
    assert not parts.exists() and len(list(read_episodes(tmp_path / "d"))) == 1


def test_a_killed_collection_goes_on(tmp_path):
    command = [sys.executable, "scripts/collect.py", "--output", str(tmp_path / "d"), "--episodes", "3"]
    command += ["--blocks", "12", "--workers", "1", "--policy", "random"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    parts = tmp_path / "d.parts"
    while not list(parts.glob("[0-9]*.npz")):
        assert process.poll() is None, "the collection ended before it could be killed"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "d").exists()
    assert json.loads((parts / "settings.json").read_text())["blocks"] == 12
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("[0-9]*.npz")}
    with pytest.raises(ValueError, match="was begun with"):
        collect(CollectArgs(output=tmp_path / "d", episodes=3, blocks=13, policy="random"))
    for path, modified in kept.items():
        assert path.stat().st_mtime_ns == modified
    collect(CollectArgs(output=tmp_path / "d", episodes=3, blocks=12, workers=1, policy="random"))
    assert len(list(read_episodes(tmp_path / "d"))) == 3
    assert not parts.exists()


def test_a_killed_worker_is_told_and_loses_only_its_job(tmp_path, monkeypatch):
    code = """
import os, signal

def deadly(env, seed):
    def act(observation):
        if seed == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return env.action_space.sample()
    return act
"""
    (tmp_path / "own_policies.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="workers: one died"):
        collect(CollectArgs(policy="own_policies:deadly", output=tmp_path / "d", episodes=8, blocks=8, workers=1))
    assert {path.stem for path in (tmp_path / "d.parts").glob("[0-9]*.npz")} == {"0", "1", "2", "3", "4"}
    assert not (tmp_path / "d").exists()


def test_latents_are_encoded_once(episodes, monkeypatch):
    autoencoder = BlockAutoencoder(latent_channels=4).eval()
    first = latent_episodes(episodes / "val", autoencoder)
    assert first.latents.shape == (50, 4, 8, 8)
    assert first.offsets.tolist() == [0, 25, 50]
    assert first.actions[25].isnan().all() and not first.actions[26:].isnan().any()

    def never(*_args):
        raise AssertionError("encoded again")

    monkeypatch.setattr(autoencoder, "encode", never)
    torch.testing.assert_close(latent_episodes(episodes / "val", autoencoder).latents, first.latents)


def test_other_episodes_at_the_same_place_are_encoded_anew(tmp_path):
    autoencoder = BlockAutoencoder(latent_channels=4).eval()
    for seed in (0, 5):
        collect(CollectArgs(output=tmp_path / "d", policy="random", episodes=1, blocks=5, workers=1, first_seed=seed))
        found = latent_episodes(tmp_path / "d", autoencoder)
        assert found.seeds.tolist() == [seed]
        with h5py.File(tmp_path / "d" / "main_data.hdf5", "r+") as file:  # of the same size, with the same seed
            file["episode_0/rewards"][:] += 1
        np.testing.assert_allclose(latent_episodes(tmp_path / "d", autoencoder).rewards[1:], found.rewards[1:] + 1)
        shutil.rmtree(tmp_path / "d")


def test_clips_stay_within_an_episode(episodes):
    data = latent_episodes(episodes / "val", BlockAutoencoder(latent_channels=4).eval())
    sampler = ClipSampler(data, DRIVE, frames=25)
    assert sampler.starts.tolist() == [0, 25]
    clip = sampler.at(torch.tensor([25]))
    assert clip["rows"][0, 0].tolist() == [0.0] * 4  # nothing led to the first block
    assert (clip["rows"][0, 1:, -1] == 1).all()
    with pytest.raises(ValueError, match="no episode has 26 blocks"):
        ClipSampler(data, DRIVE, frames=26)


def test_scenarios_are_drawn_by_their_weights(episodes):
    data = latent_episodes(episodes / "val", BlockAutoencoder(latent_channels=4).eval())
    samplers = {name: ClipSampler(data, DRIVE, frames=4) for name in ("one", "two", "three")}

    def shares(weights: dict[str, float]) -> list[float]:
        draws = Draws(torch.Generator().manual_seed(0))
        names = draw_jointly(samplers, 3000, draws, good_share=0.0, ending_share=0.0, weights=weights)["scenarios"]
        return [names.count(name) / 3000 for name in samplers]

    assert shares({}) == pytest.approx([1 / 3] * 3, abs=0.03)
    assert shares({"two": 3.0, "three": 0.5}) == pytest.approx([1 / 4.5, 3 / 4.5, 0.5 / 4.5], abs=0.03)
