"""The room behind AstraSim/Camera-v0: what it shows, how its camera moves, what it rewards, and its pilots."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import astra_gym  # noqa: F401  registers the ids
from astra_gym.actions import CAMERA
from astra_gym.camera import motion_poses
from astra_gym.data.collect import load_policy

mujoco = pytest.importorskip("mujoco")

from astra_gym.simulators.mujoco_view import MujocoView, intrinsics  # noqa: E402
from astra_gym.simulators.room import (  # noqa: E402
    MAX_PITCH,
    MAX_ROLL,
    RADIUS,
    CameraSim,
    Pilot,
    PilotSkill,
    level_pose,
    mixed_pilot,
    pose_angles,
)

ROOT = Path(__file__).resolve().parent.parent
STILL = np.zeros(6, np.float32)
RIGHT, UP, FORWARD, TURN_LEFT, LOOK_UP, ROLL = np.eye(6, dtype=np.float32)


@pytest.fixture(scope="module")
def shared_env():
    env = CameraSim(max_episode_blocks=None)
    yield env
    env.close()


@pytest.fixture
def env(shared_env):
    shared_env.reset(seed=0)
    return shared_env


def fly(env: gym.Env, policy, seed: int, blocks: int) -> list[float]:
    observation, _ = env.reset(seed=seed)
    rewards = []
    for _ in range(blocks):
        observation, reward, _, _, _ = env.step(policy(observation))
        rewards.append(reward)
    return rewards


# The interface -------------------------------------------------------------------------------------------------------


def test_types_of_a_step(env):
    observation, info = env.reset(seed=1)
    assert env.observation_space.contains(observation) and observation.shape == (4, 64, 64, 3)
    assert (observation == observation[:1]).all()
    stepped, reward, terminated, truncated, step_info = env.step(0.5 * TURN_LEFT)
    assert type(reward) is float and terminated is False and truncated is False
    assert len({frame.tobytes() for frame in stepped}) == 4
    np.testing.assert_array_equal(env.render(), stepped[-1])
    for key, shape, dtype in (("pose", (4, 4), float), ("intrinsics", (3, 3), float), ("goal", (64, 64, 3), np.uint8)):
        assert step_info[key].shape == info[key].shape == shape and step_info[key].dtype == dtype


# Geometry ------------------------------------------------------------------------------------------------------------


def test_points_are_seen_where_the_camera_matrices_say():
    rng = np.random.default_rng(0)
    spec = mujoco.MjSpec()
    spec.visual.headlight.ambient = np.ones(3)
    spec.stat.extent = 4.0  # farther than the marker gets
    spec.worldbody.add_camera(name="eye", fovy=77.0, pos=[0.3, -0.2, 0.5], quat=rng.standard_normal(4))
    marker = spec.worldbody.add_body(mocap=True)
    marker.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.08, 0, 0], rgba=[1, 1, 1, 1])
    model = spec.compile()
    data, view = mujoco.MjData(model), MujocoView(model)
    for _ in range(10):
        mujoco.mj_forward(model, data)
        eye, matrix = data.camera("eye"), intrinsics(model, "eye", 64)
        seen = np.array([*rng.uniform(-0.5, 0.5, 2), -1.0]) * rng.uniform(1.0, 2.5)  # in the camera's axes
        data.mocap_pos[0] = eye.xmat.reshape(3, 3) @ seen + eye.xpos
        mujoco.mj_forward(model, data)
        weights = view.frame(data, "eye").astype(float).sum(-1)
        rows, columns = np.mgrid[:64, :64] + 0.5
        found = np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()
        expected = (matrix @ (seen * (1, -1, -1)))[:2] / -seen[2]
        assert np.abs(found - expected).max() < 1.0
    view.close()


def test_the_target_is_seen_where_the_pose_says(env):
    """Its magenta and orange pixels are centred on its projection, from the room's own pose and intrinsics."""
    checked = 0
    for seed in range(6):
        _, info = env.reset(seed=seed)
        room = env.unwrapped
        room.pose = level_pose(room.scene.goal[:3, 3], *(pose_angles(room.scene.goal) + (0.15, 0.1, 0.2)))
        frame, _, _, _, info = room.step(STILL)
        glows = (frame[..., 0] > 200) & (frame[..., 1] < 170) & (frame[..., 0] - frame[..., 1].astype(int) > 90)
        rows, columns = np.nonzero(glows)
        seen = np.linalg.inv(info["pose"]) @ [*room.scene.panel.mean(0), 1.0]
        expected = (info["intrinsics"] @ (seen[:3] * (1, -1, -1)))[:2] / -seen[2]
        assert np.abs(np.array([columns.mean(), rows.mean()]) + 0.5 - expected).max() < 1.5
        checked += glows.sum() > 300
    assert checked == 6


