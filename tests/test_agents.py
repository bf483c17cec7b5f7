"""Agents: the driver sees, drives and comes back; agents by name; the form in which SB3 learns."""

import warnings
from itertools import islice

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image, ImageFilter
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.env_checker import check_env

import astra_gym  # noqa: F401
from astra_gym.agents.features import BlockFeatures
from astra_gym.agents.lane_follower import LaneFollower
from astra_gym.agents.policies import RandomAgent, SkilledAgent, make_agent
from astra_gym.agents.road import RoadView, estimate_motion
from astra_gym.agents.rollout import is_simulator, make_block_env, run_episode
from astra_gym.agents.sb3 import (
    ScaledReward,
    StackedFrames,
    SymmetricControls,
    algorithm_of,
    stack_frames,
    wrap_for_sb3,
)

SIMULATOR = "AstraSim/Drive-v0"
WORLD = "AstraDrive-v0"


@pytest.fixture(scope="module")
def sim():
    env = make_block_env(SIMULATOR, blocks=150)
    yield env
    env.close()


def wheels_on_road(env: gym.Env) -> int:
    return sum(len(wheel.tiles) > 0 for wheel in env.unwrapped.car.wheels)


def drive(env: gym.Env, agent, seed: int, blocks: int, look=lambda block: block) -> tuple[float, list[int]]:
    """The return and the wheels on the road after each block."""
    block, _ = env.reset(seed=seed)
    agent.reset(seed)
    total, wheels = 0.0, []
    for _ in range(blocks):
        block, reward, terminated, truncated, _ = env.step(agent.act(look(block)))
        total += reward
        wheels.append(wheels_on_road(env))
        if terminated or truncated:
            break
    return total, wheels


class Constant:
    """An agent that always does the same."""

    def __init__(self, action: np.ndarray):
        self.action = action

    def reset(self, seed: int | None = None) -> None:
        pass

    def act(self, observation: np.ndarray) -> np.ndarray:
        return self.action


def blurred(block: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(1.2))) for frame in block])


class TestRoad:
    def test_motion_of_the_ground_is_the_motion_of_the_car(self, sim):
        block, _ = sim.reset(seed=3)
        driver, speed_errors, turn_errors = LaneFollower(), [], []
        for _ in range(30):
            block, *_ = sim.step(driver.act(block))
            hull = sim.unwrapped.car.hull
            forward, right, turning = estimate_motion(block, driver.motion)
            speed_errors.append(abs(np.hypot(forward, right) - hull.linearVelocity.length))
            turn_errors.append(abs(turning + hull.angularVelocity))
        assert np.median(speed_errors) < 3.0
        assert np.median(turn_errors) < 0.4

    def test_still_picture_keeps_the_expected_motion(self):
        grass = np.full((4, 64, 64, 3), 100, np.uint8)
        assert estimate_motion(grass, np.array([30.0, 1.0, -0.5])) == pytest.approx([30.0, 1.0, -0.5])

    def test_course_runs_in_the_middle_of_the_road(self):
        frame = np.full((64, 64, 3), (100, 203, 100), np.uint8)
        frame[:, 28:46] = 104  # 18 pixels wide, its middle 5 pixels to the right of the car
        course = RoadView(frame).course(heading=0.0)
        assert len(course) >= 10
        assert course[1:, 0] == pytest.approx(5.0 / 1.185, abs=0.7)
        assert (np.diff(course[:, 1]) > 2).all()

    def test_course_leaves_other_roads_alone(self):
        frame = np.full((64, 64, 3), (100, 203, 100), np.uint8)
        frame[:, 24:40] = 104
        frame[:, 44:60] = 104  # another piece of the track nearby
        course = RoadView(frame).course(heading=0.0)
        assert np.abs(course[:, 0]).max() < 1.0

    def test_nearest_road_is_found_from_the_grass(self):
        frame = np.full((64, 64, 3), (100, 203, 100), np.uint8)
        frame[:, :12] = 104
        view = RoadView(frame)
        assert not view.on_road
        assert view.nearest_road()[0] < -12
        frame[:] = (100, 203, 100)
        assert RoadView(frame).nearest_road() is None


