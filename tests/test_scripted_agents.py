"""Scripted agents of Manipulation, Drone and Camera: what they see, and how they act on it in the true simulators."""

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image, ImageFilter

from astra_gym import released_actions
from astra_gym.agents.block_pusher import BlockPusher, TableView, places_on_table
from astra_gym.agents.gate_follower import FOCAL, GATE, GateFollower, see_signal
from astra_gym.agents.goal_seeker import GoalSeeker, see_target
from astra_gym.agents.imitation import watch
from astra_gym.agents.policies import RandomAgent, make_agent
from astra_gym.agents.rollout import make_block_env
from astra_gym.agents.squares import find_square
from astra_gym.data.episodes import Episode

AGENTS = {"Manipulation": BlockPusher, "Drone": GateFollower, "Camera": GoalSeeker}


@pytest.fixture(scope="module")
def sims():
    envs = {name: make_block_env(f"AstraSim/{name}-v0", blocks=150) for name in AGENTS}
    yield envs
    for env in envs.values():
        env.close()


def episode(env: gym.Env, agent, seed: int, blocks: int, look=lambda block: block) -> tuple[list[float], dict, bool]:
    """The rewards, the last info, and whether the episode terminated."""
    block, info = env.reset(seed=seed)
    agent.reset(seed)
    rewards, terminated = [], False
    while len(rewards) < blocks and not terminated:
        action = agent.act(look(block))
        assert env.action_space.contains(action)
        block, reward, terminated, _, info = env.step(action)
        rewards.append(reward)
    return rewards, info, terminated


def random_return(env: gym.Env, seed: int, blocks: int) -> float:
    return sum(episode(env, RandomAgent(env.action_space), seed, blocks)[0])


def blurred(block: np.ndarray) -> np.ndarray:
    """About as unsharp as a dream."""
    return np.stack([np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(0.7))) for frame in block])


class TestSquares:
    def test_place_and_size(self):
        mask = np.zeros((64, 64), bool)
        mask[10:30, 40:60] = True
        mask[13:27, 43:57] = False  # a frame, like a gate
        mask[50, 5] = True  # a speckle
        square = find_square(mask)
        assert (square.right, square.up) == pytest.approx((18 / 64, 12 / 64))
        assert (square.width, square.height) == pytest.approx((20 / 64, 20 / 64))
        assert (square.lean, square.pitch, square.roll, square.cut) == pytest.approx((0, 0, 0, 0))

    def test_nearer_side_is_longer(self):
        mask = np.zeros((64, 64), bool)
        for column in range(20, 40):
            half = 15 - (column - 20) // 4  # the left side is longer
            mask[32 - half : 32 + half, column] = True
        assert find_square(mask).lean == pytest.approx(np.log(30 / 20), abs=0.1)
        assert find_square(mask.T).pitch == pytest.approx(np.log(30 / 20), abs=0.1)
        assert find_square(mask[:, ::-1]).lean == pytest.approx(-np.log(30 / 20), abs=0.1)

    @pytest.mark.parametrize("angle", [-10, 8])
    def test_roll(self, angle):
        upright = Image.new("L", (64, 64))
        upright.paste(255, (18, 18, 46, 46))
        turned = np.asarray(upright.rotate(-angle, Image.Resampling.BILINEAR)) > 128  # PIL turns to the left
        assert np.rad2deg(find_square(turned).roll) == pytest.approx(angle, abs=2.5)

    def test_cut_by_the_picture(self):
        mask = np.zeros((64, 64), bool)
        mask[0:20, 50:64] = True
        assert find_square(mask).cut == 2

    def test_nothing_there(self):
        assert find_square(np.zeros((64, 64), bool)) is None
        speckles = np.zeros((64, 64), bool)
        speckles[::4, ::4] = True
        assert find_square(speckles) is None


