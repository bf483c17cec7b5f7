"""Worlds of scenarios beyond the four: what is stored of them, their environment, and their ground truth."""

import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from astra_gym.actions import DRIVE
from astra_gym.agents.policies import make_agent
from astra_gym.bundles import Bundle, Start, StartBank, WorldConfig, load_bundle, scenarios_of
from astra_gym.envs import AstraVectorEnv
from astra_gym.models.autoencoder import BlockAutoencoder
from astra_gym.models.heads import RewardHeads
from astra_gym.models.transformer import AstraTransformer
from astra_gym.scenarios import Scenario, check_name, in_order
from astra_gym.simulators.own import is_simulator, make_simulator
from astra_gym.training.arguments import chosen_scenarios
from astra_gym.training.train import make_start_bank

ARM = Scenario("Arm-v0", low=(0.0, -2.0), high=(1.0, 6.0), fps=20)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A small random world of Drive and of a scenario of its own."""
    torch.manual_seed(0)
    modalities = {"drive": DRIVE, "arm-2": ARM.modality("arm-2")}
    sizes = {"in_channels": 4, "num_attention_heads": 2, "attention_head_dim": 24, "num_layers": 1, "ffn_dim": 32}
    transformer = AstraTransformer(
        modalities={name: modality.row_dim for name, modality in modalities.items()}, scenario_prompt=True, **sizes
    )
    starts = {
        name: [Start(torch.randn(2, 4, 8, 8), torch.randn(2, each.row_dim), 0, np.zeros((0, each.action_dim)))] * 3
        for name, each in modalities.items()
    }
    bundle = Bundle(
        WorldConfig(num_inference_steps=1, own_scenarios={"arm-2": ARM}),
        transformer,
        BlockAutoencoder(latent_channels=4, encoder_channels=(8, 8), decoder_channels=(8, 8, 8)),
        RewardHeads(96, transformer.config.action_dim, 16, dict.fromkeys(modalities, (0.0, 1.0))),
        {name: StartBank.from_starts(some) for name, some in starts.items()},
    )
    folder = tmp_path_factory.mktemp("world") / "two"
    bundle.save(folder)
    return folder


def test_a_modality_follows_from_bounds():
    modality = ARM.modality("arm")
    bounds = np.array([ARM.low, ARM.high], np.float32)
    np.testing.assert_allclose(modality.rows(bounds), [[-1, -1, 1], [1, 1, 1]])
    np.testing.assert_allclose(modality.actions(modality.rows(bounds)), bounds)
    assert modality.fps == 20 and len(modality.labels) == 2
    assert modality.from_keys({"right", "s"}).tolist() == [1.0, -2.0]
    assert modality.from_keys(set()).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Discrete(3),
        gym.spaces.Box(-np.inf, np.inf, (2,)),
        gym.spaces.Box(-1, 1, (2, 2)),
        gym.spaces.Box(0, 255, (2,), np.uint8),
        gym.spaces.Box(np.array([0, 1], np.float32), np.array([1, 1], np.float32)),
    ],
    ids=str,
)
def test_actions_that_no_world_learns_are_refused(space):
    with pytest.raises(ValueError, match="env: Odd-v0 has the action space"):
        Scenario.of("Odd-v0", space)


def test_names():
    assert in_order(["zebra", "drone", "arm", "drive"]) == ["drive", "drone", "arm", "zebra"]
    for name in ("a.b", "2d", "all", ""):
        with pytest.raises(ValueError, match="scenarios: got"):
            check_name(name)


def test_a_bundle_says_what_its_own_scenarios_are(world):
    bundle = load_bundle(world)
    assert bundle.scenarios == scenarios_of(world) == ["drive", "arm-2"]
    assert bundle.config.own_scenarios == {"arm-2": ARM}
    assert bundle.config.modality("arm-2") == ARM.modality("arm-2")
    assert bundle.config.modality("drive") is DRIVE
    assert [bundle.config.simulator_id(name) for name in bundle.scenarios] == ["AstraSim/Drive-v0", "Arm-v0"]
    with pytest.raises(ValueError, match="scenario: got 'boat', allowed are"):
        bundle.config.modality("boat")


def test_a_damaged_description_is_named(world, tmp_path):
    stored = (world / "world.json").read_text()
    (tmp_path / "world.json").write_text(stored.replace('"fps"', '"speed"'))
    with pytest.raises(ValueError, match="world.json has a wrong or missing key"):
        WorldConfig.load(tmp_path)


def test_its_environment(world):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*recommend using a symmetric and normalized space")
        env = gym.make("AstraWorld-v0", world=world, scenario="arm-2")
        check_env(env.unwrapped)
    assert env.action_space == ARM.modality("arm-2").action_space
    assert env.unwrapped.simulator_id == "Arm-v0"
    env.reset(seed=0, options={"prompt": "arm-2"})
    with pytest.raises(ValueError, match="'scripted' can act in drive"):
        make_agent("scripted", env)
    assert make_agent("random", env).act(np.zeros((4, 64, 64, 3), np.uint8)) in env.action_space


def test_known_scenarios_are_the_same_in_it(world):
    general = gym.make("AstraWorld-v0", world=world, scenario="drive")
    drive = gym.make("AstraDrive-v0", world=world)
    for env in (general, drive):
        env.reset(seed=1)
    action = np.array([0.3, 1.0, 0.0], np.float32)
    np.testing.assert_array_equal(general.step(action)[0], drive.step(action)[0])


def test_what_is_unclear_is_asked_for(world, tmp_path):
    for make in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=r"scenario: got None, the world .* has \['drive', 'arm-2'\]"):
            make("AstraWorld-v0", world=world)
        with pytest.raises(ValueError, match="scenario: got 'boat'"):
            make("AstraWorld-v0", world=world, scenario="boat")
        with pytest.raises(FileNotFoundError, match="world: "):
            make("AstraWorld-v0", world=tmp_path)


def test_many_at_once_also_beside_others(world):
    envs = gym.make_vec("AstraWorld-v0", num_envs=2, world=world, scenario="arm-2", max_episode_steps=2)
    envs.reset(seed=0)
    envs.action_space.seed(0)
    truncations = [envs.step(envs.action_space.sample())[3].tolist() for _ in range(2)]
    assert truncations == [[False, False], [True, True]]
    mixed = AstraVectorEnv(["drive", "arm-2"], world=world)
    mixed.reset(seed=0)
    assert mixed.step(mixed.action_space.sample())[0].shape == (2, 4, 64, 64, 3)
    with pytest.raises(ValueError, match=r"scenarios: got 'boat', allowed are \['drive', .* 'arm-2'\]"):
        AstraVectorEnv("boat", world=world)


def test_any_environment_is_a_ground_truth():
    assert is_simulator("Pendulum-v1") and is_simulator("AstraSim/Drive-v0")
    assert not is_simulator("AstraWorld-v0") and not is_simulator("astra_gym:AstraDrive-v0")
    sim = make_simulator("Pendulum-v1", max_episode_blocks=2)
    first, _ = sim.reset(seed=0)
    assert first.shape == (4, 64, 64, 3) and sim.action_space.dtype == np.float32
    ends = [sim.step(np.array([9.0], np.float32))[3] for _ in range(2)]
    assert ends == [False, True]
    unlimited = make_simulator("Pendulum-v1")
    again, _ = unlimited.reset(seed=0)
    np.testing.assert_array_equal(first, again)
    assert not any(unlimited.step(np.zeros(1, np.float32))[3] for _ in range(51))
    with pytest.raises(ValueError, match="CartPole-v1 has the action space Discrete"):
        make_simulator("CartPole-v1")
    with pytest.raises(gym.error.Error):
        make_simulator("Nowhere-v0")


def test_scenarios_to_train_are_folders_of_data(episodes, tmp_path):
    (tmp_path / "bumper").symlink_to(episodes)
    assert chosen_scenarios(("bumper", "drone"), tmp_path) == ["drone", "bumper"]
    with pytest.raises(ValueError, match=r"scenarios: got \['boat'\], allowed are .*'bumper'"):
        chosen_scenarios(("boat",), tmp_path)


def test_rewards_that_never_change_still_give_starts(episodes):
    from astra_gym.data.episodes import latent_episodes
    from astra_gym.training.train import _reward_scale

    data = latent_episodes(episodes / "val", BlockAutoencoder(latent_channels=4).eval())
    data.rewards.fill_(0.1)
    assert len(make_start_bank(data, DRIVE, 5, 8)) == 5
    assert _reward_scale(data)[1] > 0