class TestLaneFollower:
    @pytest.mark.parametrize("seed", [2000, 2004])
    def test_stays_on_the_road(self, sim, seed):
        total, wheels = drive(sim, LaneFollower(), seed, blocks=100)
        assert np.mean(np.array(wheels) >= 2) > 0.97
        assert total > 200

    def test_blur_does_no_harm(self, sim):
        total, wheels = drive(sim, LaneFollower(speed=45), 2001, blocks=60, look=blurred)
        assert np.mean(np.array(wheels) >= 2) > 0.97
        assert total > 80

    def test_comes_back_from_the_grass(self, sim):
        sim.reset(seed=2002)
        for step in range(30):
            block, *_ = sim.step(np.array([0.35 if step > 8 else 0.0, 0.6, 0.0], np.float32))
        assert wheels_on_road(sim) == 0
        driver = LaneFollower()
        for _ in range(60):
            block, *_ = sim.step(driver.act(block))
        assert wheels_on_road(sim) == 4

    def test_spin_is_caught(self, sim):
        block, _ = sim.reset(seed=2005)
        driver = LaneFollower()
        for step in range(45):
            block, *_ = sim.step(driver.act(block))
            if step == 12:
                sim.unwrapped.car.hull.angularVelocity = -7.0
        assert abs(sim.unwrapped.car.hull.angularVelocity) < 3.0
        assert wheels_on_road(sim) == 4

    def test_keeps_straight_where_the_road_is(self, sim):
        block, _ = sim.reset(seed=0)
        driver, turning = LaneFollower(), []
        for _ in range(10):
            block, *_ = sim.step(driver.act(block))
            turning.append(sim.unwrapped.car.hull.angularVelocity)
        assert np.abs(turning).max() < 0.5

    def test_speed_is_a_skill(self, sim):
        slow, _ = drive(sim, LaneFollower(speed=20), 2003, blocks=40)
        fast, _ = drive(sim, LaneFollower(speed=60), 2003, blocks=40)
        assert fast > slow + 30

    def test_same_blocks_same_actions(self, sim):
        driver, actions = LaneFollower(), []
        for _ in range(2):
            block, _ = sim.reset(seed=5)
            driver.reset(0)
            actions.append([])
            for _ in range(5):
                actions[-1].append(driver.act(block))
                block, *_ = sim.step(actions[-1][-1])
        assert np.array_equal(*actions)
        assert all(sim.action_space.contains(action) for action in actions[0])

    def test_world_of_noise_is_survived(self):
        rng, driver = np.random.default_rng(0), LaneFollower()
        for _ in range(20):
            action = driver.act(rng.integers(0, 256, (4, 64, 64, 3), np.uint8))
            assert np.isfinite(action).all()

    @pytest.mark.parametrize("speed", [0, -5, 500])
    def test_bad_speed(self, speed):
        with pytest.raises(ValueError, match="speed: got"):
            LaneFollower(speed=speed)

    def test_drives_in_the_dream(self):
        env = make_block_env(WORLD, blocks=5)
        steps = list(run_episode(env, make_agent("scripted", env), seed=0))
        assert len(steps) == 6
        assert all(env.action_space.contains(step.action) for step in steps[1:])
        env.close()


