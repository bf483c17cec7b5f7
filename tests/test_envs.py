"""Contracts of every Astra environment: Gymnasium's, determinism, starts, errors, snapshots."""

import copy
import hashlib
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from PIL import Image

import astra_gym
from tests.env_ids import IDS, OWN_WORLD

ROOT = Path(__file__).resolve().parent.parent
OBS_TYPES = ("block", "frame", "latent")


@pytest.fixture(autouse=True)
def headless(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.fixture(params=IDS, scope="module")
def shared_env(request):
    """One environment for the tests that only reset and step it."""
    env = gym.make(request.param, render_mode="rgb_array", info_routing=True)
    yield env
    env.close()


@pytest.fixture
def env(shared_env):
    """The shared environment, begun anew."""
    shared_env.reset(seed=0)
    return shared_env


def rollout(env: gym.Env, seed: int, steps: int = 4) -> list[np.ndarray]:
    """Observations of an episode with a fixed sequence of actions."""
    env.action_space.seed(seed)
    observations = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        observations.append(env.step(env.action_space.sample())[0])
    return observations


def digest(observations: list[np.ndarray]) -> str:
    return hashlib.sha256(np.stack(observations).tobytes()).hexdigest()


# Gymnasium's own checks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("obs_type", OBS_TYPES)
@pytest.mark.parametrize("env_id", IDS)
def test_check_env_has_nothing_to_say(env_id, obs_type):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if env_id in ("AstraDrone-v0", "AstraCamera-v0"):  # whose actions are in m/s and rad/s
            warnings.filterwarnings("ignore", message=".*symmetric and normalized")
        env = gym.make(env_id, obs_type=obs_type, info_routing=True)
        # The render modes do not depend on the observation; each costs one more environment.
        check_env(env.unwrapped, skip_render_check=obs_type != "block")


def test_registration_is_complete():
    limits = {env_id: gym.spec(env_id).max_episode_steps for env_id in (*IDS, OWN_WORLD)}
    assert limits == {
        "AstraDrive-v0": 250,
        "AstraManipulation-v0": 50,
        "AstraDrone-v0": 150,
        "AstraCamera-v0": 100,
        OWN_WORLD: 250,
    }


def test_importing_registers_without_torch():
    code = "import sys, astra_gym, astra_gym.envs; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# Steps ---------------------------------------------------------------------------------------------------------------


def test_types_of_a_step(env):
    observation, info = env.reset(seed=3)
    assert observation.shape == (4, 64, 64, 3) and observation.dtype == np.uint8
    assert info["start"] == env.unwrapped.start.index
    stepped, reward, terminated, truncated, step_info = env.step(env.action_space.sample())
    assert stepped.shape == observation.shape and (stepped != observation).any()
    assert type(reward) is float and type(terminated) is bool and type(truncated) is bool
    assert step_info.keys() == info.keys() == {"start", "routing"}
    assert step_info["routing"].shape == info["routing"].shape
    assert step_info["routing"].sum() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("env_id", IDS)
def test_observation_types_are_views_of_one_world(env_id):
    blocks, frames, latents = (rollout(gym.make(env_id, obs_type=kind), seed=1, steps=2) for kind in OBS_TYPES)
    for block, frame in zip(blocks, frames, strict=True):
        np.testing.assert_array_equal(block[-1], frame)
    for latent in latents:
        assert latent.dtype == np.float32 and latent.ndim == 3
        assert 0.2 < latent.std() < 5


def test_returned_arrays_belong_to_the_caller(env):
    expected = digest(rollout(env, seed=2))
    env.action_space.seed(2)
    observation, info = env.reset(seed=2)
    observations = [observation.copy()]
    for _ in range(4):
        for array in (observation, info["routing"], env.render(), env.unwrapped.frames):
            array[...] = 0
        observation, _, _, _, info = env.step(env.action_space.sample())
        observations.append(observation.copy())
    assert digest(observations) == expected


def test_actions_out_of_bounds_are_clipped(env):
    high, _, _, _, _ = env.step(env.action_space.high)
    env.reset(seed=0)
    beyond, _, _, _, _ = env.step(env.action_space.high * 10)
    np.testing.assert_array_equal(high, beyond)


@pytest.mark.parametrize("env_id", IDS)
def test_time_limit_truncates(env_id):
    env = gym.make(env_id, max_episode_steps=3)
    env.reset(seed=0)
    truncations = [env.step(env.action_space.sample())[3] for _ in range(3)]
    assert truncations == [False, False, True]


# Seeds and determinism -----------------------------------------------------------------------------------------------


def test_same_seed_same_bytes(env):
    assert digest(rollout(env, seed=5)) == digest(rollout(env, seed=5))
    assert digest(rollout(env, seed=5)) != digest(rollout(env, seed=6))


def test_unseeded_resets_go_on_from_the_seed(env):
    def starts_after(seed: int) -> list[int]:
        return [env.reset(seed=seed)[1]["start"]] + [env.reset()[1]["start"] for _ in range(12)]

    assert starts_after(7) == starts_after(7)
    assert len(set(starts_after(7))) > 1


def test_seed_fixes_the_noise_whatever_the_start(env):
    def run(seed: int) -> str:
        env.reset(seed=seed, options={"start": 0})
        return digest([env.step(np.zeros(env.action_space.shape))[0] for _ in range(3)])

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize("env_id", IDS)
def test_same_bytes_in_a_spawned_process(env_id):
    vector = gym.make_vec(
        f"astra_gym:{env_id}", num_envs=1, vectorization_mode="async", vector_kwargs={"context": "spawn"}
    )
    env = gym.make(env_id)
    try:
        there, _ = vector.reset(seed=11)
        here, _ = env.reset(seed=11)
        np.testing.assert_array_equal(there[0], here)
        for action in [env.action_space.low, env.action_space.high]:
            there, there_reward, *_ = vector.step(action[None])
            here, here_reward, *_ = env.step(action)
            np.testing.assert_array_equal(there[0], here)
            assert there_reward[0] == here_reward
    finally:
        vector.close()


# Starts --------------------------------------------------------------------------------------------------------------


def test_start_option_chooses_the_place_in_the_bank(env):
    first, info = env.reset(seed=0, options={"start": 0})
    assert info["start"] == 0
    again, _ = env.reset(seed=1, options={"start": np.int64(0)})
    np.testing.assert_array_equal(first, again)
    other, info = env.reset(seed=0, options={"start": 1})
    assert info["start"] == 1 and (other != first).any()


def test_image_option_takes_arrays_and_paths(env, tmp_path):
    frame = env.unwrapped.frames[-1]
    Image.fromarray(frame).save(tmp_path / "frame.png")
    from_array, info = env.reset(seed=0, options={"image": frame})
    assert info["start"] == -1
    from_path, _ = env.reset(seed=0, options={"image": tmp_path / "frame.png"})
    np.testing.assert_array_equal(from_array, from_path)
    assert np.abs(from_array[-1].astype(int) - frame).mean() < 12
    assert not env.unwrapped.start.rows.any()
    env.step(env.action_space.sample())


def test_video_option_keeps_whole_blocks_and_actions(env):
    blocks = [env.unwrapped.frames] + [env.step(env.action_space.high)[0] for _ in range(2)]
    video = np.concatenate(blocks)
    cut, _ = env.reset(seed=0, options={"video": video[2:]})
    assert len(env.unwrapped.start.latents) == 2
    assert not env.unwrapped.start.rows.any()
    whole, info = env.reset(seed=0, options={"video": video[4:], "actions": [env.action_space.high] * 2})
    assert info["start"] == -1
    np.testing.assert_array_equal(cut, whole)
    np.testing.assert_array_equal(
        env.unwrapped.start.rows, env.unwrapped.modality.rows(np.stack([env.action_space.high] * 2))
    )


# Errors --------------------------------------------------------------------------------------------------------------

VIDEO = np.zeros((8, 64, 64, 3), np.uint8)
IMAGE = VIDEO[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sound": "loud"}, "options: got unknown key 'sound'"),
        ({"prompt": "a ship at sea"}, "prompt: got 'a ship at sea'"),
        ({"prompt": 3}, "prompt: got 3"),
        ({"start": 0, "image": IMAGE}, "options: got .*'start', 'image'"),
        ({"start": -1}, "start: got -1"),
        ({"start": 10**6}, "start: got 1000000"),
        ({"start": True}, "start: got True"),
        ({"start": "first"}, "start: got 'first'"),
        ({"image": "missing.png"}, "image: there is no file"),
        ({"image": __file__}, "image: cannot read"),
        ({"image": IMAGE.astype(float)}, "image: got float64"),
        ({"video": __file__}, "video: cannot read"),
        ({"video": VIDEO[:3]}, "video: got 3 frames, at least 4"),
        ({"video": IMAGE}, "video: got uint8"),
        ({"video": VIDEO, "actions": np.zeros((3, 3))}, "actions: got shape"),
        ({"actions": np.zeros((2, 3))}, "actions: allowed only together"),
    ],
)
def test_wrong_options_are_refused_by_name(env, options, message):
    before = env.np_random.bit_generator.state, env.np_random_seed
    with pytest.raises(ValueError, match=f"^{message}"):
        env.reset(seed=7, options=options)
    assert (env.np_random.bit_generator.state, env.np_random_seed) == before
    env.step(env.action_space.sample())  # the episode before goes on


