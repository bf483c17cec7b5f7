"""Learning: PPO and SAC run in a world, go on after an interruption, and leave policies to be judged and recorded."""

import dataclasses
import json
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
import tyro
from stable_baselines3 import PPO, SAC

from astra_gym.actions import DRIVE, MANIPULATION
from astra_gym.agents.imitation import Lessons, augmented, imitate
from astra_gym.agents.policies import make_agent
from astra_gym.agents.rollout import make_block_env
from astra_gym.agents.sb3 import Controls, algorithm_of, stack_frames, unstack_frames
from astra_gym.agents.train import (
    EVALUATION_SEEDS,
    TrainAgentArgs,
    evaluate_policy,
    make_model,
    make_vec_env,
    train_agent,
)
from astra_gym.data.episodes import Episode

SIMULATOR = "AstraSim/Drive-v0"
WORLD = "AstraDrive-v0"


def tiny(env_id: str, output, **changes) -> TrainAgentArgs:
    settings = {"num_envs": 2, "n_steps": 16, "batch_size": 16, "n_epochs": 1, "blocks": 10, "timesteps": 64}
    settings |= {"evaluation_episodes": 0, "checkpoint_every": 32}
    return TrainAgentArgs(env_id, output, **{**settings, **changes})


def tiny_sac(env_id: str, output, **changes) -> TrainAgentArgs:
    settings = {"algorithm": "sac", "num_envs": 2, "batch_size": 8, "blocks": 5, "timesteps": 40}
    settings |= {"learning_starts": 16, "gradient_steps": 1, "buffer_size": 60, "train_freq": 2}
    return TrainAgentArgs(env_id, output, evaluation_episodes=0, **{**settings, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short training in the simulator, judged."""
    output = tmp_path_factory.mktemp("agent")
    return train_agent(tiny(SIMULATOR, output, evaluation_episodes=1, keep_checkpoints=True))


def test_training_leaves_policy_log_and_judgement(trained):
    assert trained.name == "policy.zip"
    assert list(trained.parent.glob("ppo_1/events.out.tfevents.*"))
    results = json.loads((trained.parent / "evaluation.json").read_text())
    assert set(results) == {SIMULATOR}
    assert {name: len(returns) for name, returns in results[SIMULATOR].items()} == {"policy": 1, "random": 1}
    assert not list(trained.parent.glob(".unfinished*"))
    assert PPO.load(trained).num_timesteps == 64
    checkpoints = {f"policy_{blocks}.zip": blocks for blocks in (0, 32, 64)}
    assert {path.name for path in trained.parent.glob("policy_*")} == set(checkpoints)
    assert all(PPO.load(trained.parent / name).num_timesteps == blocks for name, blocks in checkpoints.items())


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


def test_one_learns_at_the_temperature_that_is_asked_for(tmp_path):
    def first_block(temperature: float | None) -> np.ndarray:
        args = tiny(WORLD, tmp_path, temperature=temperature)
        envs = make_vec_env(args, args.settings())
        envs.seed(0)
        envs.reset()
        observation = envs.step(np.zeros((2, 2), np.float32))[0]
        envs.close()
        return observation

    np.testing.assert_array_equal(first_block(None), first_block(2.0))  # as in configs/ppo.yaml
    assert not np.array_equal(first_block(None), first_block(1.0))
    assert TrainAgentArgs("AstraDrone-v0").settings()["temperature"] is None, "the world's own"
    args = tiny(SIMULATOR, tmp_path, temperature=2.0)
    with pytest.raises(ValueError, match="temperature: got '2.0', but AstraSim/Drive-v0 is a simulator"):
        make_vec_env(args, args.settings())


def test_training_in_the_dream_judged_in_both_worlds(tmp_path):
    settings = {"num_envs": 1, "n_steps": 8, "batch_size": 8, "timesteps": 8, "blocks": 3}
    train_agent(tiny(WORLD, tmp_path, **settings, evaluation_episodes=1, evaluate_in_simulator=True))
    results = json.loads((tmp_path / "evaluation.json").read_text())
    assert list(results) == [WORLD, SIMULATOR]


def test_what_was_judged_before_another_environment_failed_is_kept(trained):
    args = tiny(SIMULATOR, trained.parent, evaluation_episodes=1)
    with pytest.raises(gym.error.NameNotFound):
        evaluate_policy(args, 3, [SIMULATOR, "AstraSim/Boat-v0"])
    assert list(json.loads((trained.parent / "evaluation.json").read_text())) == [SIMULATOR]


def test_a_simulator_that_is_not_installed_is_told_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "Box2D", None)
    with pytest.raises(ImportError, match="Box2D|pip install"):
        train_agent(tiny(WORLD, tmp_path, evaluation_episodes=1, evaluate_in_simulator=True))
    assert not list(tmp_path.iterdir())


def test_one_learns_in_a_scenario_of_a_world_of_several(joint_world, tmp_path):
    settings = {"n_steps": 4, "batch_size": 8, "timesteps": 8, "blocks": 3, "world": str(joint_world)}
    train_agent(tiny("AstraWorld-v0", tmp_path, **settings, scenario="camera", evaluation_episodes=1))
    assert list(json.loads((tmp_path / "evaluation.json").read_text())) == ["AstraWorld-v0"]
    tuned = tiny("AstraWorld-v0", tmp_path, scenario="drive").settings()
    assert tuned["temperature"] == tiny(WORLD, tmp_path).settings()["temperature"] == 2.0


def test_sac_learns_and_goes_on_with_what_it_remembers(tmp_path):
    path = train_agent(tiny_sac(SIMULATOR, tmp_path))
    assert algorithm_of(path) == "sac"
    assert {file.name for file in tmp_path.iterdir()} == {"policy.zip", "replay.npz", "sac_1"}
    before = SAC.load(path).policy.state_dict()
    with np.load(tmp_path / "replay.npz") as memory:
        assert memory["observations"].shape == (20, 2, 12, 64, 64) and memory["observations"].dtype == np.uint8
        assert memory["cut"].sum() == 8 and not memory["dones"][~memory["cut"]].any()
        first = memory["observations"][0]
    train_agent(tiny_sac(SIMULATOR, tmp_path, timesteps=64, resume=True))
    after = SAC.load(path)
    assert after.num_timesteps == 64
    assert any(not np.array_equal(before[name], value) for name, value in after.policy.state_dict().items())
    with np.load(tmp_path / "replay.npz") as memory:
        assert memory["full"] and memory["pos"] == 2 and len(memory["rewards"]) == 30  # 60 blocks of 2 environments
        assert not np.array_equal(memory["observations"][0], first)  # the oldest have made room
    with pytest.raises(ValueError, match="^buffer_size: "):
        train_agent(tiny_sac(SIMULATOR, tmp_path, timesteps=80, resume=True, buffer_size=40))
    with pytest.raises(ValueError, match="^algorithm: got 'ppo', allowed is 'sac'"):
        train_agent(tiny(SIMULATOR, tmp_path, resume=True))
    (tmp_path / "replay.npz").unlink()
    with pytest.raises(FileNotFoundError, match="^resume: there is no .*replay.npz"):
        train_agent(tiny_sac(SIMULATOR, tmp_path, timesteps=80, resume=True))

    env = make_block_env(SIMULATOR, blocks=5)
    agent = make_agent(str(path), env)
    block, _ = env.reset(seed=0)
    assert env.action_space.contains(agent.act(block))
    assert np.array_equal(agent.act(block), agent.act(block))
    env.close()


def test_sac_learns_in_the_dream(tmp_path):
    path = train_agent(tiny_sac(WORLD, tmp_path, num_envs=2, timesteps=20, learning_starts=8))
    assert SAC.load(path).num_timesteps == 20


def test_a_penalty_for_disagreement_is_for_dreams(tmp_path):
    settings = {"n_steps": 4, "batch_size": 8, "timesteps": 8, "blocks": 3, "disagreement_penalty": 1.0}
    train_agent(tiny(WORLD, tmp_path / "dream", **settings))
    assert PPO.load(tmp_path / "dream" / "policy.zip").num_timesteps == 8
    with pytest.raises(ValueError, match="^disagreement_penalty: .* is a simulator"):
        train_agent(tiny(SIMULATOR, tmp_path / "truth", **settings))


def test_a_policy_is_not_overwritten(trained):
    with pytest.raises(FileExistsError, match="--resume"):
        train_agent(tiny(SIMULATOR, trained.parent))


def test_nothing_to_resume(tmp_path):
    with pytest.raises(FileNotFoundError, match="resume"):
        train_agent(tiny(SIMULATOR, tmp_path, resume=True))


def test_command_line():
    args = tyro.cli(TrainAgentArgs, args=[SIMULATOR, "--timesteps", "10", "--resume", "--ent-coef", "0"])
    assert (args.env, args.timesteps, args.resume, args.ent_coef) == (SIMULATOR, 10, True, 0.0)
    args = tyro.cli(TrainAgentArgs, args=[WORLD, "--algorithm", "sac", "--ent-coef", "auto_0.2", "--tau", "0.5"])
    settings = args.settings()
    assert (settings["ent_coef"], settings["tau"], settings["batch_size"]) == ("auto_0.2", 0.5, 128)


def test_settings_are_checked(tmp_path):
    for name in ("batch_size", "num_envs", "n_steps", "blocks", "timesteps"):
        with pytest.raises(ValueError, match=f"^{name}: got 0, allowed are whole numbers from 1"):
            tiny(SIMULATOR, tmp_path, **{name: 0}).settings()
    for env_id in (WORLD, SIMULATOR):
        with pytest.raises(ValueError, match=f"^scenario: got 'drone', but {env_id} has one"):
            train_agent(tiny(env_id, tmp_path, scenario="drone"))
    with pytest.raises(ValueError, match="batch_size: got 7, allowed are divisors of 32"):
        train_agent(tiny(SIMULATOR, tmp_path, batch_size=7))
    with pytest.raises(ValueError, match="disagreement_draws: got 1"):
        tiny(WORLD, tmp_path, disagreement_draws=1)
    with pytest.raises(ValueError, match="disagreement_penalty: got -1"):
        tiny(WORLD, tmp_path, disagreement_penalty=-1)
    with pytest.raises(ValueError, match="imitate: got 'scripted' with sac, allowed is None"):
        tiny_sac(WORLD, tmp_path, imitate="scripted")
    for name in ("imitate_blocks", "imitate_passes"):
        with pytest.raises(ValueError, match=f"{name}: got 0"):
            tiny(WORLD, tmp_path, **{name: 0})
    with pytest.raises(ValueError, match="imitate_push: got 1.5"):
        tiny(WORLD, tmp_path, imitate_push=1.5)
    with pytest.raises(ValueError, match="imitate_recorded: got True without imitate and starts, allowed is False"):
        tiny(WORLD, tmp_path, imitate="scripted", imitate_recorded=True)
    with pytest.raises(ValueError, match="^imitate: got 'nobody'"):
        train_agent(tiny(SIMULATOR, tmp_path, imitate="nobody"))
    with pytest.raises(ValueError, match="evaluation_episodes: got 99"):
        tiny(SIMULATOR, tmp_path, evaluation_episodes=99)
    assert len(set(EVALUATION_SEEDS)) == 10


@pytest.mark.parametrize("how", [{}, {"imitate_push": 0.5, "imitate_augment": True, "features": "fine"}])
def test_a_head_start_by_imitation(tmp_path, how):
    env = make_block_env(SIMULATOR, blocks=20)
    args = tiny(SIMULATOR, tmp_path, imitate="scripted", imitate_blocks=240, blocks=40, timesteps=300, **how)
    path = train_agent(dataclasses.replace(args, keep_checkpoints=True, learning_rate=2e-3))
    assert {file.stem for file in tmp_path.glob("policy_*")} >= {"policy_0", "policy_240"}
    assert PPO.load(path).num_timesteps >= 300
    teacher = make_agent("scripted", env)
    errors = {}
    for blocks in (0, 240):
        pupil = make_agent(str(tmp_path / f"policy_{blocks}.zip"), env)
        block, _ = env.reset(seed=5)
        teacher.reset(5)
        differences = []
        for _ in range(20):
            action = teacher.act(block)
            differences.append(np.abs(pupil.act(block) - action).mean())
            block = env.step(action)[0]
        errors[blocks] = np.mean(differences)
    assert errors[240] < errors[0]
    env.close()


class Witness:
    """A teacher that keeps what it is shown and always turns a little to the left."""

    def __init__(self):
        self.shown = []

    def reset(self, seed=None):
        self.shown.append([])

    def act(self, observation):
        self.shown[-1].append(observation)
        return np.array([-0.2, 0.3, 0.0], np.float32)


def test_recorded_episodes_are_learned_from_besides(tmp_path, monkeypatch):
    args = tiny(WORLD, tmp_path, blocks=2)
    envs = make_vec_env(args, args.settings())
    model = make_model(args, args.settings(), envs)
    learned: list[int] = []
    evaluate = model.policy.evaluate_actions
    monkeypatch.setattr(model.policy, "evaluate_actions", lambda *of: (learned.append(len(of[1])), evaluate(*of))[1])
    recorded = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 64, 64, 3), dtype=np.uint8)
    actions, nothing = np.zeros((4, 3), np.float32), np.zeros(4, np.float32)
    episodes = [Episode(seed, blocks, actions, nothing, nothing > 0) for seed, blocks in enumerate(recorded)]
    teachers = [Witness(), Witness()]
    imitate(model, envs, teachers, DRIVE.action_space, "drive", Lessons(12, 1), episodes)
    np.testing.assert_array_equal(teachers[0].shown[:2], recorded)
    for teacher, watched in zip(teachers, (2, 0), strict=True):  # and three dreams of two blocks each
        assert [len(blocks) for blocks in teacher.shown[watched:]] == [2, 2, 2]
    assert sum(learned) == sum(2 * 5 + 2 * 2 * turn for turn in (1, 2, 3))
    assert model.num_timesteps == 12
    envs.close()


def test_frames_and_controls_there_and_back():
    blocks = np.random.default_rng(0).integers(0, 256, (2, 4, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(unstack_frames(stack_frames(blocks)), blocks)
    pedals = Controls(gym.spaces.Box(np.array([-1, 0, 0], np.float32), np.ones(3, np.float32)), "drive")
    own = Controls(gym.spaces.Box(np.array([-1, 0], np.float32), np.array([2, 5], np.float32)), "drone")
    table = Controls(MANIPULATION.action_space, "manipulation")
    for controls in (pedals, own, table):
        wanted = [[0.5, -0.25], [-1, 1]]
        np.testing.assert_allclose(controls.controls(controls.actions(np.array(wanted))), wanted, atol=1e-6)
    np.testing.assert_allclose(table.actions(np.array([0.5, -0.25])), [0.5, -0.25, 0, 0])  # nothing up, no fingers
    with pytest.raises(ValueError, match=r"controls: got shape \(2, 3\), allowed is \(..., 2\)"):
        pedals.actions(np.zeros((2, 3)))


def test_augmented_blocks_are_moved_and_relit_alike():
    ramp = torch.arange(64.0).repeat(2, 12, 64, 1) + 90  # brighter to the right
    frames = augmented(ramp.to(torch.uint8)).reshape(2, 4, 3, 64, 64)
    assert frames.shape == (2, 4, 3, 64, 64) and frames.min() >= 0 and frames.max() <= 255
    for frame in range(1, 4):
        torch.testing.assert_close(frames[:, frame], frames[:, 0])
    assert (frames[0] - frames[1]).abs().max() > 1
    assert (frames[..., 40] > frames[..., 20]).all()  # the same picture still