class TestMakeAgent:
    def test_random_holds_its_actions(self, sim):
        agent = make_agent("random", sim, seed=3)
        first = [agent.act(None) for _ in range(200)]
        changes = np.any(np.diff(first, axis=0), axis=1).sum()
        assert 200 / 8 < changes < 200 / 2
        assert all(sim.action_space.contains(action) for action in first)
        agent.reset(3)
        assert np.array_equal(first, [agent.act(None) for _ in range(200)])
        agent.reset(4)
        assert not np.array_equal(first, [agent.act(None) for _ in range(200)])

    def test_skill_is_the_share_of_the_time_that_is_not_random(self, sim):
        def shares(name: str) -> float:
            agent, random = make_agent(name, sim, seed=1), make_agent("random", sim, seed=1)
            agent.agent = Constant(np.array([0.25, 0.5, 0.0], np.float32))
            same = [np.array_equal(agent.act(None), random.act(None)) for _ in range(3000)]
            return 1 - np.mean(same)

        assert shares("scripted:0") == 0 and shares("scripted:1") == 1
        assert shares("scripted:0.3") == pytest.approx(0.3, abs=0.06)

    def test_skilled_agents_repeat_themselves(self, sim):
        def roll(name: str, seed: int) -> np.ndarray:
            agent = make_agent(name, sim)
            return np.stack([step.action for step in islice(run_episode(sim, agent, seed), 1, 21)])

        assert np.array_equal(roll("scripted:0.5", 3), roll("scripted:0.5", 3))
        assert np.array_equal(roll("scripted:1", 3), roll("scripted", 3))
        assert np.array_equal(roll("scripted:0", 3), roll("random", 3))
        assert not np.array_equal(roll("scripted:0.5", 4), roll("scripted", 4))

    def test_skilled_agents_are_pushed_to_either_side(self, sim):
        agent, pushes = make_agent("scripted:0.75", sim), []
        for seed in range(400):
            agent.reset(seed)
            action = agent.act(np.zeros((4, 64, 64, 3), np.uint8))
            if not np.array_equal(action, agent.meant):
                pushes.append(action[0])
        assert 60 < len(pushes) < 140 and abs(np.mean(pushes)) < 0.2

    def test_skilled_agents_are_told_when_they_are_pushed(self, sim):
        class Listener:
            heard: list[np.ndarray] = []

            def reset(self, seed=None): ...

            def act(self, observation):
                return np.zeros(3, np.float32)

            def correct(self, action):
                self.heard.append(action)

        listener = Listener()
        agent = SkilledAgent(listener, RandomAgent(sim.action_space), 0.5, seed=1)
        done = [agent.act(np.zeros((4, 64, 64, 3), np.uint8)) for _ in range(60)]
        assert np.array_equal(listener.heard, [action for action in done if action.any()])

    @pytest.mark.parametrize("skill", ["1.5", "-0.1", "nan", "good", ""])
    def test_bad_skill(self, sim, skill):
        with pytest.raises(ValueError, match=f"^agent: got 'scripted:{skill}', allowed are .* from 0 to 1"):
            make_agent(f"scripted:{skill}", sim)

    def test_names(self, sim):
        assert isinstance(make_agent("random", sim), RandomAgent)
        assert isinstance(make_agent("scripted", sim), LaneFollower)

    @pytest.mark.parametrize("name", ["nobody", "missing.zip", ""])
    def test_unknown_agent(self, sim, name):
        with pytest.raises(ValueError, match="agent: got .* allowed are 'random', 'scripted'"):
            make_agent(name, sim)

    def test_file_that_is_no_policy(self, sim, tmp_path):
        (tmp_path / "bad.zip").write_bytes(b"not a zip")
        with pytest.raises(ValueError, match="agent: cannot read .*bad.zip"):
            make_agent(str(tmp_path / "bad.zip"), sim)

    def test_environment_without_blocks(self):
        with pytest.raises(ValueError, match="env: got observations of shape"):
            make_agent("random", gym.make("MountainCarContinuous-v0"))

    def test_policy_from_a_file(self, sim, tmp_path):
        model = PPO("CnnPolicy", wrap_for_sb3(sim), n_steps=8, batch_size=8, seed=0)
        model.save(tmp_path / "policy.zip")
        agent = make_agent(str(tmp_path / "policy.zip"), sim)
        block, _ = sim.reset(seed=0)
        action = agent.act(block)
        assert sim.action_space.contains(action)
        assert action[1] == 0 or action[2] == 0
        assert np.array_equal(action, agent.act(block))

    def test_policy_of_sac_is_told_from_that_of_ppo(self, sim, tmp_path):
        env = wrap_for_sb3(sim)
        SAC("CnnPolicy", env, buffer_size=10, policy_kwargs={"features_extractor_class": BlockFeatures}).save(
            tmp_path / "sac.zip"
        )
        assert algorithm_of(tmp_path / "sac.zip") == "sac"
        block, _ = sim.reset(seed=0)
        assert sim.action_space.contains(make_agent(str(tmp_path / "sac.zip"), sim).act(block))

    def test_policy_of_another_learner(self, sim, tmp_path):
        for learner, module in ((A2C, "common"), (TD3, "td3")):
            learner("MlpPolicy", "MountainCarContinuous-v0").save(tmp_path / "policy.zip")
            with pytest.raises(
                ValueError, match=f"agent: .* of stable_baselines3.{module}.policies, allowed are .* SAC"
            ):
                make_agent(str(tmp_path / "policy.zip"), sim)

    def test_policy_of_another_environment(self, sim, tmp_path):
        PPO("MlpPolicy", "MountainCarContinuous-v0", n_steps=8, batch_size=8).save(tmp_path / "policy.zip")
        with pytest.raises(ValueError, match="was learned with"):
            make_agent(str(tmp_path / "policy.zip"), sim)


class TestSB3:
    @pytest.mark.parametrize("env_id", [SIMULATOR, WORLD])
    def test_checker_has_no_complaint(self, env_id):
        env = wrap_for_sb3(make_block_env(env_id, blocks=20))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_env(env)
        env.close()

    def test_frames_become_channels(self, sim):
        block, _ = sim.reset(seed=0)
        image = stack_frames(block)
        assert image.shape == StackedFrames(sim).observation_space.shape == (12, 64, 64)
        assert np.array_equal(image[3:6], block[1].transpose(2, 0, 1))

    def test_one_pedal_for_gas_and_brake(self, sim):
        controls = SymmetricControls(sim)
        assert controls.action(np.array([-0.5, 0.7])) == pytest.approx([-0.5, 0.7, 0.0])
        assert controls.action(np.array([0.5, -0.3])) == pytest.approx([0.5, 0.0, 0.3])
        assert controls.action(np.array([3.0, -2.0])) == pytest.approx([1.0, 0.0, 1.0])

    def test_scaled_reward(self, sim):
        assert ScaledReward(sim, 0.1).reward(5.0) == pytest.approx(0.5)

    def test_stacking_needs_blocks(self):
        with pytest.raises(ValueError, match="env: got observations of shape"):
            StackedFrames(gym.make("MountainCarContinuous-v0"))


def test_simulators_are_told_from_worlds():
    assert is_simulator(SIMULATOR)
    assert not is_simulator(WORLD)
    with pytest.raises(gym.error.Error):
        is_simulator("NoSuchWorld-v0")