class TestGateFollower:
    def test_gate_is_seen_where_it_is(self, sims):
        for seed in range(3100, 3104):
            block, _ = sims["Drone"].reset(seed=seed)
            course = sims["Drone"].unwrapped
            gate = find_square(see_signal(block[-1]))
            if gate.cut:
                continue
            away = course.gate.centre - course.position
            bearing = (np.arctan2(away[1], away[0]) - course.heading + np.pi) % (2 * np.pi) - np.pi
            assert np.arctan(-gate.right / FOCAL) == pytest.approx(bearing, abs=0.06)
            assert GATE * FOCAL / gate.height == pytest.approx(np.linalg.norm(away), rel=0.2)

    @pytest.mark.parametrize("seed", [3100, 3101])
    def test_flies_through_gates(self, sims, seed):
        rewards, info, crashed = episode(sims["Drone"], GateFollower(), seed, 45)
        assert not crashed
        assert info["gates_passed"] >= 1
        assert sum(rewards) > random_return(sims["Drone"], seed, 45) + 5

    def test_blur_does_no_harm(self, sims):
        _, info, crashed = episode(sims["Drone"], GateFollower(), 3102, 40, blurred)
        assert not crashed
        assert info["gates_passed"] >= 1

    def test_searches_on_the_side_where_the_gate_was(self):
        frame = np.full((64, 64, 3), 128, np.uint8)
        for columns, side in ((slice(0, 10), 1), (slice(54, 64), -1)):
            racer, seen = GateFollower(), frame.copy()
            seen[20:40, columns] = (240, 70, 45)
            assert np.sign(racer.act(seen[None])[3]) == side
            forward, left, up, turn = racer.act(frame[None])
            assert (forward, left, up) == (0, 0, 0)
            assert np.sign(turn) == side

    def test_knows_how_far_others_have_flown(self):
        frame = np.full((64, 64, 3), 128, np.uint8)
        near = frame.copy()
        near[8:56, 8:56] = (240, 70, 45)
        near[16:48, 16:48] = 128
        for done, flies_on in ((0.0, True), (2.0, False)):
            racer = GateFollower()
            racer.act(near[None])
            for _ in range(6):
                racer.correct(np.array([done, 0, 0, 0], np.float32))
                action = racer.act(frame[None])
            assert (action[0] > 0) == flies_on


class TestGoalSeeker:
    def test_nothing_else_looks_like_the_target(self, sims):
        for seed in range(3100, 3106):
            block, _ = sims["Camera"].reset(seed=seed)
            room = sims["Camera"].unwrapped
            if room.closeness() == 0 and (find_square(see_target(block[-1])) is not None):
                away = room.pose[:3, :3].T @ (room.scene.panel.mean(0) - room.pose[:3, 3])
                assert away[2] < 0  # a part of it may show
            goal = find_square(see_target(room._goal_picture))
            assert (goal.right, goal.up) == pytest.approx((0, 0), abs=0.02)
            assert goal.height == pytest.approx(34.5 / 64, abs=0.03)

    @pytest.mark.parametrize("seed", [3100, 3101])
    def test_reaches_the_goal_view_and_stays(self, sims, seed):
        rewards, _, _ = episode(sims["Camera"], GoalSeeker(), seed, 70)
        assert min(rewards[-5:]) > 3.6
        assert sum(rewards) > random_return(sims["Camera"], seed, 70) + 50

    def test_blur_does_no_harm(self, sims):
        assert min(episode(sims["Camera"], GoalSeeker(), 3103, 60, blurred)[0][-5:]) > 3.4

    def test_search_levels_the_camera(self):
        pilot, frame = GoalSeeker(), np.full((1, 64, 64, 3), 128, np.uint8)
        seen = frame.copy()
        seen[:, :8, 25:40] = (255, 13, 140)  # high above: look up
        for _ in range(3):
            assert pilot.act(seen)[4] > 0
        assert pilot.act(frame)[4] < -0.2
        for _ in range(30):
            search = pilot.act(frame)
            assert search[3] > 0
        assert search[4] == pytest.approx(0, abs=0.05)

    def test_levels_the_camera_that_others_have_turned(self):
        pilot, frame = GoalSeeker(), np.full((1, 64, 64, 3), 128, np.uint8)
        for _ in range(3):
            pilot.act(frame)
            pilot.correct(np.array([0, 0, 0, 0, 0.4, 0], np.float32))
        assert pilot.act(frame)[4] < -0.2

    def test_a_watching_pilot_knows_what_was_done(self):
        blocks = np.full((5, 1, 64, 64, 3), 128, np.uint8)
        rolled = np.zeros((4, 6), np.float32)
        rolled[:2, 5] = 0.4
        episode = Episode(0, blocks, rolled, np.zeros(4, np.float32), np.zeros(4, bool))
        rolls = np.stack(list(watch(GoalSeeker(), episode)))[:, 5]
        assert rolls[0] == 0 and rolls[1] < 0 and rolls[2] < rolls[1]
        assert rolls[4] == pytest.approx(rolls[2])  # what it would have done was not done


