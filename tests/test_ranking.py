"""Ranking: measures against cases worked out by hand, paired starts in the dream and the simulator, the command."""

import json

import gymnasium as gym
import numpy as np
import pytest

from astra_gym.actions import DRIVE
from astra_gym.bundles import load_bundle
from astra_gym.cli import main
from astra_gym.evaluation.contexts import collect_contexts
from astra_gym.evaluation.intervals import estimate_mean, interval
from astra_gym.evaluation.paired import PairedStarts, dream_returns, dream_starts
from astra_gym.evaluation.ranking import DEFAULT_POLICIES, chosen_policies
from astra_gym.evaluation.ranking_metrics import bias, mmrv, pearson, ranking, spearman
from astra_gym.evaluation.truth import EXPERTS, make_policy, simulator_id
from astra_gym.processes import worker_pool
from astra_gym.world import World

HOLD = "constant:0,0.3,0"


def test_pearson_and_spearman_by_hand():
    assert pearson([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert pearson([1, 2, 3], [1, 0, 2]) == pytest.approx(0.5)  # covariance 1, variances 2 and 2
    assert spearman([1, 10, 100, 1000], [1, 2, 3, 4]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert np.isnan(pearson([1, 1, 1], [1, 2, 3]))


def test_mmrv_by_hand():
    assert mmrv([10, 20, 30], [0.1, 0.2, 0.9]) == 0
    # The dream swaps the last two, which differ by 0.7 in truth: violations 0, 0.7, 0.7.
    assert mmrv([10, 30, 20], [0.1, 0.2, 0.9]) == pytest.approx(1.4 / 3)
    # All are the wrong way round: each one's largest violation is 0.8, 0.7, 0.8.
    assert mmrv([3, 2, 1], [0.1, 0.2, 0.9]) == pytest.approx(2.3 / 3)
    # A tie in the dream hides that the second is better: only that one has a violation, as in SIMPLER.
    assert mmrv([1, 1], [0.2, 0.5]) == pytest.approx(0.15)


def test_mmrv_takes_the_dream_first():
    dream, truth = [0.0, 5.0, 4.0], [0.1, 0.2, 0.9]
    assert mmrv(dream, truth) == pytest.approx(1.4 / 3)
    assert mmrv(truth, dream) == pytest.approx(2 / 3)


def test_bias_is_what_the_dream_promises_too_much():
    assert bias([3, 5], [1, 2]) == pytest.approx(2.5)


def test_ranking_measures_mmrv_as_a_share_of_the_range():
    truth = np.repeat([[10.0], [20.0], [90.0]], 5, 1)
    scores = ranking(truth[[0, 2, 1]], truth, resamples=20)
    assert scores["mmrv"]["value"] == pytest.approx(140 / 3 / 80)
    assert scores["policies"] == 3
    assert scores["bias"] == {"value": 0, "interval": [0, 0]}


def test_bootstrap_intervals():
    rng = np.random.default_rng(0)
    truth = np.arange(4.0)[:, None] + rng.normal(size=(4, 400))
    dream = truth + rng.normal(size=(4, 400))
    scores = ranking(dream, truth, resamples=200)
    for name in ("pearson", "spearman", "mmrv", "bias"):
        low, high = scores[name]["interval"]
        assert low <= scores[name]["value"] <= high
    low, high = estimate_mean(rng.normal(size=400))["interval"]
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.2)
    assert interval([np.nan]) == [None, None]
    flat = ranking(np.ones((3, 5)), truth[:3, :5], resamples=10)
    assert flat["pearson"] == {"value": None, "interval": [None, None]}


def test_ranking_refuses_unpaired_returns():
    with pytest.raises(ValueError, match=r"\(3, 5\) and \(3, 4\)"):
        ranking(np.ones((3, 5)), np.ones((3, 4)))


def test_default_policies_can_act_in_their_scenario():
    assert set(DEFAULT_POLICIES) == set(EXPERTS)
    assert all(len(set(names)) >= 8 for names in DEFAULT_POLICIES.values())
    with gym.make(simulator_id("drive"), disable_env_checker=True) as env:
        for name in chosen_policies(("default",), "drive"):
            agent = make_policy(name, env)
            agent.reset(0)
            assert env.action_space.contains(agent.act(np.zeros(env.observation_space.shape, np.uint8)))


def test_no_such_policy():
    with gym.make(simulator_id("drive"), disable_env_checker=True) as env:
        for wrong in ("constant:1,2", "constant:left", "constant:nan,0,0"):
            with pytest.raises(ValueError, match="constant"):
                make_policy(wrong, env)
    with gym.make("CartPole-v1") as env, pytest.raises((ValueError, AttributeError)):
        make_policy("expert", env)


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    cache = tmp_path_factory.mktemp("contexts") / "drive.npz"
    with worker_pool(1) as pool:
        found = collect_contexts(pool, "drive", 3, 5, 2_000_000, cache)
    again = collect_contexts(None, "drive", 3, 5, 2_000_000, cache)
    assert all(np.array_equal(vars(found)[name], vars(again)[name]) for name in vars(found))
    return found


def test_contexts(contexts):
    assert contexts.blocks.shape == (3, 6, 4, 64, 64, 3)
    assert contexts.actions.shape == (3, 5, 3)
    assert len(set(contexts.seeds)) == 3 and min(contexts.seeds) >= 2_000_000


def test_dream_goes_on_from_the_context(contexts):
    world = World(load_bundle("small"), 2, "drive")
    starts = dream_starts(contexts, world, DRIVE)
    assert [len(start.latents) for start in starts] == [5] * 3
    shown = world.reset(starts[:2], [0, 1])
    truth = contexts.blocks[:2, -1]
    assert np.abs(shown.astype(int) - truth).mean() < 12  # the autoencoder's error
    with gym.make(simulator_id("drive"), disable_env_checker=True) as env:
        agents = [make_policy("random", env) for _ in range(2)]
    earned = dream_returns(world, DRIVE, starts, contexts.seeds.tolist(), agents, 3)
    assert earned.shape == (3,) and np.isfinite(earned).all()
    assert np.array_equal(earned, dream_returns(world, DRIVE, starts, contexts.seeds.tolist(), agents, 3))


def test_a_terminated_world_stops_earning(contexts, monkeypatch):
    world = World(load_bundle("small"), 1, "drive")
    starts = dream_starts(contexts, world, DRIVE)[:1]
    with gym.make(simulator_id("drive"), disable_env_checker=True) as env:
        agents = [make_policy(HOLD, env)]
    step = world.step

    def end_at_once(rows):
        made = step(rows)
        made.reward[:], made.terminated[:] = -7.0, True
        return made

    monkeypatch.setattr(world, "step", end_at_once)
    assert dream_returns(world, DRIVE, starts, [0], agents, 4).tolist() == [-7.0]


def test_command(tmp_path, capsys):
    tiny = ["--starts", "3", "--context", "4", "--blocks", "3", "--batch", "2", "--resamples", "20", "--workers", "1"]
    command = ["rank", "drive", *tiny, "--output", str(tmp_path), "--policies", "random", HOLD]
    assert main(command) == 2  # two policies are no ranking
    assert "at least 3" in capsys.readouterr().err
    command += ["scripted", "constant:0,0,0.5"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "| random |" in text and "Pearson" in text
    figures = json.loads((tmp_path / "rank_drive.json").read_text())
    assert figures["ranking"]["all"]["policies"] == 4
    assert "without best and random" not in figures["ranking"]  # two are left
    returns = json.loads((tmp_path / "returns_drive.json").read_text())["measured"]
    assert len(returns) == 8 and all(len(row) == 3 for row in returns.values())
    # What is known is not measured again, whatever it says.
    key = f"truth {HOLD}"
    returns[key] = [1000.0] * 3
    saved = json.loads((tmp_path / "returns_drive.json").read_text())
    (tmp_path / "returns_drive.json").write_text(json.dumps({**saved, "measured": returns}))
    assert main(command) == 0
    assert json.loads((tmp_path / "rank_drive.json").read_text())["policies"][HOLD]["truth"]["value"] == 1000
    assert main([*command, "--blocks", "2"]) == 2
    assert "name another folder" in capsys.readouterr().err


@pytest.mark.parametrize("scenario", ["manipulation", "drone", "camera"])
def test_paired_starts_of_every_scenario(scenario, joint_world, tmp_path):
    paired = PairedStarts(load_bundle(joint_world), scenario, 2, 2, 2, 2_000_000, 1, tmp_path)
    dream, truth = paired.returns(["random", "scripted:0.5"], workers=1)
    assert dream.shape == truth.shape == (2, 2)
    assert np.isfinite([dream, truth]).all()


def test_bad_arguments(tmp_path):
    bundle = load_bundle("small")
    with pytest.raises(ValueError, match="starts: got 0"):
        PairedStarts(bundle, "drive", 0, 4, 3, 0, 2, tmp_path)
    with pytest.raises(ValueError, match="scenario: got 'boat'"):
        PairedStarts(bundle, "boat", 1, 4, 3, 0, 2, tmp_path)