# Motion --------------------------------------------------------------------------------------------------------------


def test_poses_follow_from_the_actions(env):
    room, rng = env.unwrapped, np.random.default_rng(0)
    room.scene.solids = []  # nothing in the way
    room.pose = level_pose(np.array([0.0, 0.0, 1.4]), 0.3, 0.1)
    expected = room.pose.copy()
    for _ in range(4):
        action = rng.uniform(-0.4, 0.4, 6)
        _, _, _, _, info = env.step(action)
        expected = expected @ np.linalg.matrix_power(motion_poses(action.astype(np.float32) / CAMERA.fps), 4)
        np.testing.assert_allclose(info["pose"], expected, atol=1e-6)


def test_axes_are_the_cameras_own(env):
    room = env.unwrapped
    room.scene.solids = []
    start = level_pose(np.array([0.0, 0.0, 1.4]), 0.0, 0.0)  # looks along y
    for action, moved in ((RIGHT, (1, 0, 0)), (UP, (0, 0, 1)), (FORWARD, (0, 1, 0))):
        room.pose = start.copy()
        np.testing.assert_allclose(env.step(action)[4]["pose"][:3, 3] - start[:3, 3], 0.2 * np.array(moved), atol=1e-9)
    for action, turned in ((TURN_LEFT, (1, 0, 0)), (LOOK_UP, (0, 1, 0)), (0.5 * ROLL, (0, 0, 0.5))):
        room.pose = start.copy()
        np.testing.assert_allclose(pose_angles(env.step(action)[4]["pose"]), 0.2 * np.array(turned), atol=1e-9)
    room.pose = start.copy()
    assert env.step(LOOK_UP)[4]["pose"][2, 2] < 0  # its back, the pose's z axis, sinks: it looks up


def test_turning_left_and_back(env):
    pose = level_pose(env.unwrapped.pose[:3, 3], 0.4, 0.0)
    env.unwrapped.pose = pose.copy()
    rate = np.pi / 2 / 2.0  # a quarter turn in 10 blocks
    for _ in range(10):
        _, _, _, _, info = env.step(rate * TURN_LEFT)
    np.testing.assert_allclose(pose_angles(info["pose"]), (0.4 + np.pi / 2, 0, 0), atol=1e-5)
    for _ in range(10):
        _, _, _, _, info = env.step(-rate * TURN_LEFT)
    np.testing.assert_allclose(info["pose"], pose, atol=1e-5)


def test_camera_stays_clear_and_within_its_limits(env):
    rng = np.random.default_rng(0)
    room = env.unwrapped
    for seed in range(3):
        env.reset(seed=seed)
        for _ in range(60):
            motion = motion_poses(rng.choice([-1, 1], 6) * CAMERA.action_space.high / CAMERA.fps)
            for _ in range(10):
                before = room.pose[:3, 3].copy()
                room.move(motion)
                assert room.scene.is_free(room.pose[:3, 3], RADIUS - 1e-6)
                assert np.linalg.norm(room.pose[:3, 3] - before) < 0.15
                _, pitch, roll = np.abs(pose_angles(room.pose))
                assert pitch < MAX_PITCH + 1e-6 and roll < MAX_ROLL + 1e-6


