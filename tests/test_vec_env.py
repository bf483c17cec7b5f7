"""Many worlds in the form of Stable-Baselines3: its semantics, its wrappers."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecMonitor, VecVideoRecorder

from astra_gym.agents.sb3 import stack_frames
from astra_gym.agents.vec_env import AstraVecEnv, VecScaledReward
from astra_gym.envs import AstraVectorEnv


def make(autoreset_mode: str = "SameStep", **arguments) -> AstraVectorEnv:
    return AstraVectorEnv("drive", 2, autoreset_mode=autoreset_mode, **arguments)


def test_sb3_learns_from_stacked_frames(tmp_path):
    envs = make(max_episode_steps=2, render_mode="rgb_array", copy=False, info_routing=True)
    inner = AstraVecEnv(envs)
    recorder = VecVideoRecorder(VecMonitor(inner), str(tmp_path), lambda step: step == 0, video_length=2)
    venv = VecScaledReward(recorder, 0.5)
    assert venv.observation_space.shape == (12, 64, 64) and venv.action_space.shape == (2,)
    assert venv.get_attr("scenarios")[1] == ("drive", "drive") and not any(venv.env_is_wrapped(gym.Wrapper))
    venv.seed(7)
    observations = venv.reset()
    assert observations.shape == (2, 12, 64, 64)
    assert [info["start"] for info in inner.reset_infos] == [start.index for start in envs.starts]

    stepped, rewards, dones, infos = venv.step(np.array([[0.2, 0.5], [-0.2, -0.1]]))
    assert not dones.any() and rewards.dtype == np.float32
    expected = gym.make("AstraDrive-v0")
    expected.reset(seed=7)
    block, reward, *_ = expected.step(np.array([0.2, 0.5, 0.0], np.float32))
    assert np.abs(stepped[0].astype(int) - stack_frames(block)).max() <= 1
    assert rewards[0] == pytest.approx(reward / 2, abs=0.01)
    assert all("terminal_observation" not in info and not info["TimeLimit.truncated"] for info in infos)
    assert infos[0]["routing"].sum() == pytest.approx(1, abs=1e-4)

    began, _, dones, infos = venv.step(np.zeros((2, 2)))
    assert dones.all()
    for i, info in enumerate(infos):
        assert info["TimeLimit.truncated"] and info["episode"]["l"] == 2
        assert info["terminal_observation"].shape == (12, 64, 64)
        np.testing.assert_array_equal(began[i], stack_frames(envs.frames[i]))
        assert inner.reset_infos[i]["start"] == envs.starts[i].index
    venv.close()
    assert len(list(tmp_path.glob("*.mp4"))) == 1


def test_sb3_takes_options_and_tells_termination_from_truncation():
    envs = make()
    venv = AstraVecEnv(envs)
    venv.set_options([{"start": 4}, {"start": 2}])
    first = venv.reset()
    assert [info["start"] for info in venv.reset_infos] == [4, 2]
    np.testing.assert_array_equal(first[0], stack_frames(envs.frames[0]))
    envs._world.bundle.heads.termination.bias.data.fill_(1e3)  # the model judges every block to end its episode
    _, _, dones, infos = venv.step(np.zeros((2, 2)))
    assert dones.all() and not any(info["TimeLimit.truncated"] for info in infos)


def test_sb3_needs_one_scenario_and_resets_in_the_make(joint_world):
    with pytest.raises(ValueError, match="^env: got the scenarios"):
        AstraVecEnv(AstraVectorEnv(["drive", "drone"], world=joint_world, autoreset_mode="SameStep"))
    with pytest.raises(ValueError, match="^env: got autoreset_mode 'NextStep'"):
        AstraVecEnv(make("NextStep"))
