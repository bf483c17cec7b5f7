"""Evaluation: the measures on real simulator data and on the bundled world."""

import dataclasses
import os

import gymnasium as gym
import numpy as np
import pytest
import torch

import astra_gym  # noqa: F401
from astra_gym.actions import DRIVE

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
pytest.importorskip("Box2D")
pytest.importorskip("minari")
pytest.importorskip("skimage")

from astra_gym.bundles import Start, fingerprint, load_bundle  # noqa: E402
from astra_gym.data.episodes import read_episodes  # noqa: E402
from astra_gym.evaluation import drift_drive, heads, heldout, metrics  # noqa: E402
from astra_gym.evaluation.control import driving_clips  # noqa: E402
from astra_gym.evaluation.drift import actions_from  # noqa: E402
from astra_gym.evaluation.drift_drive import bends, bends_to_come  # noqa: E402
from astra_gym.evaluation.egomotion import displacement, speed_and_turn  # noqa: E402
from astra_gym.evaluation.rollout import Reading, Rollout, read_truth, roll  # noqa: E402
from astra_gym.evaluation.routing import routed_as  # noqa: E402
from astra_gym.evaluation.speed import measure_speed  # noqa: E402
from astra_gym.evaluation.tables import markdown  # noqa: E402
from astra_gym.simulators.car_racing import Driver, DriverSkill  # noqa: E402
from astra_gym.world import World  # noqa: E402


@pytest.fixture(scope="module")
def recorded(episodes):
    return list(read_episodes(episodes / "train"))


@pytest.fixture(scope="module")
def bundle():
    return load_bundle("small")


def test_psnr_and_squared_error_of_a_known_difference():
    truth = np.full((2, 4, 64, 64, 3), 100, np.uint8)
    error = metrics.squared_error(truth + np.uint8(10), truth)
    np.testing.assert_allclose(error, 100.0)
    np.testing.assert_allclose(metrics.psnr(error), 20 * np.log10(255 / 10))
    assert metrics.psnr(0.0) == metrics.BEST_PSNR


def test_blur_is_noticed(recorded):
    from scipy.ndimage import gaussian_filter

    blocks = recorded[0].blocks[20:22]
    blurred = gaussian_filter(blocks, (0, 0, 1.5, 1.5, 0))
    np.testing.assert_allclose(metrics.ssim(blocks, blocks), 1.0)
    assert (metrics.ssim(blurred, blocks) < 0.98).all()
    assert (metrics.gradient_magnitude(blurred) < 0.9 * metrics.gradient_magnitude(blocks)).all()
    assert (metrics.fine_detail(blurred) < 0.5 * metrics.fine_detail(blocks)).all()


def test_gradient_magnitude_of_a_ramp():
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 2, (64, 64, 3))
    assert metrics.gradient_magnitude(ramp) == pytest.approx(2.0, abs=1e-4)


def test_road_is_seen_where_it_is(recorded):
    first = recorded[0].blocks[0, -1]  # the car stands in the middle of the road
    assert metrics.on_road(first) and metrics.road_visible(first)
    assert metrics.road_mask(first)[20, 32] and not metrics.road_mask(first)[20, 2]
    grass = np.broadcast_to(np.array([100, 202, 100], np.uint8), (64, 64, 3))
    assert not metrics.on_road(grass) and not metrics.road_visible(grass)


def test_a_road_that_turns_is_a_bend():
    straight = np.full((64, 64, 3), (102, 204, 102), np.uint8)
    straight[:, 24:40] = 105
    corner = straight.copy()
    corner[:24, :24] = (102, 204, 102)
    corner[:16, 24:40] = (102, 204, 102)
    corner[16:32, 24:] = 105
    assert bends(straight[None]) == 0.0 and bends(corner[None]) == 1.0 and bends(np.stack([straight, corner])) == 0.5
    assert bends_to_come(np.stack([straight] * 3 + [corner] * 6)[None]) == 1.0
    assert (
        bends_to_come(np.stack([straight] * 12)[None]) == 0.0 and bends_to_come(np.stack([corner] * 12)[None]) is None
    )


