"""What the world is unsure of: measured without changing the dream, and taken off the reward."""

import numpy as np
import pytest
import torch

from astra_gym.actions import DRIVE
from astra_gym.agents.disagreement import DisagreementPenalty
from astra_gym.agents.vec_env import AstraVecEnv
from astra_gym.bundles import load_bundle
from astra_gym.envs import AstraVectorEnv
from astra_gym.world import World

ACTIONS = np.array([[0.3, 0.5, 0.0], [-0.3, 0.0, 0.2]], np.float32)


@pytest.fixture(scope="module")
def world() -> World:
    return World(load_bundle(), 2)


def begin(world: World, seeds: list[int]) -> None:
    world.reset([world.bundle.starts["drive"][i] for i in range(2)], seeds)


def test_spread_is_that_of_steps_with_other_noise_and_changes_nothing(world):
    rows = DRIVE.rows(ACTIONS)
    begin(world, [3, 4])
    state = world.state()
    step = world.step(rows, draws=3)
    assert step.spread.shape == (2,) and step.spread.dtype == np.float32 and (step.spread > 0).all()
    after = world.state()
    world.load_state(state)
    plain = world.step(rows)
    assert plain.spread is None and plain.frames.tobytes() == step.frames.tobytes()
    for one, other in zip(after["generators"], world.state()["generators"], strict=True):
        assert torch.equal(one, other)

    # The same by hand: three steps from one state, with the noise that follows.
    generators = [torch.Generator(), torch.Generator()]
    for generator, saved in zip(generators, state["generators"], strict=True):
        generator.set_state(saved)
    latents = []
    for _ in range(3):
        world.load_state({**state, "generators": [generator.get_state() for generator in generators]})
        latents.append(world.step(rows).latents.numpy())
        for generator in generators:  # what the prior draws with: a component, and a number for each channel
            torch.rand((), generator=generator)
            torch.randn(latents[0].shape[1], generator=generator)
    expected = np.sqrt(np.stack(latents).var(0, ddof=1).mean((1, 2, 3)))
    assert step.spread == pytest.approx(expected, rel=0.01)


def make(info_spread: int = 2, **arguments) -> AstraVectorEnv:
    return AstraVectorEnv("drive", 2, autoreset_mode="SameStep", info_spread=info_spread, **arguments)


def test_reward_is_lowered_by_the_spread():
    plain, told = AstraVecEnv(make(0)), make(max_episode_steps=2)
    penalised = DisagreementPenalty(AstraVecEnv(told), 2.5)
    controls = np.array([[0.3, 0.5], [-0.3, -0.2]])
    for venv in (plain, penalised):
        venv.seed(5)
    assert np.array_equal(plain.reset(), penalised.reset())
    for last in (False, True):
        expected = plain.step(controls)
        observations, rewards, dones, infos = penalised.step(controls)
        spread = np.array([info["spread"] for info in infos])
        assert (spread > 0).all() and dones.all() == last  # also in the step that ends the episode
        assert rewards == pytest.approx(expected[1] - 2.5 * spread, abs=1e-4)
        if not last:
            assert np.array_equal(observations, expected[0])
    assert not any(info["spread"] for info in penalised.unwrapped.reset_infos)
    assert "spread" not in expected[3][0]


@pytest.mark.parametrize("penalty", [-1.0, float("nan"), float("inf")])
def test_bad_penalty(penalty):
    with pytest.raises(ValueError, match="^disagreement_penalty: got"):
        DisagreementPenalty(AstraVecEnv(make()), penalty)


@pytest.mark.parametrize("draws", [1, -2])
def test_bad_number_of_draws(draws):
    with pytest.raises(ValueError, match="^info_spread: got"):
        make(draws)
