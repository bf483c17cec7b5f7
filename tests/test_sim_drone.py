"""The course of gates behind AstraSim/Drone-v0: flight, rewards, crashes, what is seen of them, and its racers."""

from itertools import product
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import astra_gym  # noqa: F401  registers the ids
from astra_gym.actions import DRONE
from astra_gym.data.collect import load_policy, random_policy

mujoco = pytest.importorskip("mujoco")

from astra_gym.simulators.gates import (  # noqa: E402
    CEILING,
    DroneSim,
    Racer,
    RacerSkill,
    crashing_racer,
    mixed_racer,
    stubborn_racer,
)
from astra_gym.simulators.gates_scene import FIELD, OPENING, draw_course  # noqa: E402
from astra_gym.simulators.quadrotor import RADIUS  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
HOVER = np.zeros(4, np.float32)
FORWARD, LEFT, UP, TURN_LEFT = np.eye(4, dtype=np.float32)


@pytest.fixture(scope="module")
def shared_env():
    env = DroneSim(max_episode_blocks=None)
    yield env
    env.close()


@pytest.fixture
def env(shared_env):
    shared_env.reset(seed=0)
    return shared_env


@pytest.fixture(scope="module")
def undrawn_env():
    env = DroneSim(max_episode_blocks=None)
    course = env.unwrapped
    course._draw = lambda: course.observation_space.low
    return env


@pytest.fixture
def blind(undrawn_env):
    """An environment without pictures, which cost most of the time."""
    undrawn_env.reset(seed=0)
    return undrawn_env


def place(env: gym.Env, position, heading: float) -> None:
    """Put the drone somewhere, at rest and level."""
    data = env.unwrapped.data
    data.qpos[:3] = position
    data.qpos[3:7] = np.cos(heading / 2), 0, 0, np.sin(heading / 2)
    data.qvel[:] = 0


def place_before_gate(env: gym.Env, distance: float, sideways: float = 0.0) -> None:
    gate = env.unwrapped.gate
    left = np.array([-gate.normal[1], gate.normal[0], 0.0])
    place(env, gate.centre - distance * gate.normal + sideways * left, gate.yaw)


def level_velocity(info: dict) -> np.ndarray:
    """Forward, left and up, in m/s."""
    cos, sin = np.cos(info["heading"]), np.sin(info["heading"])
    x, y, z = info["velocity"]
    return np.array([cos * x + sin * y, cos * y - sin * x, z])


# The interface -------------------------------------------------------------------------------------------------------


def test_types_of_a_step(env):
    observation, info = env.reset(seed=1)
    assert env.observation_space.contains(observation) and observation.shape == (4, 64, 64, 3)
    assert (observation == observation[:1]).all()
    stepped, reward, terminated, truncated, step_info = env.step(FORWARD)
    assert type(reward) is float and terminated is False and truncated is False
    assert len({frame.tobytes() for frame in stepped}) == 4
    np.testing.assert_array_equal(env.render(), stepped[-1])
    assert step_info.keys() == info.keys() == {"position", "velocity", "heading", "next_gate", "gates_passed"}


# Courses -------------------------------------------------------------------------------------------------------------


def test_courses_are_flyable_and_differ():
    courses = [draw_course(np.random.default_rng(seed)) for seed in range(60)]
    for course in courses:
        centres = np.array([gate.centre for gate in course.gates])
        gaps = np.linalg.norm(centres - np.roll(centres, 1, 0), axis=1)
        assert 8 <= len(centres) <= 12 and gaps.min() > 3.5 and gaps.max() < 6.5
        assert np.abs(centres[:, :2]).max() < FIELD - 2 and centres[:, 2].min() >= 1.2 and centres[:, 2].max() <= 2.4
        assert not any(gate.touches(course.start, RADIUS) for gate in course.gates)
    assert len({course.xml for course in courses}) == len(courses)


