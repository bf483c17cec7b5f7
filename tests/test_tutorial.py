"""The five commands of the tutorial's page, with sizes for a test, on an environment that is not among the four."""

import json
import re
import shlex
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from astra_gym.cli import main
from astra_gym.data.episodes import read_episodes, read_scenario
from astra_gym.simulators import replay_start
from astra_gym.simulators.own import make_simulator

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "tutorial.md").read_text()
TINY = {
    "collect": "--episodes 2 --blocks 16 --workers 1",
    "train": """--latent-channels 4 --autoencoder-batch-size 2 --autoencoder.steps 4 --autoencoder.validate-every 4
        --decoder.steps 2 --decoder.validate-every 2 --world.steps 4 --world.validate-every 4
        --world-loss.clip-frames 6 --world-loss.batch-size 2 --transformer.heads 2 --transformer.head-dim 24
        --transformer.layers 1 --transformer.ffn-dim 32 --transformer.window 2 --transformer.summary-window 2
        --starts 3""",
    "train-agent": """--timesteps 32 --num-envs 2 --n-steps 16 --batch-size 16 --n-epochs 1 --blocks 6
        --evaluation-episodes 1""",
    "evaluate": """--clips 2 --context 4 --horizons 1 2 --steps 1 --batch 2 --drift-blocks 1 4 --drift-worlds 2""",
}
"""What a test takes in place of the page's sizes."""
BUNDLE = "runs/pendulum/bundle"


def commands(section: str) -> list[list[str]]:
    """The words of each command in a section of the page."""
    text = PAGE.split(f"## {section}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.strip().startswith("astra-gym ")]


def run(words: list[str]) -> None:
    assert main([*words, *shlex.split(TINY.get(words[0], ""))]) == 0, words


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the five commands have been run."""
    folder = tmp_path_factory.mktemp("tutorial")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        for words in commands("Five commands"):
            run(words)
    return folder


def test_there_are_five_commands():
    names = [words[0] for words in commands("Five commands")]
    assert names == ["collect", "collect", "train", "train-agent", "evaluate"]


def test_the_data_say_what_an_action_means(folder):
    scenario = read_scenario(folder / "data/pendulum/train")
    assert (scenario.env, scenario.low, scenario.high, scenario.fps) == ("Pendulum-v1", (-2.0,), (2.0,), 30)
    stored = json.loads((folder / BUNDLE / "world.json").read_text())["own_scenarios"]
    assert stored == {"pendulum": {"env": "Pendulum-v1", "low": [-2.0], "high": [2.0], "fps": 30}}


def test_one_world_and_many(folder):
    env = gym.make("AstraWorld-v0", world=folder / BUNDLE)
    assert env.unwrapped.simulator_id == "Pendulum-v1"
    assert env.action_space == gym.spaces.Box(-2.0, 2.0, (1,), np.float32)
    single = [env.reset(seed=3)[0], env.step(np.array([2.0], np.float32))[0]]
    envs = gym.make_vec("AstraWorld-v0", num_envs=2, world=folder / BUNDLE)
    many = [envs.reset(seed=3)[0], envs.step(np.full((2, 1), 2.0, np.float32))[0]]
    np.testing.assert_array_equal(single[0], many[0][0])
    assert np.abs(single[1].astype(int) - many[1][0]).max() <= 1


def test_a_start_is_a_moment_of_the_true_environment(folder):
    env = gym.make("AstraWorld-v0", world=folder / BUNDLE)
    env.reset(seed=0)
    start = env.unwrapped.start
    simulator = make_simulator(env.unwrapped.simulator_id)
    block, _ = replay_start(simulator, start)
    episode = next(each for each in read_episodes(folder / "data/pendulum/val") if each.seed == start.sim_seed)
    np.testing.assert_array_equal(block, episode.blocks[len(start.sim_actions)])


def test_agent_and_world_have_been_judged(folder):
    judged = json.loads((folder / "runs/pendulum/agent/evaluation.json").read_text())
    assert {env_id: set(returns) for env_id, returns in judged.items()} == {
        "AstraWorld-v0": {"policy", "random"},
        "Pendulum-v1": {"policy", "random"},
    }
    figures = json.loads((folder / "runs/pendulum/judged/figures.json").read_text())
    assert {"fidelity", "reward", "drift"} <= set(figures["scenarios"]["pendulum"])
    assert "Pendulum" in (folder / "runs/pendulum/judged/report.md").read_text()


def test_what_the_page_says_to_look_at(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for words in commands("What to look at"):
        if words[0] == "record":
            run([*words, "--scale", "1", "--blocks", "4"])
        elif words[0] == "collect":
            run(words)
    assert list(folder.glob("videos/AstraWorld-v0-policy-0.*"))
    assert len(list(read_episodes(folder / "data/pendulum/own"))) == 2
    assert (folder / "runs/pendulum/judged/dream_pendulum.png").exists()
    assert (folder / "runs/pendulum/judged/drift_pendulum.png").exists()


def test_the_environment_on_the_page_can_be_collected(tmp_path, monkeypatch):
    [code] = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "gym.register" in block]
    (tmp_path / "my_world.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    words = "collect --env my_world:Dot-v0 --policy random --output data/dot/train"
    run(words.split())
    scenario = read_scenario(tmp_path / "data/dot/train")
    assert (scenario.env, len(scenario.low), scenario.fps) == ("my_world:Dot-v0", 2, 20)
    assert next(read_episodes(tmp_path / "data/dot/train")).blocks.std() > 0