def test_motion_from_frames_agrees_with_the_simulator():
    env = gym.make("AstraSim/Drive-v0")
    env.reset(seed=5)
    driver = Driver(env, DriverSkill(speed=45, noise=0.4), seed=5)
    true, seen = [], []
    for block in range(40):
        frames, *_ = env.step(driver())
        hull = env.unwrapped.car.hull
        if block >= 4:
            true.append([hull.linearVelocity.dot(hull.GetWorldVector((0, 1))), np.rad2deg(hull.angularVelocity)])
            seen.append(speed_and_turn(frames))
    speed, turn = np.corrcoef(np.array(true).T, np.array(seen).T)[[0, 1], [2, 3]]
    assert speed > 0.9 and turn > 0.9


def test_no_motion_between_equal_frames(recorded):
    frame = recorded[0].blocks[10, 0]
    np.testing.assert_allclose(displacement(frame, frame), 0.0, atol=1e-6)


def test_clips_move_their_futures_do_not_overlap_and_they_are_the_same_again(recorded):
    clips = heldout.choose_clips(recorded, count=5, context=4, future=3, seed=0)
    again = heldout.choose_clips(recorded, count=5, context=4, future=3, seed=0)
    assert [(c.episode.seed, c.first) for c in clips] == [(c.episode.seed, c.first) for c in again]
    for clip in clips:
        assert len(clip.context_blocks) == 4 and len(clip.future_blocks) == len(clip.future_actions) == 3
        assert (heldout.motion(clip.episode)[clip.first - 1 : clip.now + 3] > 0.5).mean() >= 0.9
    for a, b in zip(clips, clips[1:], strict=False):
        assert a.episode is not b.episode or abs(a.first - b.first) >= 3
    most = heldout.choose_clips(recorded, count=1000, context=4, future=3, seed=0)
    assert 5 <= len(most) <= 3 * 7
    with pytest.raises(ValueError, match="data: no held-out episode has 1003 blocks"):
        heldout.choose_clips(recorded, count=5, context=1000, future=3, seed=0)


def test_no_clip_ends_its_episode(recorded):
    ended = dataclasses.replace(recorded[0], terminations=np.eye(24, dtype=bool)[-1])
    clips = heldout.choose_clips([ended], count=100, context=2, future=1, seed=0)
    assert max(clip.now + clip.future for clip in clips) == 23


def test_drift_goes_on_with_the_actions_of_the_episodes_that_follow(recorded):
    clip = heldout.opening_clips(recorded[1:], 1, context=4)[0]
    assert clip.first == 1 and clip.now == 4
    wanted = np.concatenate([recorded[i].actions for i in (1, 2, 0)])[4:64]
    np.testing.assert_array_equal(actions_from(clip, recorded, 60), wanted)


def test_ending_clips_end_with_the_episode(recorded):
    ended = dataclasses.replace(recorded[0], terminations=np.eye(24, dtype=bool)[-1])
    clips = heldout.ending_clips([ended, recorded[1]], context=4)
    assert [clip.future for clip in clips] == [1, 2, 4, 8, 16]
    for clip in clips:
        np.testing.assert_array_equal(clip.future_blocks[-1], ended.blocks[-1])
    rows = heads.ending_rows(clips, DRIVE.rows)
    assert rows.shape == (5, 16 + heads.NEAR, 4)
    np.testing.assert_array_equal(rows[3, 7:], DRIVE.rows(ended.actions[-1])[None].repeat(11, 0))


