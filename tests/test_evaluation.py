"""Evaluation: the measures on real simulator data, and the whole of it on the bundled world."""

import dataclasses
import json
import os

import gymnasium as gym
import numpy as np
import pytest

import astra_gym  # noqa: F401
from astra_gym.actions import DRIVE

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
pytest.importorskip("Box2D")
pytest.importorskip("minari")
pytest.importorskip("skimage")

from astra_gym.data.episodes import read_episodes  # noqa: E402
from astra_gym.evaluation import heads, heldout, metrics, report  # noqa: E402
from astra_gym.evaluation.control import driving_clips  # noqa: E402
from astra_gym.evaluation.egomotion import displacement, speed_and_turn  # noqa: E402
from astra_gym.evaluation.evaluate import EvaluateArgs, evaluate  # noqa: E402
from astra_gym.evaluation.rollout import Rollout, roll  # noqa: E402
from astra_gym.evaluation.speed import measure_speed  # noqa: E402
from astra_gym.simulators.car_racing import Driver, DriverSkill  # noqa: E402


@pytest.fixture(scope="module")
def dataset(episodes):
    return episodes / "train"


@pytest.fixture(scope="module")
def recorded(dataset):
    return list(read_episodes(dataset))


@pytest.fixture(scope="module")
def bundle():
    from astra_gym.bundles import load_bundle

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


def test_clips_move_do_not_overlap_and_are_the_same_again(recorded):
    clips = heldout.choose_clips(recorded, count=5, context=4, future=3, seed=0)
    again = heldout.choose_clips(recorded, count=5, context=4, future=3, seed=0)
    assert [(c.episode.seed, c.first) for c in clips] == [(c.episode.seed, c.first) for c in again]
    for clip in clips:
        assert len(clip.context_blocks) == 4 and len(clip.future_blocks) == len(clip.future_actions) == 3
        assert (heldout.motion(clip.episode)[clip.first - 1 : clip.now + 3] > 0.5).all()
    for a, b in zip(clips, clips[1:], strict=False):
        assert a.episode is not b.episode or abs(a.first - b.first) >= 7
    with pytest.raises(ValueError, match="clips: got 1000"):
        heldout.choose_clips(recorded, count=1000, context=4, future=3, seed=0)


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
    clips = [heldout.Clip(recorded[0], 1, 4, 8) for _ in range(3)]
    terminated = np.zeros((3, 10), bool)
    terminated[0, 7] = terminated[1, 2] = True  # a hit, a false alarm, a miss
    ending = Rollout(np.zeros(0), np.zeros(0), terminated)
    going_on = Rollout(np.zeros(0), np.zeros(0), np.array([[False, True], [False, False]]))
    figures = heads.judge_termination(ending, clips, going_on)
    assert figures["precision"] == pytest.approx(1 / 3) and figures["recall"] == pytest.approx(1 / 3)
    assert figures["recall_by_blocks_before_end"] == {"8": pytest.approx(1 / 3)}


def test_driving_clips_are_on_the_road(recorded):
    clips = driving_clips(recorded, count=2, context=4)
    for clip in clips:
        assert metrics.on_road(clip.context_blocks[-1, -1])
    with pytest.raises(ValueError, match="data: no episode"):
        driving_clips([], count=2, context=4)


def test_roll_in_batches_follows_the_starts(bundle, recorded):
    from astra_gym.world import World

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


def test_evaluate_measures_writes_and_repeats(dataset, tmp_path):
    args = EvaluateArgs(
        data=dataset, clips=3, batch=3, context=4, horizons=(1, 2), steps=(1,), drift_blocks=(1, 2), drift_worlds=1,
        control_starts=1, parts=("fidelity", "control", "drift"), output=tmp_path / "a",
    )  # fmt: skip
    figures = evaluate(args)
    again = evaluate(dataclasses.replace(args, output=tmp_path / "b"))
    assert json.dumps(figures) == json.dumps(again)
    psnr = figures["fidelity"]["psnr"]
    assert set(psnr) == {"world, 1 step", "world, 2 steps", "copy last", "shuffled actions", "autoencoder"}
    assert all(len(values) == 2 for values in psnr.values())
    for name in ("figures.json", "report.md", "fidelity.png", "control.png", "drift.png"):
        assert (tmp_path / "a" / name).stat().st_size > 0
    assert "| blocks ahead | 1 | 2 |" in str(figures)


def test_speed_is_measured_in_a_process_of_its_own():
    figures = measure_speed("small", steps=4)
    assert figures["environment"]["frames_per_second"] > 0 and figures["environment"]["first_step_seconds"] > 0
    assert set(figures["world"]["frames_per_second_by_worlds"]) == {"1", "8", "32"}
    assert "| `AstraDrive-v0` |" in report.markdown({"speed": figures})


@pytest.mark.parametrize("change", [{"horizons": (4, 2)}, {"clips": 0}, {"steps": ()}, {"drift_blocks": (0, 1)}])
def test_wrong_arguments_are_named(change, tmp_path):
    with pytest.raises(ValueError, match=f"^{next(iter(change))}: got"):
        evaluate(EvaluateArgs(output=tmp_path, **change))


def test_missing_data_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="data"):
        evaluate(EvaluateArgs(data=tmp_path / "none", output=tmp_path, parts=("fidelity",)))


def test_tables_go_between_the_markers(tmp_path):
    document = tmp_path / "README.md"
    document.write_text("before\n<!-- figures -->\nold \\1\n<!-- /figures -->\nafter\n")
    assert report.between_markers(document, "| new \\g<0> |") == (
        "before\n<!-- figures -->\n| new \\g<0> |\n<!-- /figures -->\nafter\n"
    )
    document.write_text("no place")
    with pytest.raises(ValueError, match="write_docs"):
        report.between_markers(document, "")


def test_bars_tell_what_is_met():
    fidelity = {
        "horizons": [1, 4, 8],
        "clips": 2,
        "default": "world, 2 steps",
        "psnr": {
            "world, 2 steps": [33.0, 30.0, 27.0],
            "copy last": [25.0, 20.0, 18.0],
            "shuffled actions": [30.0, 24.0, 23.0],
            "autoencoder": [34.0, 34.0, 34.0],
        },
    }
    met = {bar.name: bar.met for bar in report.bars({"fidelity": fidelity})}
    assert met["autoencoder, dB"] and met["below the ceiling after 1 block, dB"]
    assert met["above copy last after 4 blocks, dB"] and met["above shuffled actions after 4 blocks, dB"]
    assert not met["above shuffled actions after 8 blocks, dB"]
