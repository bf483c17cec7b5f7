"""Contracts of every ground-truth simulator: Gymnasium's, blocks, seeds, limits, errors."""

import hashlib
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import load_env_creator
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

import astra_gym  # noqa: F401  registers the ids
from astra_gym.actions import MODALITIES
from astra_gym.envs import FrameByFrame

# Found, not imported: gymnasium_robotics prints a notice.
missing = [name for name in ("Box2D", "mujoco", "gymnasium_robotics") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {missing}")

ROOT = Path(__file__).resolve().parent.parent
IDS = {name: f"AstraSim/{name.capitalize()}-v0" for name in MODALITIES}


def simulator(name: str, **arguments) -> gym.Env:
    """A scenario's simulator without the wrappers that ``gym.make`` adds."""
    return load_env_creator(gym.spec(IDS[name]).entry_point)(**arguments)


@pytest.fixture(params=MODALITIES, scope="module")
def env(request):
    """One simulator without a limit; every test begins it anew."""
    env = gym.make(IDS[request.param], max_episode_blocks=None, disable_env_checker=True)
    yield env
    env.close()


def digest(env: gym.Env, seed: int) -> str:
    """Of the first blocks of an episode with a fixed sequence of actions."""
    env.action_space.seed(5)
    blocks = [env.reset(seed=seed)[0]] + [env.step(0.3 * env.action_space.sample())[0] for _ in range(3)]
    return hashlib.sha256(np.stack(blocks).tobytes()).hexdigest()


@pytest.mark.parametrize("name", MODALITIES)
def test_check_env_has_nothing_to_say(name):
    env = simulator(name)  # before warnings become errors: Box2D does not survive one while it is imported
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Physical units are not normalised; the simulator is a wrapper that makes blocks of frames.
        warnings.filterwarnings("ignore", message=".*(symmetric and normalized|different from the unwrapped)")
        check_env(env, skip_render_check=True)


def test_a_step_makes_a_block(env):
    observation, _ = env.reset(seed=1)
    assert env.observation_space.contains(observation) and observation.shape == (4, 64, 64, 3)
    assert (observation == observation[:1]).all(), "the world stood still"
    middle = (env.action_space.low + env.action_space.high) / 2
    stepped, reward, terminated, truncated, info = env.step(0.5 * (middle + env.action_space.high))
    assert type(reward) is float and terminated is False and truncated is False and isinstance(info, dict)
    assert (stepped[0] != stepped[-1]).any()
    np.testing.assert_array_equal(env.render(), stepped[-1])


def test_a_picture_a_block_is_shown_in_true_time(env):
    fps = env.get_wrapper_attr("fps")
    assert fps == env.get_wrapper_attr("modality").fps
    with gym.make(env.spec.id, render_mode="rgb_array", disable_env_checker=True) as shown:
        assert shown.metadata["render_fps"] == max(1, round(fps / 4))
        every = FrameByFrame(shown)
        every.reset(seed=0)
        for _ in range(5):
            every.step(shown.action_space.sample())
        assert every.metadata["render_fps"] == fps and every.render().shape == (64, 64, 3)


def test_options_of_a_world_are_refused(env):
    with pytest.raises(ValueError, match=r"^options: got \['start'\], which only a learned world takes"):
        env.reset(options={"start": 3})


def test_actions_are_those_of_the_modality(env):
    modality = env.get_wrapper_attr("modality")
    assert env.action_space == modality.action_space


@pytest.mark.parametrize("name", MODALITIES)
def test_the_limit_truncates(name):
    with gym.make(IDS[name], max_episode_blocks=2, disable_env_checker=True) as env:
        env.reset(seed=0)
        still = np.zeros(env.action_space.shape, np.float32)
        assert [env.step(still)[2:4] for _ in range(2)] == [(False, False), (False, True)]


def test_the_seed_alone_decides(env):
    seeds = {seed: digest(env, seed) for seed in (3, 4, 5)}
    assert len(set(seeds.values())) == 3
    assert digest(env, 3) == seeds[3]
    code = (
        "import gymnasium as gym\nfrom tests.test_simulators import digest\n"
        f"print(digest(gym.make({env.spec.id!r}, max_episode_blocks=None, disable_env_checker=True), 4))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (seeds[4], "")


@pytest.mark.parametrize(
    ("name", "value"),
    [("render_mode", "human"), ("max_episode_blocks", 0), ("max_episode_blocks", 2.5), ("size", 0), ("size", None)],
)
@pytest.mark.parametrize("scenario", MODALITIES)
def test_wrong_arguments_are_refused_by_name(scenario, name, value):
    with pytest.raises(ValueError, match=f"^{name}: got {value!r}"):
        simulator(scenario, **{name: value})


def test_wrong_actions_are_refused(env):
    env.reset(seed=0)
    shape = env.action_space.shape
    for action in (0, None, np.zeros(shape[0] + 1), np.zeros((1, *shape)), np.full(shape, np.nan)):
        with pytest.raises(ValueError, match="^action: "):
            env.step(action)
    env.step(np.zeros(shape, np.float32))  # the episode goes on


@pytest.mark.parametrize("name", MODALITIES)
def test_step_needs_a_reset(name):
    env = simulator(name)
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(env.action_space.shape, np.float32))


def test_a_stubborn_driver_holds_an_action_for_longer_than_others():
    from astra_gym.simulators.car_racing import stubborn_driver

    env = simulator("drive")
    longest = []
    for seed in (0, 0, 1):
        env.reset(seed=seed)
        driver = stubborn_driver(env, seed)
        actions = []
        for _ in range(80):
            actions.append(driver())
            if env.step(actions[-1])[2]:
                break
        changes = np.flatnonzero([*(np.diff(actions, axis=0) != 0).any(1), True])
        longest.append(int(np.diff([-1, *changes]).max()))
    env.close()
    assert longest[0] == longest[1] and 16 < max(longest) <= 40


def drive(env, make_driver, seed: int, blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """What a driver does in an episode, and the newest frame after each block."""
    observation, _ = env.reset(seed=seed)
    driver, actions, frames = make_driver(env, seed), [], []
    for _ in range(blocks):
        actions.append(driver(observation))
        observation = env.step(actions[-1])[0]
        frames.append(observation[-1])
    return np.array(actions), np.array(frames)


def test_a_swerving_driver_steers_where_the_track_does_not_lead_and_finds_back():
    from astra_gym.evaluation.metrics import on_road
    from astra_gym.simulators.car_racing import Driver, swerving_driver

    env = simulator("drive")
    swerving, frames = drive(env, swerving_driver, 0, 100)
    again, _ = drive(env, swerving_driver, 0, 100)
    following, _ = drive(env, lambda env, seed: Driver(env, seed=seed), 0, 100)
    env.close()
    np.testing.assert_array_equal(swerving, again)
    assert (np.abs(swerving[:, 0]) == 1).mean() > 0.04 > (np.abs(following[:, 0]) == 1).mean()
    held = (np.diff(swerving[:, 0]) == 0) & (swerving[1:, 0] != 0)
    assert held.mean() > 0.04
    road = [on_road(frame) for frame in frames]
    left = [i for i in range(99) if road[i] and not road[i + 1]]
    assert left and any(road[left[0] + 1 :])


def test_a_careless_driver_holds_pedals_drawn_by_chance_on_the_road_and_stays_near_it():
    from astra_gym.evaluation.metrics import on_road
    from astra_gym.simulators.car_racing import careless_driver

    env = simulator("drive")
    actions, frames = drive(env, careless_driver, 0, 100)
    again, _ = drive(env, careless_driver, 0, 100)
    env.close()
    np.testing.assert_array_equal(actions, again)
    road = np.array([on_road(frame) for frame in frames])
    assert road.mean() > 0.5
    held = (np.diff(actions[:, 1:], axis=0) == 0).all(1)
    assert held[road[:-1]].mean() > 0.6
    assert len(np.unique(actions[road, 1])) > 4


def test_a_hurried_follower_is_fast_and_the_same_for_the_same_seed():
    from astra_gym.agents.lane_follower import hurried_follower

    env = simulator("drive")
    actions, speeds = [], []
    for seed in (0, 0, 1):
        actions.append(drive(env, hurried_follower, seed, 40)[0])
        speeds.append(float(np.hypot(*env.unwrapped.car.hull.linearVelocity)))
    env.close()
    np.testing.assert_array_equal(actions[0], actions[1])
    assert np.abs(np.array(actions[1]) - actions[2]).max() > 0.1
    assert max(speeds) > 35, speeds