def test_actions_of_a_video_must_be_finite(env):
    with pytest.raises(ValueError, match=r"^actions: .*finite"):
        env.reset(options={"video": VIDEO, "actions": np.full((2, *env.action_space.shape), np.nan)})


@pytest.mark.parametrize(
    "action", [0, np.zeros(2), np.zeros((1, 3)), np.array([0, np.nan, 0]), np.array([np.inf, 0, 0]), None]
)
def test_wrong_actions_are_refused(env, action):
    with pytest.raises(ValueError, match="^action: "):
        env.step(action)


@pytest.mark.parametrize("env_id", IDS)
def test_step_and_render_need_a_reset(env_id):
    env = gym.make(env_id, render_mode="rgb_array").unwrapped
    for call in (lambda: env.step(env.action_space.sample()), env.render, env.get_state, lambda: env.start):
        with pytest.raises(ResetNeeded, match="reset"):
            call()


@pytest.mark.filterwarnings("ignore:.*render_mode")
@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("render_mode", "ansi"),
        ("obs_type", "pixels"),
        ("num_inference_steps", 0),
        ("guidance_scale", float("nan")),
        ("guidance_scale", "2"),
        ("temperature", 0.0),
        ("temperature", "2"),
        ("device", "abacus"),
        ("dtype", "int7"),
    ],
)
def test_wrong_arguments_are_refused_by_name(env_id, name, value):
    with pytest.raises(ValueError, match=f"^{name}: "):
        gym.make(env_id, **{name: value})


