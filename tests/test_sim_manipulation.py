"""FetchPush behind AstraSim/Manipulation-v0: physics and reward that are its own, the picture, and the pusher."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import astra_gym  # noqa: F401  registers the ids
from astra_gym.actions import MANIPULATION
from astra_gym.data.collect import load_policy, random_policy

pytest.importorskip("mujoco")
gymnasium_robotics = pytest.importorskip("gymnasium_robotics")

from astra_gym.simulators.push import Pusher, PusherSkill, PushSim, mixed_pusher  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def env():
    env = PushSim(max_episode_blocks=None)
    yield env
    env.close()


@pytest.fixture(scope="module")
def fetch():
    gym.register_envs(gymnasium_robotics)
    env = gym.make("FetchPushDense-v4", max_episode_steps=-1)
    yield env
    env.close()


def episode(env: gym.Env, policy, seed: int, blocks: int = 24) -> tuple[float, bool]:
    """Return, and whether the block lies at the goal in the end."""
    observation, info = env.reset(seed=seed)
    total = 0.0
    for _ in range(blocks):
        observation, reward, _, _, info = env.step(policy(observation))
        total += reward
    return total, info["is_success"]


# The interface -------------------------------------------------------------------------------------------------------


def test_types_of_a_step(env):
    observation, info = env.reset(seed=0)
    assert observation.shape == (4, 64, 64, 3) and observation.dtype == np.uint8
    assert (observation == observation[0]).all()
    stepped, reward, terminated, truncated, step_info = env.step(MANIPULATION.from_keys({"up"}))
    assert (stepped[0] != stepped[-1]).any()
    np.testing.assert_array_equal(env.render(), stepped[-1])
    assert type(reward) is float and terminated is False and truncated is False
    assert step_info.keys() == info.keys() == {"is_success", "block", "goal", "gripper"}
    assert type(info["is_success"]) is bool
    for key in ("block", "goal", "gripper"):
        assert info[key].shape == (3,)


# Seeds ---------------------------------------------------------------------------------------------------------------


def test_seeds_make_scenes(env):
    firsts = [env.reset(seed=seed)[0][0] for seed in range(6)]
    for i, frame in enumerate(firsts):
        for other in firsts[:i]:
            assert np.abs(frame.astype(int) - other).mean() > 8
    block, again = env.reset()[1]["block"], env.reset()[1]["block"]
    assert np.abs(block - again).max() > 0.01


# FetchPush -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_state_and_reward_are_those_of_fetch_push(env, fetch, seed):
    _, info = env.reset(seed=seed)
    observation, _ = fetch.reset(seed=seed)
    pusher = Pusher(env, PusherSkill(speed=0.5), seed)
    for _ in range(12):
        np.testing.assert_array_equal(env.unwrapped.data.qpos, fetch.unwrapped.data.qpos)
        np.testing.assert_array_equal(info["goal"], observation["desired_goal"])
        np.testing.assert_array_equal(info["block"], observation["achieved_goal"])
        action = pusher()
        _, reward, _, _, info = env.step(action)
        frames = [fetch.step(action) for _ in range(4)]
        assert reward == pytest.approx(sum(frame[1] for frame in frames), abs=1e-12)
        observation, *_, fetch_info = frames[-1]
        assert info["is_success"] == bool(fetch_info["is_success"])


# The picture ---------------------------------------------------------------------------------------------------------


def looked_at(env, marked: str) -> np.ndarray:
    """Where in the picture the geom ``marked`` is seen: x to the right and y down, ``(2,)`` in pixels."""
    simulator = env.unwrapped
    colours = simulator.model.geom_rgba.copy()
    simulator.model.geom_rgba[:, :3] = 0
    simulator.model.geom(marked).rgba[:3] = 1
    picture = env.env.view.frame(simulator.data, env.env.camera)
    simulator.model.geom_rgba[:] = colours
    rows, columns = np.nonzero((picture > 60).all(-1))
    assert len(rows) >= 8, f"{marked} is hardly seen"
    return np.array([columns.mean(), rows.mean()])


@pytest.mark.parametrize(
    ("key", "direction"), [("left", (-1, 0)), ("right", (1, 0)), ("up", (0, -1)), ("down", (0, 1)), ("e", (0, -1))]
)
def test_keys_move_the_gripper_the_way_they_say(env, key, direction):
    for seed in range(3):
        env.reset(seed=seed)
        before = looked_at(env, "robot0:gripper_link")
        for _ in range(2):
            env.step(MANIPULATION.from_keys({key}))
        way = looked_at(env, "robot0:gripper_link") - before
        assert np.linalg.norm(way) > 4
        assert way @ direction / np.linalg.norm(way) > 0.85


def test_block_and_goal_are_seen(env):
    seen = []
    for seed in range(10):
        observation, info = env.reset(seed=seed)
        red, green, blue = observation[-1].astype(int).transpose(2, 0, 1)
        seen.append(((green > 1.6 * red) & (green > 1.6 * blue)).sum())
    assert np.mean(np.array(seen) >= 10) >= 0.8
    env.reset(seed=0)
    assert (looked_at(env, "object0") > 0).all()


# The pusher ----------------------------------------------------------------------------------------------------------


def test_the_pusher_succeeds_and_beats_random(env):
    skilled = [episode(env, Pusher(env, seed=seed), seed) for seed in range(7)]
    assert np.mean([success for _, success in skilled]) >= 0.7
    random = [episode(env, random_policy(env, seed), seed) for seed in range(2)]
    assert np.mean([total for total, _ in skilled]) > np.mean([total for total, _ in random]) + 3


def test_mixed_pushers_are_varied_and_repeatable(env):
    assert load_policy("mixed-pusher") is mixed_pusher
    skills = [mixed_pusher(env, seed).skill for seed in range(20)]
    assert len({skill.places for skill in skills}) >= 3
    actions = []
    for _ in range(2):
        env.reset(seed=1)
        policy = mixed_pusher(env, 1)
        actions.append([])
        for _ in range(6):
            action = policy()
            assert action in MANIPULATION.action_space
            actions[-1].append(action)
            env.step(action)
    np.testing.assert_array_equal(actions[0], actions[1])
