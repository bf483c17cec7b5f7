"""Many worlds stepped together: Gymnasium's contract, world for world what single environments do."""

import shutil

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers.vector import DictInfoToList, NormalizeReward, RecordEpisodeStatistics, RecordVideo

from astra_gym.actions import MODALITIES
from astra_gym.bundles import load_bundle
from astra_gym.envs import AstraVectorEnv

ID = "AstraDrive-v0"
COAST = np.array([[0.2, 0.5, 0.0], [-0.2, 0.0, 0.1]], np.float32)


def grey_levels(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def make(num_envs: int = 2, **arguments) -> AstraVectorEnv:
    return gym.make_vec(f"astra_gym:{ID}", num_envs=num_envs, **arguments)


def end_every_episode(envs: AstraVectorEnv) -> None:
    """From now on the model judges every block to end its episode."""
    envs._world.bundle.heads.termination.bias.data.fill_(1e3)


@pytest.fixture(scope="module", autouse=True)
def two_threads():
    """Batches here share their work between threads, however many the rest of the tests use."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def shared():
    """Two worlds for tests that only reset and step them."""
    envs = make(info_routing=True, render_mode="rgb_array")
    yield envs
    envs.close()


@pytest.fixture
def envs(shared) -> AstraVectorEnv:
    """The shared worlds, begun anew."""
    shared.reset(seed=0)
    return shared


@pytest.fixture(scope="module")
def singles() -> list[gym.Env]:
    return [gym.make(ID, info_routing=True, max_episode_steps=2, dtype="float32") for _ in range(2)]


# Gymnasium's contract ------------------------------------------------------------------------------------------------


def test_make_vec_makes_one_batch(shared):
    assert type(shared) is AstraVectorEnv and shared.num_envs == 2
    assert shared.scenarios == ("drive", "drive")
    assert shared.action_space == batch_space(shared.single_action_space, 2)
    assert shared.observation_space == batch_space(shared.single_observation_space, 2)
    assert shared.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert shared.metadata["render_fps"] == 12
    assert shared.spec.kwargs["max_episode_steps"] == 250
    assert str(shared) == f"AstraVectorEnv({ID}, num_envs=2)"


def test_every_id_has_a_batch():
    for name in MODALITIES:
        entry_point = gym.spec(f"Astra{name.capitalize()}-v0").vector_entry_point
        assert gym.envs.registration.load_env_creator(entry_point).args == (name,)


def test_types_of_a_step(envs):
    observations, infos = envs.reset(seed=[3, 4])
    assert envs.observation_space.contains(observations)
    actions = envs.action_space.sample()
    stepped, rewards, terminations, truncations, step_infos = envs.step(actions)
    assert envs.observation_space.contains(stepped) and (stepped != observations).any((1, 2, 3, 4)).all()
    assert [array.dtype for array in (rewards, terminations, truncations)] == [np.float64, np.bool_, np.bool_]
    assert rewards.shape == terminations.shape == truncations.shape == (2,)
    assert step_infos.keys() == infos.keys() == {"start", "_start", "routing", "_routing"}
    assert infos["start"].tolist() == [start.index for start in envs.starts]
    assert not infos["routing"].any()
    np.testing.assert_allclose(step_infos["routing"].sum(1), 1, atol=1e-4)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_batch_does_what_single_environments_do(singles, mode):
    reference = SyncVectorEnv([lambda env=env: env for env in singles], autoreset_mode=mode)
    envs = make(info_routing=True, max_episode_steps=2, autoreset_mode=mode.value, dtype="float32")
    pairs = [(envs.reset(seed=7), reference.reset(seed=7))]
    for _ in range(2):
        pairs.append((envs.step(COAST), reference.step(COAST)))
    if mode == AutoresetMode.DISABLED:
        for only in ([False, True], [True, False]):
            mask = np.array(only)
            pairs.append((envs.reset(options={"reset_mask": mask}), reference.reset(options={"reset_mask": mask})))
    pairs.append((envs.step(COAST), reference.step(COAST)))
    for i, ((observations, *outcome, infos), (expected, *expected_outcome, expected_infos)) in enumerate(pairs):
        assert grey_levels(observations, expected) <= (1 if i < 2 else 3)  # rounding may grow
        for array, expected_array in zip(outcome, expected_outcome, strict=True):
            np.testing.assert_allclose(array, expected_array, atol=0.02)
            assert array.dtype == expected_array.dtype
        assert infos.keys() == expected_infos.keys()
        compared = [(infos, expected_infos)]
        if "final_info" in infos:
            compared.append((infos["final_info"], expected_infos["final_info"]))
            np.testing.assert_array_equal(infos["_final_obs"], expected_infos["_final_obs"])
            np.testing.assert_array_equal(infos["_final_info"], expected_infos["_final_info"])
            for final, expected_final in zip(infos["final_obs"], expected_infos["final_obs"], strict=True):
                assert grey_levels(final, expected_final) <= 3
        for info, expected_info in compared:
            assert info.keys() == expected_info.keys()
            for key in ("start", "_start", "routing", "_routing"):
                np.testing.assert_allclose(info[key], expected_info[key], atol=0.02)
                assert info[key].dtype == expected_info[key].dtype


def test_model_ends_episodes_one_by_one():
    envs = make(max_episode_steps=-1, autoreset_mode=AutoresetMode.SAME_STEP)
    envs.reset(seed=0)
    end_every_episode(envs)
    observations, rewards, terminations, truncations, infos = envs.step(COAST)
    assert terminations.all() and not truncations.any() and (rewards < -50).all()
    assert infos["_final_obs"].all()
    assert all((final != block).any() for final, block in zip(infos["final_obs"], observations, strict=True))


def test_wrappers_of_gymnasium_work(tmp_path):
    envs = make(max_episode_steps=2, render_mode="rgb_array")
    statistics = RecordEpisodeStatistics(envs)
    wrapped = RecordVideo(statistics, tmp_path / "videos", episode_trigger=lambda episode: episode == 0)
    wrapped = DictInfoToList(NormalizeReward(wrapped))
    wrapped.reset(seed=0)
    for _ in range(3):
        _, _, _, truncations, infos = wrapped.step(COAST)
    assert list(statistics.length_queue) == [2, 2] and not truncations.any()
    wrapped.close()
    assert [info["start"] for info in infos] == [start.index for start in envs.starts]
    assert (tmp_path / "videos" / "rl-video-episode-0.mp4").stat().st_size > 0


# Seeds, options, snapshots -------------------------------------------------------------------------------------------


def test_same_seeds_same_bytes(envs):
    def run(seed) -> bytes:
        observations, _ = envs.reset(seed=seed)
        return observations.tobytes() + envs.step(COAST)[0].tobytes()

    assert run(5) == run([5, 6]) != run([5, 7])


def test_seed_none_goes_on(envs):
    envs.reset(seed=[1, 2])
    goes_on = envs.reset(seed=[None, 2])[1]["start"]
    envs.reset(seed=[1, 2])
    assert envs.reset()[1]["start"][0] == goes_on[0]
    assert envs.np_random_seed == (1, 2)


def test_options_are_for_all(envs):
    observations, infos = envs.reset(seed=0, options={"start": 3, "prompt": "drive"})
    assert infos["start"].tolist() == [3, 3]
    np.testing.assert_array_equal(observations[0], observations[1])
    observations, infos = envs.reset(options={"image": observations[0, -1]})
    assert infos["start"].tolist() == [-1, -1]
    np.testing.assert_array_equal(observations[0], observations[1])


def test_some_worlds_are_reset_alone(envs):
    before = envs.frames
    mask = np.array([False, True])
    options = {"reset_mask": mask, "start": 2}
    after, infos = envs.reset(seed=9, options=options)
    assert options.keys() == {"reset_mask", "start"}  # wrappers read it too
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(infos["_start"], mask)
    assert infos["start"].tolist() == [0, 2] and envs.np_random_seed == (0, 10)
    envs.step(COAST)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 10**6}, "start: got 1000000"),
        ({"places": [1, 2]}, "options: got unknown key 'places'"),
        ({"reset_mask": np.zeros(2, bool)}, "reset_mask: got"),
        ({"reset_mask": np.ones(3, bool)}, "reset_mask: got"),
        ({"reset_mask": np.ones(2)}, "reset_mask: got"),
    ],
)
def test_wrong_options_are_refused_by_name(envs, options, message):
    before, seeds = envs.frames, envs.np_random_seed
    with pytest.raises(ValueError, match=f"^{message}"):
        envs.reset(seed=7, options=options)
    np.testing.assert_array_equal(envs.frames, before)
    assert envs.np_random_seed == seeds


def test_wrong_seeds_and_actions_are_refused(envs):
    with pytest.raises(ValueError, match="^seed: got 3 seeds for 2 worlds"):
        envs.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match=r"^actions: got shape \(3,\), allowed is \(2, 3\)"):
        envs.step(COAST[0])
    with pytest.raises(ValueError, match=r"^actions: every number must be finite, those of worlds \[1\] are not"):
        envs.step(np.array([[0, 0, 0], [0, np.nan, 0]]))


def test_snapshot_goes_back_to_the_same_bytes(envs):
    envs.step(COAST)
    state = envs.get_state()
    first = envs.step(COAST)[0]
    after = envs.reset()[1]["start"]
    envs.set_state(state)
    np.testing.assert_array_equal(envs.step(COAST)[0], first)
    np.testing.assert_array_equal(envs.reset()[1]["start"], after)


# Views ---------------------------------------------------------------------------------------------------------------


def test_returned_arrays_belong_to_the_caller(envs):
    expected = [envs.reset(seed=2)[0], envs.step(COAST)[0]]
    observations, infos = envs.reset(seed=2)
    np.testing.assert_array_equal(observations, expected[0])
    for array in (observations, infos["routing"], *envs.render(), envs.frames):
        array[...] = 0
    np.testing.assert_array_equal(envs.step(COAST)[0], expected[1])


def test_without_copies_there_is_one_buffer():
    envs = make(num_envs=1, copy=False, obs_type="frame", render_mode="rgb_array_list")
    observations, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(observations)
    stepped, *_ = envs.step(COAST[:1])
    assert np.shares_memory(stepped, observations)
    [block] = envs.render()
    assert len(block) == 4
    np.testing.assert_array_equal(block[-1], stepped[0])


def test_latent_observations():
    envs, single = make(num_envs=1, obs_type="latent"), gym.make(ID, obs_type="latent")
    for (observations, *_), (observation, *_) in (
        (envs.reset(seed=0), single.reset(seed=0)),
        (envs.step(COAST[:1]), single.step(COAST[0])),
    ):
        assert envs.observation_space.contains(observations)
        np.testing.assert_allclose(observations[0], observation, atol=1e-3)
    with pytest.warns(UserWarning, match="render_mode"):
        assert envs.render() is None


# Wrong use -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, "num_envs: got 0"),
        ({"scenarios": "swim"}, "scenarios: got 'swim', allowed are"),
        ({"scenarios": []}, "scenarios: got"),
        ({"scenarios": ["drive"], "num_envs": 2}, "num_envs: got 2, but scenarios names 1"),
        ({"autoreset_mode": "Sometimes"}, "autoreset_mode: got 'Sometimes', allowed are"),
        ({"max_episode_steps": 0}, "max_episode_steps: got 0"),
        ({"render_mode": "human"}, "render_mode: got 'human'"),
        ({"obs_type": "pixels"}, "obs_type: got 'pixels'"),
        ({"num_inference_steps": 0}, "num_inference_steps: got 0"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        AstraVectorEnv(**arguments)


def test_released_weights_are_not_batched(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(ValueError, match="^world: .* released model; use .*vectorization_mode='sync'"):
        AstraVectorEnv(world=tmp_path)


def test_worlds_need_their_resets():
    envs = make(autoreset_mode=AutoresetMode.DISABLED, max_episode_steps=1, render_mode="rgb_array")
    for call in (lambda: envs.step(COAST), envs.render, envs.get_state):
        with pytest.raises(ResetNeeded, match=r"no episode has begun in worlds \[0, 1\]"):
            call()
    envs.reset(seed=0)
    envs.step(COAST)
    envs.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(ResetNeeded, match=r"worlds \[1\] have ended"):
        envs.step(COAST)


# Mixed batches -------------------------------------------------------------------------------------------------------


def check_mixed_batch(
    scenarios: list[str], world, dtype: str = "float32", most: tuple[int, int] = (1, 1), reward: float = 0.01
) -> None:
    """Each world of a mixed batch begins as in a batch of its own and does what it does there: to a grey level but for
    single pixels, which differ by ``most`` levels in the first step and in the second."""
    mixed = AstraVectorEnv(scenarios, world=world, info_routing=True, dtype=dtype)
    mixed.action_space.seed(0)
    actions = mixed.action_space.sample()
    mixed_results = [mixed.reset(seed=3), mixed.step(actions), mixed.step(actions)]
    assert grey_levels(mixed.frames[0], mixed.frames[1]) > 5
    for i, name in enumerate(scenarios):
        modality = MODALITIES[name]
        assert not actions[i, modality.action_dim :].any()
        assert modality.action_space.contains(actions[i, : modality.action_dim])
        alone = AstraVectorEnv(name, world=world, info_routing=True, dtype=dtype)
        own = actions[i : i + 1, : modality.action_dim]
        alone_results = (alone.reset(seed=3 + i), alone.step(own), alone.step(own))
        for together, single, levels in zip(mixed_results, alone_results, (0, *most), strict=True):
            difference = np.abs(together[0][i].astype(int) - single[0][0].astype(int))
            assert difference.max() <= levels
            assert (difference > 1).mean() < 5e-3
            assert together[-1]["start"][i] == single[-1]["start"][0]
            np.testing.assert_allclose(together[-1]["routing"][i], single[-1]["routing"][0], atol=1e-3)
        assert together[1][i] == pytest.approx(single[1][0], abs=reward)


def test_scenarios_share_a_batch(joint_world):
    scenarios = ["camera", "drive", "drone", "manipulation", "drive"]
    check_mixed_batch(scenarios, joint_world)
    envs = AstraVectorEnv(scenarios, world=joint_world)
    assert envs.scenarios == tuple(scenarios)
    assert envs.action_space.shape == (5, 6)
    assert all(envs.single_action_space.contains(row) for row in envs.action_space.sample())


@pytest.mark.parametrize(("dtype", "most", "reward"), [("float32", (1, 1), 0.01), ("bfloat16", (2, 3), 0.02)])
def test_shipped_scenarios_share_a_batch(dtype, most, reward):
    check_mixed_batch([*load_bundle().starts][:3] + ["drive"], "small", dtype, most, reward)


def test_each_scenario_has_its_own_time_limit(joint_world):
    envs = AstraVectorEnv(["manipulation", "drone"], world=joint_world, obs_type="latent")
    envs.reset(seed=0)
    truncated = [envs.step(np.zeros((2, 4)))[3].tolist() for _ in range(50)]
    assert truncated[:-1] == [[False, False]] * 49
    assert truncated[-1] == [True, False]


def test_a_world_that_knows_no_such_scenario(joint_world, tmp_path):
    world = shutil.copytree(joint_world, tmp_path / "world")
    (world / "starts" / "camera.safetensors").unlink()
    with pytest.raises(ValueError, match="^world: .* was not trained for 'camera'"):
        AstraVectorEnv(["drive", "camera"], world=world)
