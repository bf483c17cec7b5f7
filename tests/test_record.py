"""Recording: videos that show every frame, contact sheets, the simulator beside the dream, Gymnasium's own recorder."""

import gymnasium as gym
import imageio.v3 as iio
import numpy as np
import pytest
from gymnasium.wrappers import RecordVideo
from PIL import Image

import astra_gym  # noqa: F401
from astra_gym.actions import DRIVE
from astra_gym.agents.canvas import contact_sheet, enlarge, panel
from astra_gym.agents.record import Film, RecordArgs, record
from astra_gym.agents.rollout import Step, make_block_env

SIMULATOR = "AstraSim/Drive-v0"
WORLD = "AstraDrive-v0"


def test_video_and_contact_sheet_of_a_simulator(tmp_path):
    args = RecordArgs(SIMULATOR, blocks=6, output=tmp_path, scale=3, moments=3, seed=7)
    video, sheet = record(args)
    assert (video.name, sheet.name) == ("AstraSim-Drive-v0-scripted-7.mp4", "AstraSim-Drive-v0-scripted-7.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == [video.name, sheet.name]
    assert iio.immeta(video)["fps"] == 50
    frames = iio.imread(video)
    assert frames.shape[0] == 4 * 7
    assert frames.shape[2] == 3 * 64
    env = make_block_env(SIMULATOR, blocks=6)
    first = np.asarray(enlarge(env.reset(seed=7)[0][0], 3)).astype(float)
    env.close()
    assert np.abs(frames[0, : 3 * 64] - first).mean() < 8  # compressed, but the same picture
    assert np.asarray(Image.open(sheet)).shape[1] > 3 * 64


def test_dream_and_simulator_side_by_side(tmp_path):
    args = RecordArgs(WORLD, agent="random", blocks=3, output=tmp_path, scale=2, side_by_side=True, episodes=2)
    files = record(args)
    assert [path.suffix for path in files] == [".mp4", ".png"] * 2
    frames = iio.imread(files[0])
    assert len(frames) == 4 * 4
    assert frames.shape[2] > 2 * 2 * 64


def test_simulator_begins_as_the_dream_does():
    """The bank stores real beginnings: a dream that begins with the simulator's block begins with the same picture."""
    from astra_gym.simulators import replay_start

    env, sim = make_block_env(WORLD, blocks=1), make_block_env(SIMULATOR, blocks=250)
    for seed in range(2):
        dreamt, _ = env.reset(seed=seed)
        true, _ = replay_start(sim, env.unwrapped.start)
        again, _ = env.reset(seed=seed, options={"video": true})
        assert np.abs(again.astype(float) - dreamt).mean() < 3
    env.close()
    sim.close()


def test_contact_sheet_can_be_left_out(tmp_path):
    args = RecordArgs(SIMULATOR, agent="random", blocks=1, output=tmp_path, scale=1, contact_sheet=False)
    assert [path.suffix for path in record(args)] == [".mp4"]


def test_scenario_of_a_world_of_several(joint_world, tmp_path):
    args = {"agent": "random", "blocks": 1, "output": tmp_path, "scale": 1, "contact_sheet": False}
    [video] = record(RecordArgs("astra_gym:AstraWorld-v0", world=str(joint_world), scenario="camera", **args))
    assert video.name == "AstraWorld-v0-camera-random-0.mp4"
    with pytest.raises(ValueError, match="^scenario: got 'camera', but AstraDrive-v0 has one"):
        record(RecordArgs(WORLD, scenario="camera", **args))


def test_a_film_that_is_over_stands_still():
    block = np.zeros((4, 8, 8, 3), np.uint8)
    film = Film("", [Step(block, None), Step(block, np.zeros(3), 1.0), Step(block, np.zeros(3), 2.0, terminated=True)])
    assert film.total == 3.0
    assert [film.at(i)[1:] for i in range(4)] == [(0.0, False), (1.0, False), (3.0, False), (3.0, True)]


def test_panel_shows_frame_and_action():
    frame = np.full((16, 16, 3), 200, np.uint8)
    still = panel([frame, frame], ["dream", "simulator"], ["a", "b"], DRIVE, None, scale=4)
    left = panel([frame, frame], ["dream", "simulator"], ["a", "b"], DRIVE, np.array([-1.0, 0.5, 0.0]), scale=4)
    assert still.shape == left.shape
    assert still.shape[0] % 2 == still.shape[1] % 2 == 0
    assert (still[24 : 24 + 64, :64] == 200).all()
    assert (still[24 + 64 :] != left[24 + 64 :]).any()
    assert panel([frame], [""], ["a"], DRIVE, None, scale=4).shape[0] < still.shape[0]


def test_contact_sheet_wraps_into_bands():
    frames = [np.full((8, 8, 3), 10 * i, np.uint8) for i in range(5)]
    one = contact_sheet([frames[:2]], [0, 5], [""], scale=2, columns=2)
    three = contact_sheet([frames], range(5), [""], scale=2, columns=2)
    pair = contact_sheet([frames, frames], range(5), ["dream", "simulator"], scale=2, columns=2)
    assert three.shape == (3 * one.shape[0], *one.shape[1:])
    assert pair.shape[0] > three.shape[0] and pair.shape[1] > three.shape[1]


@pytest.mark.parametrize("name", ["episodes", "blocks", "scale", "moments"])
def test_numbers_are_checked(name):
    with pytest.raises(ValueError, match=f"{name}: got 0"):
        RecordArgs(**{name: 0})


def test_bad_requests(tmp_path):
    with pytest.raises(ValueError, match="side_by_side: AstraSim/Drive-v0 is a simulator itself"):
        record(RecordArgs(SIMULATOR, side_by_side=True, output=tmp_path))
    with pytest.raises(ValueError, match="^world: got 'own', but AstraSim/Drive-v0 is a simulator, allowed is 'small'"):
        record(RecordArgs(SIMULATOR, world="own", output=tmp_path))
    with pytest.raises(ValueError, match="agent: got 'nobody'"):
        record(RecordArgs(SIMULATOR, agent="nobody", output=tmp_path))
    with pytest.raises(gym.error.Error):
        record(RecordArgs("NoSuchWorld-v0", output=tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("env_id", "mode"), [(SIMULATOR, "rgb_array"), (WORLD, "rgb_array"), (WORLD, "rgb_array_list")]
)
def test_gymnasiums_recorder_works_unmodified(env_id, mode, tmp_path):
    env = RecordVideo(gym.make(env_id, render_mode=mode), str(tmp_path / "videos"), name_prefix="drive")
    env.reset(seed=0)
    for _ in range(3):
        env.step(env.action_space.sample())
    env.close()
    frames = iio.imread(tmp_path / "videos" / "drive-episode-0.mp4")
    assert frames.shape[1:] == (64, 64, 3)
    assert len(frames) >= 3