@pytest.mark.parametrize("env_id", IDS)
def test_missing_and_corrupt_weights_are_refused(env_id, tmp_path):
    folder = tmp_path / "world"
    shutil.copytree(Path(astra_gym.__file__).parent / "pretrained" / "small", folder)
    gym.make(env_id, world=folder).reset(seed=0)
    weights = next((folder / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="^world: .*corrupt"):
        gym.make(env_id, world=folder)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="^world: "):
        gym.make(env_id, world=folder)
    with pytest.raises(FileNotFoundError, match="^world: 'nowhere'"):
        gym.make(env_id, world="nowhere")


# Snapshots -----------------------------------------------------------------------------------------------------------


def test_snapshot_goes_back_to_the_same_bytes(env):
    def go_on() -> str:
        env.action_space.seed(0)
        observations = [env.step(env.action_space.sample())[0] for _ in range(3)]
        observations += [env.reset()[0], env.step(env.action_space.sample())[0]]
        return digest(observations)

    env.step(env.action_space.sample())
    state, picture, start = env.unwrapped.get_state(), env.render(), env.unwrapped.start.index
    future = go_on()
    for _ in range(2):
        env.unwrapped.set_state(state)
        np.testing.assert_array_equal(env.render(), picture)
        assert env.unwrapped.start.index == start
        assert go_on() == future


def test_snapshots_of_other_scenarios_and_copies_are_refused(env):
    others = [id for id in ("AstraDrive-v0", "AstraDrone-v0") if id != env.spec.id]
    with gym.make(f"astra_gym:{others[0]}") as other:
        other.reset(seed=0)
        with pytest.raises(ValueError, match=r"^state: of \['.*'\], this world is of"):
            env.unwrapped.set_state(other.unwrapped.get_state())
    with pytest.raises(TypeError, match="cannot be copied or pickled; use get_state"):
        copy.deepcopy(env.unwrapped)


def test_snapshot_moves_to_another_environment(env):
    env.step(env.action_space.sample())
    other = gym.make(env.spec.id, render_mode="rgb_array").unwrapped
    other.set_state(env.unwrapped.get_state())
    assert other.np_random_seed == 0
    np.testing.assert_array_equal(other.render(), env.render())
    action = env.action_space.sample()
    np.testing.assert_array_equal(other.step(action)[0], env.step(action)[0])
