"""The dream and the simulator as one drive, and the way there and back."""

import os

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import gymnasium as gym
import numpy as np
import pytest
import torch

from astra_gym.agents.twin import PlayError, Twin
from astra_gym.bundles import Start
from astra_gym.simulators import replay_start

DREAM = "AstraDrive-v0"
SIMULATOR = "AstraSim/Drive-v0"


@pytest.fixture(scope="module")
def dream():
    """The learned world."""
    env = gym.make(DREAM, info_routing=True, disable_env_checker=True)
    yield env
    env.close()


class TestTwoWorlds:
    """The dream, the simulator, and the way there and back."""

    GAS = np.array([0.0, 1.0, 0.0], np.float32)

    @pytest.fixture
    def twin(self, dream):
        twin = Twin(dream, seed=1)
        twin.restart()
        yield twin
        if twin._simulator is not None:
            twin._simulator.close()

    @pytest.fixture
    def truth(self, twin):
        """The simulator where the twin's episode began."""
        simulator = gym.make(SIMULATOR, disable_env_checker=True)
        replay_start(simulator, twin._start)
        yield simulator
        simulator.close()

    def test_swap_goes_on_from_the_matching_moment(self, twin, truth):
        for steer in (0.0, -0.4, 0.6):
            twin.step(self.GAS + np.array([steer, 0, 0], np.float32))
        moment = twin.swap()
        for action in twin.actions:
            block = truth.step(action)[0]
        assert moment.in_simulator and twin.in_simulator
        assert moment.message.startswith("Replayed 3 blocks")
        np.testing.assert_array_equal(moment.block, block)
        moment = twin.step(self.GAS)
        block, reward, *_ = truth.step(self.GAS)
        np.testing.assert_array_equal(moment.block, block)
        assert moment.reward == reward

    def test_back_in_the_dream_it_looks_like_the_simulator(self, twin):
        twin.swap()
        for _ in range(10):
            last = twin.step(self.GAS).block
        moment = twin.swap()
        assert not moment.in_simulator and not moment.begins
        memory = twin.env.unwrapped._world.bundle.transformer.config
        assert len(twin.env.unwrapped.start.rows) == min(8, memory.window + memory.summary_window)
        assert twin.env.unwrapped.start.rows[:, -1].all()  # every action is known
        world = twin.env.unwrapped._world
        as_good_as_it_gets = world.decode(world.encode(last))[0]
        np.testing.assert_allclose(moment.block.astype(int), as_good_as_it_gets, atol=1)
        assert twin.step(self.GAS).info["routing"].sum() == pytest.approx(1, abs=1e-3)

    def test_second_swap_replays_only_what_is_new(self, twin, truth):
        twin.step(self.GAS)
        twin.swap()
        twin.step(self.GAS)
        twin.swap()
        assert twin.swap().message.startswith("Replayed 0 blocks")
        twin.swap()
        twin.step(self.GAS)
        moment = twin.swap()
        assert moment.message.startswith("Replayed 1 blocks")
        for _ in range(3):
            block = truth.step(self.GAS)[0]
        np.testing.assert_array_equal(moment.block, block)

    def test_starts_are_shared_by_both_worlds(self, twin, truth):
        twin.swap()
        twin.step(self.GAS)
        moment = twin.restart()
        assert moment.begins and moment.in_simulator and twin.actions == []
        np.testing.assert_array_equal(moment.block, replay_start(truth, twin._start)[0])
        before = twin._start.index
        assert twin.new_start().in_simulator
        assert twin._start.index != before

    def test_picture_has_no_counterpart(self, twin):
        image = np.full((80, 80, 3), 100, np.uint8)
        twin = Twin(twin.env, options={"image": image})
        twin.restart()
        with pytest.raises(PlayError, match="no counterpart"):
            twin.swap()
        assert not twin.step(self.GAS).in_simulator
        twin.new_start()
        assert twin.swap().in_simulator

    def test_drive_that_is_over_in_the_simulator(self, twin):
        twin.swap()
        twin.swap()
        twin._simulator.unwrapped.car.hull.position = (1000.0, 0.0)
        twin.step(self.GAS)
        with pytest.raises(PlayError, match="has ended already"):
            twin.swap()
        assert not twin.in_simulator
        assert not twin.step(self.GAS).in_simulator
        assert twin.swap().message.startswith("Replayed 2 blocks")

    def test_replay_of_a_picture(self):
        with (
            gym.make(SIMULATOR, disable_env_checker=True) as simulator,
            pytest.raises(ValueError, match="^start: it came from an image"),
        ):
            replay_start(simulator, Start(torch.zeros(1, 1), torch.zeros(1, 1)))