class TestBlockPusher:
    def test_middle_of_the_picture(self):
        # The camera looks at this place at the height of 0.45 m.
        assert places_on_table(np.array([0.5, 0.5]), 0.45) == pytest.approx([1.36, 0.75])
        right, away = places_on_table(np.array([[0.6, 0.5], [0.5, 0.4]]), 0.45) - [1.36, 0.75]
        assert right[0] > 0.05 and away[1] > 0.05

    def test_things_are_seen_where_they_are(self, sims):
        errors = []
        for seed in range(3100, 3108):
            block, info = sims["Manipulation"].reset(seed=seed)
            view = TableView(block[-1])
            places = {"block": view.block, "goal": view.goal, "gripper": view.gripper}
            errors += [np.linalg.norm(place - info[name][:2]) for name, place in places.items() if place is not None]
        assert len(errors) >= 20
        assert np.median(errors) < 0.03  # the camera's angle is not known yet
        assert np.max(errors) < 0.08

    def test_gripper_is_seen_wherever_it_is(self, sims):
        errors, rng = [], np.random.default_rng(0)
        for seed in range(3100, 3108):
            sims["Manipulation"].reset(seed=seed)
            for _ in range(4):
                motion = np.array([*rng.uniform(-0.35, 0.35, 2), 0, 0], np.float32)
                for _ in range(3):
                    block, *_, info = sims["Manipulation"].step(motion)
                gripper = TableView(block[-1]).gripper
                errors.append(np.inf if gripper is None else np.linalg.norm(gripper - info["gripper"][:2]))
        assert np.median(errors) < 0.03
        assert np.mean(np.array(errors) < 0.06) >= 0.9

    def test_takes_over_at_any_moment(self, sims):
        reached = 0
        for seed in (3100, 3101, 3102):
            block, _ = sims["Manipulation"].reset(seed=seed)
            other = RandomAgent(gym.spaces.Box(-0.3, 0.3, (4,)), seed)
            for _ in range(8):
                block, *_ = sims["Manipulation"].step(other.act(block))
            pusher = BlockPusher()
            for _ in range(40):
                block, *_, info = sims["Manipulation"].step(pusher.act(block))
            reached += info["is_success"]
        assert reached >= 2

    def test_pushes_the_block_to_the_goal(self, sims):
        reached, better = 0, 0
        for seed in (3100, 3101, 3102):
            rewards, info, _ = episode(sims["Manipulation"], BlockPusher(), seed, 35)
            reached += info["is_success"]
            better += sum(rewards) > random_return(sims["Manipulation"], seed, 35)
        assert reached >= 2
        assert better >= 2

    @pytest.mark.parametrize("seed", [3001, 3004, 3006])
    def test_blur_does_no_harm(self, sims, seed):
        assert episode(sims["Manipulation"], BlockPusher(), seed, 35, blurred)[1]["is_success"]


@pytest.mark.parametrize("name", AGENTS)
class TestEachAgent:
    def test_is_the_scripted_agent(self, sims, name):
        assert isinstance(make_agent("scripted", sims[name]), AGENTS[name])

    def test_same_blocks_same_actions(self, sims, name):
        agent, actions = AGENTS[name](), []
        for _ in range(2):
            block, _ = sims[name].reset(seed=5)
            agent.reset(0)
            actions.append([])
            for _ in range(5):
                actions[-1].append(agent.act(block))
                block, *_ = sims[name].step(actions[-1][-1])
        assert np.array_equal(*actions)

    def test_noise_is_survived(self, sims, name):
        rng, agent = np.random.default_rng(0), AGENTS[name]()
        for _ in range(20):
            assert sims[name].action_space.contains(agent.act(rng.integers(0, 256, (4, 64, 64, 3), np.uint8)))

    @pytest.mark.parametrize("speed", [0, -1, 5])
    def test_bad_speed(self, name, speed):
        with pytest.raises(ValueError, match="speed: got"):
            AGENTS[name](speed=speed)


def test_released_actions_have_no_scripted_agent(sims):
    class Released(gym.Wrapper):
        modality = released_actions.CAMERA

    with pytest.raises(ValueError, match="agent: 'scripted' can act in drive, .* the environment's actions are"):
        make_agent("scripted", Released(sims["Camera"]))