def test_crossing_a_gate():
    gate = draw_course(np.random.default_rng(0)).gates[0]
    before, after, up = gate.centre - 0.1 * gate.normal, gate.centre + 0.2 * gate.normal, np.array([0, 0, 0.9])
    assert gate.crossed(before, after) and gate.crossed(after, before)
    assert not gate.crossed(before, gate.centre - 0.05 * gate.normal)
    assert not gate.crossed(before + up, after + up)


# Flight --------------------------------------------------------------------------------------------------------------


def test_hovers(blind):
    start = blind.unwrapped.position
    for _ in range(10):
        info = blind.step(HOVER)[4]
    assert np.abs(info["position"] - start).max() < 0.01 and np.abs(info["velocity"]).max() < 0.01


@pytest.mark.parametrize(
    "action",
    [1.5 * FORWARD, -FORWARD, LEFT, -LEFT, 0.8 * UP, -0.8 * UP, TURN_LEFT, -1.5 * TURN_LEFT, (1.0, 0.5, 0.3, 0.8)],
)
def test_follows_commands(blind, action):
    action = np.asarray(action)
    place(blind, (0, 0, 2.5), 0.5)
    blind.unwrapped.model.geom_contype[:] = 0  # nothing in the way
    for _ in range(6):
        before = blind.unwrapped.heading
        info = blind.step(action)[4]
    np.testing.assert_allclose(level_velocity(info), action[:3], atol=0.08)
    turned = (info["heading"] - before + np.pi) % (2 * np.pi) - np.pi
    assert turned / 0.2 == pytest.approx(action[3], abs=0.05)


def test_actions_out_of_bounds_are_clipped(blind):
    first = blind.step(np.array(DRONE.high))[4]["position"]
    blind.reset(seed=0)
    np.testing.assert_array_equal(blind.step(10 * np.array(DRONE.high))[4]["position"], first)


# Rewards and ends ----------------------------------------------------------------------------------------------------


def test_reward_is_progress(blind):
    place_before_gate(blind, 3.0)
    gate = blind.unwrapped.gate
    before = np.linalg.norm(gate.centre - blind.unwrapped.position)
    total, info = 0.0, {}
    for _ in range(3):
        _, reward, _, _, info = blind.step(FORWARD)
        total += reward
    assert total == pytest.approx(before - np.linalg.norm(gate.centre - info["position"])) and total > 0.3


def test_passing_gives_the_bonus_and_the_signal_moves_on(env):
    def bars_of_signal_colour() -> set[int]:
        model = env.unwrapped.model
        signal = model.material("signal").id
        return {gate for gate in range(len(env.unwrapped.course.gates)) if model.geom(f"gate{gate}_0").matid == signal}

    def orange(frame: np.ndarray) -> int:
        red, green, blue = frame.astype(int).transpose(2, 0, 1)
        return int(((red > green + 60) & (red > blue + 60)).sum())

    place_before_gate(env, 1.8)
    seen = orange(env.step(HOVER)[0][-1])
    assert bars_of_signal_colour() == {0}
    rewards = []
    while env.unwrapped.gates_passed == 0:
        observation, reward, terminated, _, info = env.step(1.5 * FORWARD)
        rewards.append(reward)
        assert not terminated and len(rewards) < 20
    assert rewards[-1] > 4.5 and max(rewards[:-1]) < 0.5
    assert info["next_gate"] == info["gates_passed"] == 1 and bars_of_signal_colour() == {1}
    first = env.unwrapped.course.gates[0]
    place(env, first.centre - 1.8 * first.normal, first.yaw)
    assert orange(env.step(HOVER)[0][-1]) < 0.5 * seen and seen > 300


def crash_into_bar(env):
    place_before_gate(env, 1.2, sideways=OPENING / 2 + 0.15)
    return FORWARD


def crash_into_ground(env):
    place(env, (0, 0, 0.6), 0.0)
    return -UP