def test_camera_slides_along_a_wall(env):
    room = env.unwrapped
    room.scene.solids = []
    wall = room.scene.size[1] / 2
    room.pose = level_pose(np.array([-1.0, wall - RADIUS, 1.4]), -np.pi / 4, 0.0)  # 45 degrees onto the wall
    position = env.step(FORWARD)[4]["pose"][:3, 3]
    np.testing.assert_allclose(position, (-1.0 + 0.2 * np.sqrt(0.5), wall - RADIUS, 1.4), atol=1e-4)


# Reward --------------------------------------------------------------------------------------------------------------


def test_reward_is_four_at_the_goal_view_and_nothing_facing_away(env):
    for seed in range(3):
        _, info = env.reset(seed=seed)
        room = env.unwrapped
        goal = room.scene.goal
        room.pose = goal.copy()
        block, reward, _, _, _ = env.step(STILL)
        assert reward == pytest.approx(4.0, abs=1e-6)
        np.testing.assert_array_equal(block[-1], info["goal"])
        values = []
        for turn in (0.0, 0.2, 0.4, 0.7, 1.2, np.pi):
            room.pose = level_pose(goal[:3, 3], *(pose_angles(goal) + (turn, 0, 0)))
            values.append(room.closeness())
        assert values == sorted(values, reverse=True) and values[-1] == values[-2] == 0.0 < values[2]


def test_reward_falls_with_distance_and_where_the_target_is_hidden(env):
    room = env.unwrapped
    goal, back = room.scene.goal, room.scene.goal[:3, 2]
    values = []
    for distance in (0.0, 0.4, 0.8):
        room.pose = level_pose(goal[:3, 3] + distance * back, *pose_angles(goal))
        values.append(room.closeness())
    assert values == pytest.approx([1 / (1 + (d / 1.2) ** 2) for d in (0.0, 0.4, 0.8)])
    room.scene.add("box", goal[:3, 3] - 0.4 * back, (0.5, 0.5, 0.5), (1, 1, 1))
    room.model = room.scene.spec.compile()
    room.data = mujoco.MjData(room.model)
    mujoco.mj_forward(room.model, room.data)
    assert room.closeness() == 0.0


# Pilots --------------------------------------------------------------------------------------------------------------


def test_expert_beats_random(env):
    rng = np.random.default_rng(0)
    for seed in (100, 103):
        env.reset(seed=seed)
        expert = fly(env, Pilot(env, seed=seed), seed, 40)
        chance = fly(env, lambda _: rng.uniform(-1, 1, 6) * CAMERA.action_space.high, seed, 40)
        assert expert[-1] > 3.8 and sum(expert) > 20 + 2 * sum(chance)


def test_mixed_pilots_vary_and_repeat(env):
    assert load_policy("mixed-pilot") is mixed_pilot
    skills = [PilotSkill.sample(np.random.default_rng(seed)) for seed in range(60)]
    assert {skill.purpose for skill in skills} >= {"wander", "goal", "visit", "explore"}
    for seed in (0, 1, 2):
        first, second = ([mixed_pilot(env, seed)() for _ in range(3)] for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert all(env.action_space.contains(action) for action in first)
    with pytest.raises(ValueError, match="purpose: got 'sleep'"):
        Pilot(env, PilotSkill(purpose="sleep"))


def test_wanderers_use_every_axis(env):
    env.reset(seed=7)
    pilot = Pilot(env, PilotSkill("wander", speed=0.5, turn=0.4, noise=0.1, roll=0.3), seed=7)
    actions = []
    for _ in range(60):
        actions.append(pilot())
        env.unwrapped.move(np.linalg.matrix_power(motion_poses(actions[-1] / CAMERA.fps), 4))
    assert (np.abs(actions).mean(0) > 0.02).all() and (np.std(actions, 0) > 0.02).all()
