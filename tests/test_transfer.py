"""Transfer: scores by hand, the policy that training began with, agents of both worlds judged, the gap, fresh data."""

import json

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO

from astra_gym.agents.learned import shipped_agent
from astra_gym.agents.planner import PlannerConfig
from astra_gym.agents.rollout import make_block_env
from astra_gym.agents.sb3 import wrap_for_sb3
from astra_gym.bundles import fingerprint, load_bundle
from astra_gym.cli import main
from astra_gym.data.collect import CollectArgs, collect
from astra_gym.data.episodes import read_episodes
from astra_gym.data.join import JoinArgs, join
from astra_gym.data.storage import open_storage
from astra_gym.evaluation.ledger import Ledger, digest, policy_key
from astra_gym.evaluation.transfer import checkpoints, scores, untrained
from astra_gym.evaluation.truth import Episode, simulator_id, true_returns
from astra_gym.processes import worker_pool

SIMULATOR = "AstraSim/Drive-v0"


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    """Folder with policy.zip, which has learned from 8 blocks, its checkpoint policy_4.zip, and first.zip, from 0."""
    folder = tmp_path_factory.mktemp("agent")
    env = wrap_for_sb3(make_block_env(SIMULATOR, 4), 0.1)
    model = PPO("CnnPolicy", env, seed=3, n_steps=4, batch_size=4, n_epochs=1, policy_kwargs={"log_std_init": -0.5})
    model.save(folder / "first.zip")
    for steps in (4, 8):
        model.learn(4, reset_num_timesteps=False)
        model.save(folder / f"policy_{steps}.zip")
    (folder / "policy_8.zip").rename(folder / "policy.zip")
    env.close()
    return folder


def test_scores_by_hand():
    returns = {"random": [0, 2, 4], "dream": [6, 6, 6], "true": [7, 7, 7], "expert": [12, 12, 12]}
    figures = scores({name: np.array(values, float) for name, values in returns.items()}, resamples=200)
    values = {name: judged["score"]["value"] for name, judged in figures["agents"].items()}
    assert values == pytest.approx({"random": 0, "dream": 0.4, "true": 0.5, "expert": 1})
    assert figures["share_of_true"]["value"] == pytest.approx(0.8)
    assert figures["agents"]["random"]["score"]["interval"] == [0, 0]
    low, high = figures["agents"]["dream"]["score"]["interval"]
    assert low < 0.4 < high  # the scale is uncertain, since random's return is
    above = {name: judged["above_random"] for name, judged in figures["agents"].items()}
    assert above == {"random": False, "dream": True, "true": True, "expert": True}


def test_no_score_where_the_expert_is_no_better_than_random():
    returns = {"random": np.array([2.0, 2.0]), "dream": np.array([3.0, 3.0]), "expert": np.array([1.0, 1.0])}
    figures = scores(returns, resamples=10)
    assert figures["agents"]["dream"]["score"] == {"value": None, "interval": [None, None]}
    assert "share_of_true" not in figures


def test_untrained_policy_is_the_one_that_training_began_with(policies, tmp_path):
    again = PPO.load(untrained(policies / "policy.zip", tmp_path))
    first, trained = PPO.load(policies / "first.zip"), PPO.load(policies / "policy.zip")
    ours, before, after = (model.policy.state_dict() for model in (again, first, trained))
    assert again.num_timesteps == 0
    assert all(np.array_equal(ours[name], value) for name, value in before.items())
    assert any(not np.array_equal(ours[name], value) for name, value in after.items())


def test_checkpoints(policies):
    assert checkpoints(policies / "policy.zip") == {4: policies / "policy_4.zip"}


@pytest.mark.parametrize("scenario", ["drive", "manipulation", "drone", "camera"])
def test_experts_act_in_their_simulators(scenario):
    from astra_gym.evaluation.truth import make_policy

    with gym.make(simulator_id(scenario), disable_env_checker=True) as env:
        block, _ = env.reset(seed=0)
        expert = make_policy("expert", env)
        expert.reset(0)
        assert env.action_space.contains(expert.act(block).astype(np.float32))


def test_true_returns():
    nothing = np.zeros((0, 3), np.float32)
    gas = np.tile(np.array([0, 1, 0], np.float32), (3, 1))
    with worker_pool(1) as pool:
        earned = true_returns(pool, "drive", "constant:0,0,0", [Episode(5, nothing), Episode(5, gas)], 2)
        with pytest.raises(ValueError, match="seed 5"):
            true_returns(pool, "drive", "random", [Episode(5, nothing, np.zeros((4, 64, 64, 3), np.uint8))], 2)
    with make_block_env(SIMULATOR, 5) as env:
        env.reset(seed=5)
        assert earned[0] == pytest.approx(sum(env.step(np.zeros(3, np.float32))[1] for _ in range(2)))
    assert earned[0] != earned[1]


