"""Whether a world obeys: actions and poses read back from frames, there and back, pushes."""

from itertools import islice
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

import astra_gym  # noqa: F401
from astra_gym.actions import CAMERA, MANIPULATION

pytest.importorskip("minari")
pytest.importorskip("mujoco")

from astra_gym.bundles import load_bundle  # noqa: E402
from astra_gym.data.collect import CollectArgs, collect  # noqa: E402
from astra_gym.data.episodes import Episode, read_episodes  # noqa: E402
from astra_gym.evaluation import action_following, camera_pose, inverse_dynamics, pushing, there_and_back  # noqa: E402
from astra_gym.evaluation.flow import optical_flow  # noqa: E402
from astra_gym.evaluation.following_tables import actions_table, back_table, pushing_table  # noqa: E402
from astra_gym.evaluation.heldout import as_start, choose_clips  # noqa: E402
from astra_gym.evaluation.intervals import estimate_mean, estimate_share  # noqa: E402
from astra_gym.world import World  # noqa: E402


@pytest.fixture(scope="module")
def rooms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rooms") / "camera" / "val"
    collect(
        CollectArgs(
            env="AstraSim/Camera-v0",
            policy="mixed-pilot",
            output=folder,
            episodes=2,
            blocks=24,
            first_seed=1_000_000,
            workers=1,
        )  # fmt: skip
    )
    return folder


@pytest.fixture(scope="module")
def bundle(joint_world):
    return load_bundle(joint_world)


def sliding_pictures(count: int, seed: int) -> Episode:
    """An episode whose only visible action number slides a pattern sideways by as many pixels a block."""
    rng = np.random.default_rng(seed)
    pattern = np.kron(rng.integers(60, 200, (16, 64)), np.ones((4, 4)))
    actions = rng.uniform(-3, 3, (count, 2)).astype(np.float32)
    blocks, place = [np.stack([pattern[:, 96:160]] * 4)], 96.0
    for action in actions:
        frames = []
        for _ in range(4):
            place = float(np.clip(place + action[0] / 3, 0, 190))
            whole, part = int(place), place - int(place)
            frames.append((1 - part) * pattern[:, whole : whole + 64] + part * pattern[:, whole + 1 : whole + 65])
        blocks.append(np.stack(frames))
    nothing = np.zeros(count, np.float32)
    colour = np.repeat(np.stack(blocks)[..., None], 3, -1).astype(np.uint8)
    return Episode(seed, colour, actions, nothing, nothing > 0)


def test_flow_of_a_known_shift():
    torch.manual_seed(0)
    wide = torch.nn.functional.interpolate(torch.rand(4, 1, 16, 16) * 200, size=(96, 96), mode="bicubic")[:, 0]
    for right, down in ((2, 0), (-3, 1), (0, -4)):
        flow = optical_flow(wide[:, 16:80, 16:80], wide[:, 16 - down : 80 - down, 16 - right : 80 - right])
        middle = flow[:, :, 16:-16, 16:-16].mean((0, 2, 3))
        np.testing.assert_allclose(middle, [right, down], atol=0.4)


def test_r_squared_by_hand():
    wanted = np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]])
    said = np.array([[0.0, 5.0], [1.0, 4.0], [1.0, 5.0]])
    values = action_following.r_squared(said, wanted)
    assert values[0] == pytest.approx(1 - 1 / 2) and np.isnan(values[1])


def test_numbers_that_do_not_show_on_true_frames_are_left_out_of_the_mean():
    rng = np.random.default_rng(0)
    commanded = rng.normal(size=(6, 5, 2))
    noise = rng.normal(size=(6, 5))
    said = {"true frames": commanded.copy(), "dream": 0.5 * commanded}
    for each in said.values():
        each[..., 1] = noise
    figures = action_following.score(commanded, said, np.ones((6, 5), bool), seed=0, groups=range(6))
    assert figures["counts"] == [True, False] and figures["blocks"] == 30
    assert figures["mean"]["true frames"]["value"] == pytest.approx(1)
    low, high = figures["share_of_true"]["interval"]
    assert low <= figures["share_of_true"]["value"] <= high and 0.6 < figures["share_of_true"]["value"] < 0.8


def test_actions_that_show_are_learned_from_frames():
    examples = inverse_dynamics.gather([sliding_pictures(80, seed) for seed in range(4)], most=320)
    model = inverse_dynamics.learn(examples, steps=60, seed=0)
    held_out = sliding_pictures(60, 9)
    said = model.read(held_out.blocks[None])[0]
    visible, hidden = action_following.r_squared(said, held_out.actions[:-1])
    assert visible > 0.8 and hidden < 0.2


def test_a_trained_network_is_read_from_its_file(rooms, tmp_path):
    cache = tmp_path / "reader.pt"
    first = inverse_dynamics.trained(rooms, cache, blocks=30, steps=2, seed=0)
    time = cache.stat().st_mtime_ns
    again = inverse_dynamics.trained(rooms, cache, blocks=30, steps=2, seed=0)
    assert cache.stat().st_mtime_ns == time
    blocks = next(iter(read_episodes(rooms))).blocks[None, :5]
    np.testing.assert_array_equal(first.read(blocks), again.read(blocks))
    inverse_dynamics.trained(rooms, cache, blocks=30, steps=3, seed=0)
    assert cache.stat().st_mtime_ns != time