def test_termination_counts_hits_and_false_alarms(recorded):
    clips = [heldout.Clip(episode, 1, 4, 8) for episode in (*recorded[:2], recorded[0])]
    terminated = np.zeros((3, 10), bool)
    terminated[0, 7] = terminated[1, 2] = True  # a hit, a false alarm, a miss
    ending = Rollout(np.zeros(0), np.zeros(0), terminated)
    going_on = Rollout(np.zeros(0), np.zeros(0), np.array([[False, True], [False, False]]))
    figures = heads.dreamt_termination(ending, clips, going_on, [clips[0], clips[1]])
    assert figures["precision"] == pytest.approx(1 / 3) and figures["recall"] == pytest.approx(1 / 3)
    assert figures["f1"] == pytest.approx(1 / 3)
    low, high = figures["f1_interval"]
    assert low == 0.0 < figures["f1"] < high <= 1.0
    assert figures["endings"] == 3 and figures["ended_episodes"] == 2
    seen = heads.judge_termination([np.ones(1, bool)] * 3, [0] * 3)
    assert seen["f1"] == 1 and seen["f1_interval"] == [None, None]  # three ends do not show that none is missed
    nothing = heads.judge_termination([np.zeros(3, bool)], [None])
    assert nothing["f1"] is None and nothing["f1_interval"] == [None, None] and nothing["endings"] == 0
    assert figures["recall_by_blocks_before_end"] == {"8": pytest.approx(1 / 3)}


def test_reward_is_judged_where_no_end_is_or_is_said_to_be():
    truth = np.arange(18, dtype=np.float32) % 5
    reading = Reading(np.append(2 * truth + 1, -100.0), np.zeros(19, bool))
    figures = heads.judge_reward([reading], [truth])
    assert figures["correlation_per_block"] == pytest.approx(1) and figures["blocks"] == 18
    assert figures["correlation_of_sums"] == pytest.approx(1) and figures["summed_blocks"] == 8
    reading.terminated[3], reading.rewards[3] = True, -100.0
    figures = heads.judge_reward([reading], [truth])
    assert figures["correlation_per_block"] == pytest.approx(1) and figures["blocks"] == 17


def test_observed_blocks_are_history_like_those_of_a_start(recorded):
    bundle = load_bundle(dtype="float32")  # bfloat16 rounds differently in one pass and in many
    clip = heldout.opening_clips(recorded, 1, context=5)[0]
    start = heldout.as_start(World(bundle), DRIVE, clip)
    together, one_by_one = World(bundle), World(bundle)
    together.reset([start], [7])
    one_by_one.reset([Start(start.latents[:1], start.rows[:1])], [7])
    for latents, row in zip(start.latents[1:], start.rows[1:], strict=True):
        one_by_one.observe(latents[None], row[None].numpy())
    row = DRIVE.rows(clip.episode.actions[clip.now])[None]
    frames = [world.step(row).frames.astype(int) for world in (together, one_by_one)]
    assert np.abs(frames[0] - frames[1]).max() <= 1
    with pytest.raises(RuntimeError, match="observe: reset worlds"):
        World(bundle).observe(start.latents[:1], row)


def test_heads_are_read_from_episodes_of_any_length(recorded):
    bundle = load_bundle("small", dtype="float32")
    shorter = dataclasses.replace(recorded[1], blocks=recorded[1].blocks[:7], actions=recorded[1].actions[:6])
    readings = read_truth(World(bundle, 2), DRIVE, [recorded[0], shorter, recorded[2]], seed=0)
    assert [len(reading.rewards) for reading in readings] == [24, 6, 24]
    alone = read_truth(World(bundle, 1), DRIVE, [shorter], seed=1)
    np.testing.assert_allclose(readings[1].rewards, alone[0].rewards, atol=1e-5)


def test_actions_can_be_sent_through_chosen_experts(bundle):
    encoder = bundle.transformer.action_encoder
    rows = torch.from_numpy(DRIVE.rows(np.array([[0.5, 0.2, 0.0], [-1.0, 0.0, 1.0]]))).to(bundle.transformer.dtype)
    own = encoder(rows, "drive")
    with routed_as(encoder, torch.eye(encoder.num_experts)[1]):
        swapped = encoder(rows, "drive")
    np.testing.assert_array_equal(swapped.weights.float(), torch.eye(encoder.num_experts)[[1, 1]])
    torch.testing.assert_close(swapped.code, own.code, atol=0, rtol=0)
    torch.testing.assert_close(encoder(rows, "drive").weights, own.weights, atol=0, rtol=0)