def test_command(policies, tmp_path, capsys):
    tiny = ["--episodes", "2", "--blocks", "3", "--workers", "1", "--resamples", "20", "--output", str(tmp_path)]
    tiny += ["--gap-starts", "2", "--gap-blocks", "2", "--context", "3", "--batch", "2"]
    agents = ["--dream-agent", str(policies / "policy.zip"), "--true-agent", str(policies / "first.zip")]
    assert main(["transfer", "drive", *agents, *tiny]) == 0
    assert "| trained only in the dream | 8 |" in capsys.readouterr().out
    figures = json.loads((tmp_path / "transfer_drive.json").read_text())
    assert list(figures["agents"]) == ["random", "initial", "dream", "true", "expert"]
    assert figures["weights"] == fingerprint(load_bundle("small"))
    learned = {name: judged.get("timesteps") for name, judged in figures["agents"].items()}
    assert learned == {"random": None, "initial": 0, "dream": 8, "true": 0, "expert": None}
    # Untrained and trained in the simulator on nothing are the same policy.
    assert figures["agents"]["initial"]["return"] == figures["agents"]["true"]["return"]
    assert [each["timesteps"] for each in figures["gap"]] == [4, 8]
    for each in figures["gap"]:
        assert each["gap"]["value"] == pytest.approx(each["dream"]["value"] - each["truth"]["value"])


def test_missing_agent(capsys):
    assert main(["transfer", "drive", "--dream-agent", "nowhere.zip"]) == 2
    assert "dream_agent: there is no file nowhere.zip" in capsys.readouterr().err


def test_wrong_arguments_are_told_before_any_episode(policies, tmp_path, capsys):
    small = str(shipped_agent("drive"))
    agent = ["--dream-agent", str(policies / "policy.zip")]
    for arguments, message in (
        (["--dream-agent", small], "dream_agent: cannot read"),
        ([*agent, "--true-agent", small], "true_agent: cannot read"),
        ([*agent, "--initial", small], "initial: cannot read"),
        ([*agent, "--context", "0"], "context: got 0"),
        ([*agent, "--batch", "0"], "batch: got 0"),
        ([*agent, "--gap-blocks", "0"], "gap_blocks: got 0"),
        ([*agent, "--gap-starts", "-1"], "gap_starts: got -1"),
        ([*agent, "--world", "nowhere"], "world: 'nowhere'"),
    ):
        assert main(["transfer", "drive", *arguments, "--output", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_key_of_a_planner_names_the_world_that_it_imagines(joint_world, tmp_path):
    assert policy_key("random", "drive") == "random" and policy_key("scripted:0.5", "drive") == "scripted:0.5"
    assert policy_key("planner", "drive") == f"planner in {fingerprint(load_bundle('small'))}"
    path = PlannerConfig(world=str(joint_world)).save(tmp_path / "planner.json")
    wanted = f"{path}@{digest(path)} in {fingerprint(load_bundle(joint_world))}"
    assert policy_key(str(path), "drive") == wanted


def test_ledger_measures_once(tmp_path):
    ledger = Ledger(tmp_path / "ledger.json", {"blocks": 3})
    assert ledger.measured("a", lambda: np.array([1.0, 2.0])).tolist() == [1, 2]
    again = Ledger(tmp_path / "ledger.json", {"blocks": 3})
    assert again.measured("a", lambda: pytest.fail("measured twice")).tolist() == [1, 2]
    with pytest.raises(ValueError, match="'blocks': 3"):
        Ledger(tmp_path / "ledger.json", {"blocks": 4})


def test_own_episodes_join_the_data(policies, tmp_path):
    common = {"env": SIMULATOR, "episodes": 1, "blocks": 3, "workers": 1}
    collect(CollectArgs(output=tmp_path / "train", **common))
    collect(CollectArgs(output=tmp_path / "own", policy=str(policies / "policy.zip"), first_seed=7, **common))
    joined = join(JoinArgs((tmp_path / "train", tmp_path / "own"), tmp_path / "new" / "train"))
    episodes = list(read_episodes(joined))
    assert [episode.seed for episode in episodes] == [0, 7]
    for episode, source in zip(episodes, ("train", "own"), strict=True):
        [original] = read_episodes(tmp_path / source)
        assert np.array_equal(episode.blocks, original.blocks)
        assert np.array_equal(episode.actions, original.actions)
    assert open_storage(joined).metadata["env_id"] == SIMULATOR
    with pytest.raises(FileExistsError, match="already holds"):
        join(JoinArgs((tmp_path / "train",), joined))
    with pytest.raises(ValueError, match="no file"):
        collect(CollectArgs(output=tmp_path / "more", policy=str(tmp_path / "none.zip"), **common))
