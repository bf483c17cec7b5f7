"""The planner: what it imagines, how it searches, how it is saved and judged."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from astra_gym.agents.planner import Planner, PlannerConfig, smooth_noise
from astra_gym.agents.policies import make_agent
from astra_gym.agents.rollout import make_block_env, run_episode
from astra_gym.bundles import load_bundle
from astra_gym.cli import main
from astra_gym.evaluation.planning import OUTCOMES, PlanArgs, judge_planning
from astra_gym.world import World

TINY = PlannerConfig(horizon=3, candidates=8, iterations=1)


@pytest.fixture(scope="module", params=["AstraDrive-v0", "AstraSim/Drive-v0"])
def env(request):
    env = make_block_env(request.param, blocks=3)
    yield env
    env.close()


@pytest.fixture(scope="module")
def simulator():
    env = make_block_env("AstraSim/Drive-v0", blocks=3)
    yield env
    env.close()


@pytest.fixture(scope="module")
def planner(simulator) -> Planner:
    """One that has seen the first block of an episode."""
    planner = Planner(simulator, TINY)
    planner.act(simulator.reset(seed=0)[0])
    return planner


def changed_world(joint_world, folder):
    """A copy of the world whose drives end at once, with a reward of -7, and which knows no camera."""
    shutil.copytree(joint_world, folder)
    (folder / "starts" / "camera.safetensors").unlink()
    settings = json.loads((folder / "world.json").read_text())
    (folder / "world.json").write_text(json.dumps(settings | {"termination_rewards": {"drive": -7.0}}))
    weights = folder / "heads" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["termination.bias"] += 100
    save_file(tensors, weights)
    return folder


def actions_of(env, agent, seed: int) -> np.ndarray:
    return np.array([step.action for step in run_episode(env, agent, seed)][1:])


@pytest.mark.parametrize("method", ["cem", "mppi"])
def test_it_acts_in_a_dream_as_in_the_simulator(env, method):
    agent = Planner(env, replace(TINY, method=method, samples=2, caution=1.0))
    actions = actions_of(env, agent, 5)
    assert actions.shape == (3, 3) and actions.dtype == np.float32
    assert all(env.action_space.contains(action) for action in actions)
    assert not (actions[:, 1] * actions[:, 2]).any()  # never gas and brake at once
    assert np.abs(actions).max() > 0.01


def test_the_seed_fixes_every_choice(simulator):
    agent, other = Planner(simulator, TINY, seed=1), Planner(simulator, replace(TINY, execute=3), seed=1)
    first = actions_of(simulator, agent, 5)
    assert np.array_equal(actions_of(simulator, agent, 5), first)
    assert not np.array_equal(actions_of(simulator, agent, 6), first)
    block = simulator.reset(seed=5)[0]
    other.reset(5)
    whole = np.array([other.act(block) for _ in range(3)])
    assert np.allclose(whole[0], first[0]) and not other._to_do  # the same plan, of which all three blocks are acted
    agent.reset()  # without a seed the choices go on
    assert not np.array_equal(agent.act(block), first[0])


def test_plan_is_kept_and_shifted(simulator):
    agent = Planner(simulator, replace(TINY, execute=2))
    agent.act(simulator.reset(seed=0)[0])
    assert agent.plan.shape == (3, 2)
    assert np.array_equal(agent.plan[0], agent.plan[1]) and np.array_equal(agent.plan[1], agent.plan[2])
    assert agent.plan.any()


@pytest.mark.parametrize("method", ["cem", "mppi"])
def test_search_finds_the_best_actions(simulator, method):
    goal = np.array([[0.6, 0.3, 0.0], [-0.4, 0.0, 0.5], [0.1, 0.5, 0.0]], np.float32)

    class Known(Planner):
        def imagine(self, actions, seeds):
            return -np.square(actions - goal).sum((1, 2))

    config = replace(TINY, method=method, candidates=200, iterations=12, hold=1, smoothness=0.0, temperature=0.1)
    agent = Known(simulator, config)
    first = agent.act(simulator.reset(seed=0)[0])
    assert np.abs(first - goal[0]).max() < 0.2
    steps = agent.controls.actions(agent.plan[:2])  # what is left of the plan
    assert np.abs(steps - goal[1:]).max() < 0.25


def test_noise_is_held_and_smooth():
    noise = smooth_noise(np.random.default_rng(0), 4000, 7, 2, hold=3, smoothness=0.8)
    assert noise.shape == (4000, 7, 2)
    assert np.array_equal(noise[:, 0], noise[:, 2]) and not np.array_equal(noise[:, 2], noise[:, 3])
    assert np.allclose(noise.std(0), 1, atol=0.05)
    assert np.corrcoef(noise[:, 0, 0], noise[:, 3, 0])[0, 1] == pytest.approx(0.8, abs=0.05)
    assert np.corrcoef(noise[:, 0, 0], noise[:, 6, 0])[0, 1] == pytest.approx(0.64, abs=0.05)


def test_alike_candidates_score_alike(planner):
    actions = np.zeros((8, 3, 3), np.float32)
    actions[4:, :, 1] = 1.0
    scores = planner.imagine(actions, [3])
    assert np.ptp(scores[:4]) < 1e-3 and np.ptp(scores[4:]) < 1e-3
    assert np.allclose(planner.imagine(actions, [3]), scores)
    assert abs(scores[0] - scores[4]) > 1e-2


def test_goal_picture(planner):
    actions = np.zeros((8, 3, 3), np.float32)
    try:
        planner.goal = np.zeros((64, 64, 3), np.uint8)
        dark = planner.imagine(actions, [0])
        planner.goal = planner._present.decode(planner._present.encode(np.full((4, 64, 64, 3), 110, np.uint8)))[0, -1]
        grey = planner.imagine(actions, [0])
    finally:
        planner.goal = None
    assert (dark > 0).all() and (dark < grey).all() and (grey < 1).all()


def test_goal_of_the_settings(simulator, tmp_path):
    from PIL import Image

    Image.new("RGB", (80, 80), (10, 20, 30)).save(tmp_path / "goal.png")
    assert Planner(simulator, replace(TINY, goal=str(tmp_path / "goal.png"))).goal.shape == (64, 64, 3)
    with pytest.raises(ValueError, match="goal: .*nowhere.png"):
        Planner(simulator, replace(TINY, goal=str(tmp_path / "nowhere.png")))


def test_a_guided_plan_begins_from_what_the_guide_would_do(simulator):
    guided = Planner(simulator, replace(TINY, guide="learned", iterations=2))
    tried = []

    def imagine(actions, seeds):
        tried.append(guided.controls.controls(actions))
        return np.zeros(len(actions))

    block = simulator.reset(seed=0)[0]
    guided.act(block)
    left = guided.plan
    guided.imagine = imagine
    guided.act(block)
    first = make_agent("learned", simulator).act(block)
    assert np.allclose(tried[0][0, 0], guided.controls.controls(first), atol=1e-6)
    assert not np.allclose(tried[0][0, 1], tried[0][0, 0])  # it looks at what the world dreams
    assert np.allclose(tried[0][1], left, atol=1e-6) and np.allclose(tried[1][1], left, atol=1e-6)


@pytest.mark.parametrize("guide", ["scripted", "nobody.zip", "planner.json"])
def test_guides_that_cannot_be(guide, simulator):
    with pytest.raises(ValueError, match=f"guide: got '{guide}', allowed are"):
        Planner(simulator, replace(TINY, guide=guide))


def test_nothing_counts_after_an_ending(simulator, joint_world, tmp_path):
    agent = Planner(simulator, replace(TINY, world=str(changed_world(joint_world, tmp_path / "world"))))
    agent.act(simulator.reset(seed=0)[0])
    assert np.allclose(agent.imagine(np.zeros((8, 3, 3), np.float32), [0]), -7.0)


def test_branches_go_on_from_one_world():
    bundle = load_bundle("small")
    source, many = World(bundle, 1), World(bundle, 3)
    start, rows = bundle.starts["drive"][0], np.array([[0.2, 0.5, 0.0, 1.0]], np.float32)
    many.reset([bundle.starts["drive"][1]] * 3, [0, 1, 2])
    with pytest.raises(RuntimeError, match=r"branch: reset worlds \[0\] first"):
        many.branch(source, [1, 1, 2])
    source.reset([start], [7])
    source.step(rows)
    with pytest.raises(ValueError, match="branch: got 1 worlds and 2 seeds for 3 worlds"):
        many.branch(source, [1, 2])
    many.branch(source, [4, 4, 5])
    made = many.step(rows.repeat(3, 0), decode=False)
    assert not made.frames.size
    one = World(bundle, 1)
    one.branch(source, [4])
    alone = one.step(rows)
    pictures = many.decode(made.latents).astype(int)
    assert np.abs(pictures[:2] - alone.frames.astype(int)).max() <= 1
    assert np.abs(pictures[2] - pictures[0]).max() > 1
    assert np.allclose(made.reward[:2], alone.reward, atol=0.02)


def test_settings_as_json(simulator, tmp_path):
    config = replace(TINY, method="mppi", temperature=0.7, num_inference_steps=None)
    path = config.save(tmp_path / "agents" / "planner.json")
    assert [file.name for file in path.parent.iterdir()] == ["planner.json"]
    assert PlannerConfig.load(path) == config
    assert make_agent(str(path), simulator).config == config
    assert make_agent("planner", simulator).config == PlannerConfig()
    path.write_text('{"horizon": 5}')
    assert PlannerConfig.load(path) == PlannerConfig(horizon=5)


@pytest.mark.parametrize("content", ["{", "[]", '{"horizonn": 3}', '{"horizon": 0}', '{"horizon": "3"}'])
def test_bad_settings(content, simulator, tmp_path):
    (tmp_path / "planner.json").write_text(content)
    with pytest.raises(ValueError, match="planner: |horizon: "):
        make_agent(str(tmp_path / "planner.json"), simulator)


@pytest.mark.parametrize(
    "values",
    [
        {"method": "random"},
        {"candidates": 1},
        {"iterations": True},
        {"elites": 1.5},
        {"temperature": 0},
        {"spread": float("nan")},
        {"smoothness": 1.0},
        {"caution": -1},
        {"execute": 9},
        {"horizon": 2.5},
        {"world": 3},
        {"guide": 3},
    ],
)
def test_numbers_are_checked(values):
    [(name, value)] = values.items()
    with pytest.raises(ValueError, match=f"{name}: got {value!r}, allowed are "):
        PlannerConfig(**values)


def test_worlds_that_do_not_fit(joint_world, tmp_path):
    world = changed_world(joint_world, tmp_path / "world")
    with make_block_env("AstraSim/Camera-v0", 2) as camera:
        with pytest.raises(ValueError, match="world: .* was not trained for 'camera'"):
            Planner(camera, PlannerConfig(world=str(world)))
        with pytest.raises(FileNotFoundError, match="world: 'nowhere'"):
            Planner(camera, PlannerConfig(world="nowhere"))
    with make_block_env("AstraDrive-v0", 2, world=str(world)) as dream:  # plans in the dream's own world
        assert set(Planner(dream, TINY)._present.bundle.starts) == {"drive", "manipulation", "drone"}
    with make_block_env("AstraSim/Drive-v0", 2, size=32) as small, pytest.raises(ValueError, match="env: its blocks"):
        Planner(small, TINY)


@pytest.mark.parametrize("scenario", OUTCOMES)
def test_judged_in_the_simulator(scenario, joint_world, tmp_path):
    args = PlanArgs(
        scenario,
        planner=replace(TINY, world=str(joint_world), horizon=2),
        horizons=(1,),
        candidates=(2,),
        beside=("random",),
        seek_goal=scenario == "camera",
        episodes=1,
        blocks=2,
        workers=1,
        output=tmp_path,
    )
    figures = judge_planning(args)
    assert list(figures["agents"]) == ["random", "cem_h1_n8", "cem_h2_n2"]
    assert "| CEM | 2 | 2 |" in str(figures)
    guided = replace(args, planner=replace(args.planner, guide="learned"), horizons=(), beside=())
    assert "| CEM, guided by learned | 2 | 2 |" in str(judge_planning(replace(guided, output=tmp_path / "guided")))
    for judged in figures["agents"].values():
        assert 0 <= judged["success"]["value"] <= 1
        assert np.isfinite(judged["return"]["value"])
        assert all(name in judged for name in OUTCOMES[scenario][2])
    assert json.loads((tmp_path / f"plan_{scenario}.json").read_text()) == figures
    assert len(str(figures).splitlines()) == 4 + 3
    episodes = tmp_path / f"plan_episodes_{scenario}.json"
    before = json.loads(episodes.read_text())["measured"]
    judge_planning(replace(args, episodes=2, horizons=(), candidates=(2,)))  # takes up what is there
    after = json.loads(episodes.read_text())["measured"]
    assert len(before) == 3 and len(after) == 3 + 2
    assert all(after[name] == row for name, row in before.items())
    assert PlannerConfig.load(tmp_path / "cem_h2_n2.json").candidates == 2


def test_bad_requests(tmp_path, capsys):
    for arguments, message in (
        (["nowhere"], "scenario: got 'nowhere'"),
        (["drive", "--seek-goal"], "seek_goal: 'drive' shows no picture of its goal"),
        (["drive", "--episodes", "0"], "episodes: got 0"),
        (["drive", "--horizons", "0"], "horizon: got 0"),
        (["drive", "--beside", "nobody"], "agent: got 'nobody'"),
    ):
        assert main(["plan", *arguments, "--output", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err