def test_true_poses_are_the_simulators_and_walls_are_noticed():
    actions = np.tile(np.array([0.0, 0.0, 1.0, 0.3, 0.0, 0.0], np.float32), (25, 1))
    actions[:10, 2] = 0.0
    with gym.make("AstraSim/Camera-v0", max_episode_blocks=None, disable_env_checker=True) as sim:
        sim.reset(seed=3)
        poses = [sim.step(action)[4]["pose"] for action in actions]
    nothing = np.zeros(25, np.float32)
    episode = Episode(3, np.zeros((26, 4, 2, 2, 3), np.uint8), actions, nothing, nothing > 0)
    np.testing.assert_allclose(camera_pose.true_poses(episode)[1:], poses, atol=1e-12)
    followed = camera_pose.followed(episode)
    assert followed[:10].all() and not followed[10:].all()


def test_poses_are_read_from_true_frames(rooms):
    clips = choose_clips(list(read_episodes(rooms)), 4, 4, 4, 0)
    actions = np.stack([clip.future_actions for clip in clips])
    counted = np.stack([camera_pose.followed(clip.episode)[clip.now : clip.now + 4] for clip in clips])
    blocks = {"true frames": np.stack([clip.future_blocks for clip in clips])}
    errors = camera_pose.judge_poses(clips, actions, blocks, counted, seed=0)["true frames"]
    assert errors["rotation_error"]["value"] < 0.1 and errors["direction_degrees"]["value"] < 5
    faster = actions * [1, 1, 1, 1.5, 1.5, 1.5]
    others = camera_pose.judge_poses(clips, faster, blocks, counted, seed=0)["true frames"]
    assert 0.2 < others["rotation_error"]["value"] < 0.45
    counted[:] = False
    none = camera_pose.judge_poses(clips, actions, blocks, counted, seed=0)
    assert none["turns"] == none["moves"] == 0 and none["true frames"]["rotation_error"] is None


def test_actions_of_a_joint_world_are_judged_beside_all_ablations(bundle, rooms):
    episodes = list(read_episodes(rooms))
    reader = inverse_dynamics.learn(inverse_dynamics.gather(episodes, 50), steps=5, seed=0)
    figures = action_following.judge_actions(bundle, CAMERA, episodes, reader, 3, 4, 2, 0, [rooms])
    names = "true frames", "autoencoder", "dream", "action hidden", "shuffled actions", "no history noise"
    assert list(figures["r2"]) == [*names, "swapped experts"]
    assert len({str(figures["r2"][name]) for name in figures["r2"]}) == 7
    assert figures["clips"] <= 3 and set(figures["poses"]) >= {"true frames", "dream"}
    assert "| true frames |" in actions_table(figures) and "Median errors" in actions_table(figures)


def test_a_journey_is_undone_in_the_simulator(bundle, rooms, tmp_path):
    for journey in there_and_back.JOURNEYS["camera"].values():
        np.testing.assert_allclose(there_and_back.actions_of(journey).sum(0), 0, atol=1e-6)
    turn = there_and_back.JOURNEYS["camera"]["turn left 90° and back"]
    assert np.rad2deg(turn.action[3] * 0.2 * turn.blocks) == pytest.approx(90)
    clips = choose_clips(list(islice(read_episodes(rooms), 1)), 1, 4, 1, 0)
    world = World(bundle, 1, modality="camera")
    starts = [as_start(world, CAMERA, clip) for clip in clips]
    figures = there_and_back.judge_return(world, CAMERA, clips, starts, 0, tmp_path)
    for course in figures["journeys"].values():
        assert course["simulator"]["to_first"] > course["simulator"]["to_farthest"]
    turned = figures["journeys"]["turn left 90° and back"]["simulator"]
    assert turned["to_first"] > 40 and turned["closer_than_other"]["value"] > 3
    assert (tmp_path / "back_camera.png").stat().st_size > 0
    assert "90° and back, simulator" in back_table(figures)


def test_the_detector_sees_where_pushes_lead(bundle, tmp_path):
    pytest.importorskip("gymnasium_robotics")
    world = World(bundle, 2, modality="manipulation")
    pushes = pushing.prepare(world, 3, seed=100)
    assert [push.direction for push in pushes] == list(pushing.DIRECTIONS)
    for push in pushes:
        assert push.start.rows.shape == (len(push.blocks), MANIPULATION.row_dim)
    figures = pushing.judge_pushing(world, pushes, 0, tmp_path)
    assert figures["true_right_way"] == figures["simulator"]["right_way"]["value"] == 1
    assert figures["detector"]["agrees"] == 1 and figures["detector"]["error_centimetres"] < 4
    assert "| simulator | 1.00" in pushing_table(figures)
    assert (tmp_path / "pushing.png").stat().st_size > 0


def test_right_way_is_long_enough_and_within_the_angle():
    ahead = np.tile([1.0, 0.0], (4, 1))
    ways = np.array([[0.1, 0.05], [0.05, 0.1], [0.01, 0.0], [np.nan, np.nan]])
    assert pushing._right_way(ways, ahead).tolist() == [True, False, False, False]


def test_an_estimate_holds_its_mean():
    estimate = estimate_mean(np.array([0.0, 0.0, 1.0, 1.0]))
    assert estimate["value"] == 0.5 and estimate["interval"] == [0.0, 1.0]


def test_samples_of_one_group_count_as_one():
    values = np.random.default_rng(0).normal(size=12).repeat(5)
    alone, together = estimate_mean(values), estimate_mean(values, groups=np.arange(12).repeat(5).tolist())
    assert together["value"] == pytest.approx(alone["value"])
    width, wider = (high - low for low, high in (alone["interval"], together["interval"]))
    assert wider == pytest.approx(width * np.sqrt(5), rel=0.25)


def test_interval_of_a_share():
    from scipy.stats import binomtest

    for hits, count in ((0, 5), (5, 5), (23, 40)):
        found = estimate_share(np.arange(count) < hits)
        expected = binomtest(hits, count).proportion_ci(method="wilson")
        assert found["value"] == hits / count
        assert found["interval"] == pytest.approx([expected.low, expected.high])