def test_driving_clips_are_on_the_road(recorded):
    clips = driving_clips(recorded, count=2, context=4)
    for clip in clips:
        assert metrics.on_road(clip.context_blocks[-1, -1])
    with pytest.raises(ValueError, match="data: no episode"):
        driving_clips([], count=2, context=4)


def test_roll_in_batches_follows_the_starts(bundle, recorded):
    world = World(bundle, num_worlds=2)
    clips = heldout.choose_clips(recorded, count=3, context=4, future=2, seed=0)
    starts = [heldout.as_start(world, DRIVE, clip) for clip in clips]
    rows = DRIVE.rows(np.stack([clip.future_actions for clip in clips]))
    together = roll(world, starts, rows, seed=3, label="test")
    assert together.blocks.shape == (3, 2, 4, 64, 64, 3) and together.rewards.shape == together.terminated.shape == (
        3,
        2,
    )
    last = roll(world, starts[2:], rows[2:], seed=5, label="test")
    np.testing.assert_array_equal(together.blocks[2], last.blocks[0])


def test_the_same_weights_have_one_fingerprint_whatever_they_compute_in():
    assert fingerprint(load_bundle(dtype="float32")) == fingerprint(load_bundle(dtype="bfloat16"))


@pytest.mark.parametrize(
    "change",
    [
        {"temperatures": {"drive": 0.25}},
        {"num_inference_steps": 3},
        {"scenario_inference_steps": {"drive": 3}},
        {"guidance_scale": 1.5},
        {"termination_rewards": {"drive": -7.0}},
    ],
)
def test_a_world_that_dreams_otherwise_has_another_fingerprint(bundle, change):
    other = dataclasses.replace(bundle, config=dataclasses.replace(bundle.config, **change))
    assert fingerprint(other) != fingerprint(bundle)


def test_dream_and_simulator_are_compared_from_the_same_starts(recorded, tmp_path, monkeypatch):
    seen = np.stack([episode.blocks[1:9, -1] for episode in recorded[:1]])  # one world, 8 blocks
    grass = np.broadcast_to(np.array([100, 202, 100], np.uint8), seen.shape)
    driven = drift_drive.Driven(seen.repeat(drift_drive.SIMULATORS, 0), [5.0])
    dreamt = drift_drive.Driven(np.concatenate([driven.frames, grass.repeat(6, 0)]), [5.0])
    monkeypatch.setattr(drift_drive, "dream", lambda *_: (dreamt, np.zeros((10, 8), bool)))
    monkeypatch.setattr(drift_drive, "drive_simulator", lambda *_: driven)
    starts = [Start(torch.zeros(1), torch.zeros(1))] * 10
    world = World(load_bundle("small"))
    figures = drift_drive.judge_drive_drift(world, starts, recorded, (8,), "scripted", 0, tmp_path)
    assert figures["ratio_to_simulator"] == [1.0] and figures["paired_worlds"] == drift_drive.SIMULATORS
    assert figures["dream_on_road"] == figures["simulator_on_road"] == 1.0
    assert figures["worlds"] == 10 and figures["dream"]["on_road"] == [pytest.approx(0.4)]
    assert "same agent from 4 of the starts" in markdown({"scenarios": {"drive": {"drift": figures}}})


def test_speed_is_measured_in_a_process_of_its_own():
    figures = measure_speed("small", steps=4)
    assert figures["environment"]["frames_per_second"] > 0 and figures["environment"]["first_step_seconds"] > 0
    assert set(figures["world"]["frames_per_second_by_worlds"]) == {"1", "8", "32"}
    assert "| Drive, the world |" in markdown({"speed": figures})