def climb_too_high(env):
    place(env, (0, 0, CEILING - 0.3), 0.0)
    return UP


def leave_the_field(env):
    place(env, (0, FIELD - 0.3, 4.0), np.pi / 2)
    return FORWARD


@pytest.mark.parametrize("way", [crash_into_bar, crash_into_ground, climb_too_high, leave_the_field])
def test_crashes_end_the_episode(blind, way):
    action = way(blind)
    for _ in range(12):
        _, reward, terminated, truncated, _ = blind.step(action)
        if terminated:
            break
    assert terminated is True and truncated is False and -11 < reward < -9


# Racers --------------------------------------------------------------------------------------------------------------


def fly(env: gym.Env, policy, blocks: int = 100) -> tuple[float, dict, bool]:
    total, info, terminated = 0.0, {}, False
    for _ in range(blocks):
        _, reward, terminated, _, info = env.step(policy(None))
        total += reward
        if terminated:
            break
    return total, info, terminated


def test_racers_pass_gates_and_beat_chance(blind):
    expert, chance = [], []
    for seed in range(4):
        blind.reset(seed=seed)
        total, info, terminated = fly(blind, Racer(blind, seed=seed))
        assert not terminated and info["gates_passed"] >= 3
        expert.append(total)
        blind.reset(seed=seed)
        chance.append(fly(blind, random_policy(blind, seed))[0])
    assert min(expert) > 20 > max(chance)


def test_faster_racers_get_further(blind):
    passed = []
    for speed in (0.6, 1.6):
        blind.reset(seed=2)
        passed.append(fly(blind, Racer(blind, RacerSkill(speed=speed), 0))[1]["gates_passed"])
    assert passed[0] < passed[1]


def test_mixed_racers_vary_and_some_crash(blind):
    crashes, actions, seeds = 0, [], 24
    for seed in range(seeds):
        blind.reset(seed=seed)
        racer = mixed_racer(blind, seed)
        crashes += fly(blind, lambda _, racer=racer: actions.append(racer()) or actions[-1], 125)[2]
    assert 0.1 < crashes / seeds < 0.5
    assert all(action in blind.action_space for action in actions)
    assert (np.std(actions, 0) > 0.1 * np.array(DRONE.high)).all()


def test_stubborn_racers_hold_commands_and_miss_gates(blind):
    crashes, longest, commands = 0, 0, []
    for seed in range(16):
        blind.reset(seed=seed)
        racer, actions = stubborn_racer(blind, seed), []
        crashes += fly(blind, lambda _, racer=racer, actions=actions: actions.append(racer()) or actions[-1], 60)[2]
        changes = np.flatnonzero([*(np.diff(actions, axis=0) != 0).any(1), True])
        longest = max(longest, int(np.diff([-1, *changes]).max()))
        commands += actions
    assert crashes > 6 and 10 < longest <= 20
    assert all(action in blind.action_space for action in commands)
    assert (np.min(commands, 0) == DRONE.low).all() and (np.max(commands, 0) == DRONE.high).all()


def test_crashing_racers_crash_more_often_than_others(blind):
    crashes = {crashing_racer: 0, mixed_racer: 0}
    for seed, policy in product(range(12), crashes):
        blind.reset(seed=seed)
        racer = policy(blind, seed)
        crashes[policy] += fly(blind, lambda _, racer=racer: racer(), 60)[2]
    assert crashes[crashing_racer] >= 5 + crashes[mixed_racer]


RACERS = {"mixed-racer": mixed_racer, "stubborn-racer": stubborn_racer, "crashing-racer": crashing_racer}


@pytest.mark.parametrize(("name", "policy"), RACERS.items())
def test_same_seed_same_racer(blind, name, policy):
    assert load_policy(name) is policy
    flights = []
    for _ in range(2):
        blind.reset(seed=7)
        flights.append(fly(blind, policy(blind, 7), 20)[1]["position"])
    np.testing.assert_array_equal(*flights)
