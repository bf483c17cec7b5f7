"""What the player is made of: smooth steering, even frames, clips."""

import imageio.v3 as iio
import numpy as np
import pytest

from astra_gym.actions import DRIVE
from astra_gym.agents.clip import ClipBuffer, clip_path, save_clip
from astra_gym.agents.keyboard import Keyboard
from astra_gym.agents.pacing import RESERVE, FramePacer


class TestKeyboard:
    def test_held_key_ramps_up_and_straightens_faster(self):
        keyboard = Keyboard(DRIVE, seconds=0.08, rise=0.32, fall=0.16)
        keyboard.press("left")
        assert [keyboard.sample()[0] for _ in range(5)] == [-0.25, -0.5, -0.75, -1.0, -1.0]
        keyboard.release("left")
        assert [keyboard.sample()[0] for _ in range(3)] == [-0.5, 0.0, 0.0]

    def test_other_side_passes_through_rest(self):
        keyboard = Keyboard(DRIVE, seconds=0.08, rise=0.32, fall=0.16)
        keyboard.action[:] = (0.7, 0, 0)
        keyboard.press("a")
        steer = [keyboard.sample()[0] for _ in range(4)]
        assert steer == pytest.approx([0.2, 0.0, -0.25, -0.5])

    def test_tap_between_two_actions_counts_once(self):
        keyboard = Keyboard(DRIVE, seconds=0.08)
        keyboard.press("up")
        keyboard.release("up")
        assert keyboard.sample()[1] == 0.25
        assert keyboard.sample()[1] == 0.0

    def test_keys_combine_and_cancel(self):
        keyboard = Keyboard(DRIVE, seconds=10.0)
        for name in ("w", "right", "q"):
            keyboard.press(name)
        np.testing.assert_array_equal(keyboard.sample(), [1, 1, 0])
        keyboard.press("left")
        np.testing.assert_array_equal(keyboard.sample(), [0, 1, 0])
        keyboard.release_all()
        np.testing.assert_array_equal(keyboard.sample(), [0, 0, 0])

    def test_brake_stops_at_what_the_key_asks_for(self):
        keyboard = Keyboard(DRIVE, seconds=0.08)
        keyboard.press("down")
        assert [keyboard.sample() for _ in range(9)][-1][2] == pytest.approx(0.8)


class TestFramePacer:
    @staticmethod
    def shown_at(pacer: FramePacer, frames: int, begin: float = 0.0) -> list[float]:
        """Poll every millisecond of a made-up clock."""
        times, now = [], begin
        while len(times) < frames:
            if pacer.due(now):
                pacer.show(now)
                times.append(now)
            now += 0.001
        return times

    def test_frames_are_even(self):
        pacer = FramePacer(fps=50, frames_per_block=4)
        pacer.computed(0.03)
        gaps = np.diff(self.shown_at(pacer, 40, begin=7.0))
        assert gaps == pytest.approx(0.02, abs=0.0015)
        assert pacer.fps == pytest.approx(50, abs=1)

    def test_slow_world_is_slow_but_even(self):
        pacer = FramePacer(fps=50, frames_per_block=4)
        for _ in range(30):
            pacer.computed(0.4)
        gaps = np.diff(self.shown_at(pacer, 12))
        assert gaps == pytest.approx(RESERVE * 0.1, abs=0.0015)

    def test_late_frame_is_not_followed_by_a_burst(self):
        pacer = FramePacer(fps=50, frames_per_block=4)
        self.shown_at(pacer, 4)
        assert np.diff(self.shown_at(pacer, 4, begin=3.0)) == pytest.approx(0.02, abs=0.0015)


class TestClip:
    def test_ring_keeps_the_newest(self):
        ring = ClipBuffer(seconds=0.1, fps=50)
        for value in range(9):
            ring.add(np.full((2, 2, 3), value, np.uint8))
        assert [frame[0, 0, 0] for frame in ring.frames] == [4, 5, 6, 7, 8]

    @pytest.mark.parametrize("size", [64, 45])
    def test_file_is_a_readable_video(self, tmp_path, size):
        frames = [np.full((size, size, 3), 20 * number, np.uint8) for number in range(10)]
        path = save_clip(frames, 50, clip_path(tmp_path / "new", "AstraSim/Drive-v0"), height=4 * size)
        video = iio.imread(path)
        assert video.shape == (10, 4 * size, 4 * size, 3)
        assert video.mean((1, 2, 3)) == pytest.approx(20 * np.arange(10), abs=6)
        assert iio.immeta(path)["fps"] == 50
        assert list(path.parent.iterdir()) == [path]

    def test_names_differ(self, tmp_path):
        paths = set()
        for _ in range(3):
            paths.add(clip_path(tmp_path, "AstraSim/Drive-v0"))
            max(paths).touch()
            for path in paths:
                path.touch()
        assert len(paths) == 3
