"""Environments on the released weights: a tiny converted model behind each, actions there and back, rewards."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from astra_gym.camera import preset_rows, still_rows
from astra_gym.convert import ConvertArgs, convert
from astra_gym.envs.released import ReleasedEnv
from astra_gym.overlay import held_keys
from astra_gym.released_actions import CAMERA, DRONE, MANIPULATION, SECONDS_PER_LATENT, STREET
from astra_gym.rewards import CameraPath, GoalImage, seen_turns
from tests import tiny_astra

IDS = ["AstraCamera-v0", "AstraDrone-v0", "AstraManipulation-v0", "AstraDrive-v0"]
MODALITIES = {modality.name: modality for modality in (CAMERA, DRONE, MANIPULATION, STREET)}
SMALL = {"height": 32, "width": 48, "latents_per_step": 1, "num_inference_steps": 1}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("astra")
    wan = tiny_astra.write_original(root / "wan")
    convert(ConvertArgs(tiny_astra.ASTRA_CHECKPOINT, wan, root / "astra", num_heads=tiny_astra.NUM_HEADS))
    return root / "astra"


def picture(seed: int = 0, frames: int | None = None) -> np.ndarray:
    shape = (32, 48, 3) if frames is None else (frames, 32, 48, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def make(env_id: str, world, **arguments) -> gym.Env:
    defaults = {"reward_fn": GoalImage(picture(1)), "image": picture(), **SMALL}
    return gym.make(env_id, world=world, **(defaults | arguments))


@pytest.mark.parametrize("env_id", IDS)
def test_check_env_has_nothing_to_say(env_id, world):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Physical units are not normalised; RescaleAction does that.
        warnings.filterwarnings("ignore", message=".*symmetric and normalized")
        check_env(make(env_id, world).unwrapped, skip_render_check=True)


def test_routing(world):
    env = make("AstraDrive-v0", world, info_routing=True)
    assert env.reset()[1]["routing"].tolist() == [0, 0, 0]
    assert env.step(env.action_space.sample())[4]["routing"].tolist() == [0, 1, 0]


def test_actions_count_and_snapshots_restore(world):
    env = make("AstraCamera-v0", world, render_mode="rgb_array").unwrapped
    env.reset(seed=0)
    state = env.get_state()
    forward, left = CAMERA.from_keys({"w"}), CAMERA.from_keys({"left"})
    observation, reward, *_, info = env.step(forward)
    assert observation.shape == (4, 32, 48, 3) and 0 < reward < 1 and info == {"frame": 4}
    assert np.array_equal(env.render(), observation[-1])
    env.set_state(state)
    assert not np.array_equal(env.step(left)[0], observation)
    env.set_state(state)
    assert np.array_equal(env.step(forward)[0], observation)


def test_snapshots_restore_the_prompt(world):
    env = make("AstraCamera-v0", world, prompt="a garden").unwrapped
    env.reset(seed=0, options={"prompt": ""})
    state, context = env.get_state(), env._episode.context
    assert list(env._prompt_embeds) == [""]
    env.reset(seed=1)
    assert list(env._prompt_embeds) == ["a garden"]
    env.set_state(state)
    assert env._episode.context is context


@pytest.mark.parametrize("obs_type", ["frame", "latent"])
def test_observations(obs_type, world):
    env = make("AstraDrive-v0", world, obs_type=obs_type, latents_per_step=2, video=picture(frames=6), image=None)
    for observation in (env.reset(seed=0)[0], env.step(env.action_space.sample())[0]):
        assert observation in env.observation_space
    assert env.reset()[1] == {"frame": 0}
    env.reset(options={"video": picture(frames=9), "actions": np.zeros((2, 2)), "prompt": "a street"})


BAD_ARGUMENTS = {
    "reward_fn: got None": {"reward_fn": None},
    "height, width: got 33x48": {"height": 33},
    "latents_per_step: got 0": {"latents_per_step": 0},
    "render_mode: got 'tv'": {"render_mode": "tv"},
    "obs_type: got 'sound'": {"obs_type": "sound"},
    "dtype: got 'int4'": {"dtype": "int4"},
}


@pytest.mark.filterwarnings("ignore:.*render mode.*")
@pytest.mark.parametrize("message", BAD_ARGUMENTS)
def test_bad_arguments(message, world):
    with pytest.raises(ValueError, match=message):
        make("AstraCamera-v0", world, **BAD_ARGUMENTS[message])


@pytest.mark.parametrize("released", ReleasedEnv.__subclasses__())
def test_released_weights_are_needed(released):
    with pytest.raises(FileNotFoundError, match="'small' is no folder that 'astra-gym convert' wrote"):
        released()


def test_bad_options(world):
    env = make("AstraDrive-v0", world, image=None)
    for options, message in [
        ({}, "image, video: give"),
        ({"start": 1}, "unknown key 'start'"),
        (
            {"video": picture(frames=5), "actions": np.zeros((2, 2))},
            r"actions: got shape \(2, 2\), allowed is \(1, 2\)",
        ),
        ({"image": picture(), "video": picture(frames=5)}, "image, video, latents: got"),
    ]:
        with pytest.raises(ValueError, match=message):
            env.reset(options=options)
    with pytest.raises(gym.error.ResetNeeded):
        env.unwrapped.step(env.action_space.sample())


# Actions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODALITIES)
def test_actions_there_and_back(name):
    modality = MODALITIES[name]
    actions = np.random.default_rng(0).uniform(modality.low, modality.high, (9, modality.action_dim))
    last = np.zeros(modality.row_dim)
    last[:7] = (3, -2, 1, 0.8, 0, 0, 0.6) if name == "street" else 0
    rows = modality.rows_after(last, actions)
    assert rows.shape == (9, modality.row_dim) and rows.dtype == np.float32 and not rows[:, -1].any()
    assert np.allclose(modality.actions_after(last, rows), actions, atol=1e-4)
    assert np.array_equal(
        modality.rows_after(last, actions * 0 + 99), modality.rows_after(last, actions * 0 + modality.high)
    )
    for bad in (actions[:, 1:], actions * np.nan):
        with pytest.raises(ValueError, match="action: "):
            modality.rows_after(last, bad)


def test_camera_actions_are_the_presets():
    still = np.zeros(13)
    speed = 0.03 / SECONDS_PER_LATENT
    for preset, action in {
        1: (0, 0, speed, 0, 0, 0),
        2: (0, 0, 0, speed, 0, 0),
        5: (0, 0, speed, -speed, 0, 0),
    }.items():
        assert np.allclose(CAMERA.rows_after(still, np.array([action])), preset_rows(preset, 1), atol=1e-3)
    assert np.array_equal(CAMERA.rows_after(still, np.zeros((1, 6))), still_rows(1))


@pytest.mark.parametrize("modality", [CAMERA, DRONE], ids=["camera", "drone"])
@pytest.mark.parametrize("key", ["w", "a", "s", "d", "left", "right"])
def test_keys_are_those_of_the_overlay(modality, key):
    row = modality.rows_after(np.zeros(13), modality.from_keys({key})[None])[0]
    assert held_keys(row) == {key.upper() if len(key) == 1 else key}


def test_street_turns_in_a_circle():
    steps = round(2 * np.pi / 0.5 / SECONDS_PER_LATENT * 4)
    last = np.array([0, 0, 0, 1, 0, 0, 0, 0.0])
    rows = STREET.rows_after(last, np.tile([[5.0, 2 * np.pi / steps / SECONDS_PER_LATENT]], (steps, 1)))
    assert np.allclose(rows[-1, :3], 0, atol=0.05) and rows[:, 1].max() > 10  # to the left, and back again


# Rewards ---------------------------------------------------------------------------------------------------------


def test_goal_image():
    goal = picture()
    reward = GoalImage(goal)
    assert reward(np.stack([255 - goal, goal]), np.zeros(0), {}) == 1
    assert reward(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(0), {}) < 0.6
    with pytest.raises(ValueError, match="goal"):
        GoalImage(goal / 255)


def turning_frames(left: int, up: int, count: int = 5) -> np.ndarray:
    """A camera that turns: the picture moves right and down by so many pixels a frame."""
    torch.manual_seed(0)
    scene = torch.nn.functional.interpolate(torch.rand(1, 3, 30, 40), scale_factor=8, mode="bicubic")[0]
    scene = (scene.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
    return np.stack([scene[80 - i * up : 144 - i * up, 100 - i * left : 196 - i * left] for i in range(count)])


def test_camera_path():
    focal_length = 96 / 2 / np.tan(0.6)
    turn = np.array([3, 1]) / focal_length
    frames = turning_frames(3, 1)
    assert np.allclose(seen_turns(frames, 1.2), turn, atol=0.2 / focal_length)
    path, info = np.tile(turn, (20, 1)), {"frame": 5}
    assert CameraPath(path)(frames, np.zeros(0), info) > -0.01
    assert CameraPath(-path)(frames, np.zeros(0), info) < CameraPath(0 * path)(frames, np.zeros(0), info) < -0.02
    with pytest.raises(ValueError, match="turns"):
        CameraPath(np.zeros((3, 3)))
