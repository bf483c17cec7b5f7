"""Learned policies as small files: what is written acts like what was learned, and nothing else is taken for one."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file
from stable_baselines3 import PPO, SAC
from torch import zeros

import astra_gym  # noqa: F401
from astra_gym.agents.features import FEATURES, BlockFeatures
from astra_gym.agents.learned import SHIPPED, ExportAgentArgs, export_agent, shipped_agent
from astra_gym.agents.policies import make_agent
from astra_gym.agents.rollout import make_block_env, run_episode
from astra_gym.agents.sb3 import wrap_for_sb3

EYES = {"features_extractor_class": BlockFeatures}


@pytest.fixture(scope="module")
def sim():
    with make_block_env("AstraSim/Drive-v0", blocks=8) as env:
        yield env


def ppo(sim, path: Path, **policy) -> Path:
    PPO("CnnPolicy", wrap_for_sb3(sim), n_steps=8, batch_size=8, seed=0, policy_kwargs=policy).save(path)
    return path


@pytest.mark.parametrize(("features", "most_bytes"), [("coarse", 300_000), ("fine", 1_300_000)])
def test_acts_like_what_was_learned(sim, tmp_path, features, most_bytes):
    learned = ppo(sim, tmp_path / "policy.zip", features_extractor_class=FEATURES[features])
    small = export_agent(ExportAgentArgs(learned, tmp_path / "new" / "policy.safetensors"))
    assert small.stat().st_size < most_bytes < learned.stat().st_size
    assert export_agent(ExportAgentArgs(learned)) == learned.with_suffix(".safetensors")
    agents = [make_agent(str(path), sim) for path in (learned, small)]
    for step in run_episode(sim, agents[0], seed=0):
        assert agents[0].act(step.block) == pytest.approx(agents[1].act(step.block), abs=2e-3)


def test_only_ppo_with_small_eyes_is_written(sim, tmp_path):
    SAC("CnnPolicy", wrap_for_sb3(sim), buffer_size=10, policy_kwargs=EYES).save(tmp_path / "sac.zip")
    target = tmp_path / "policy.safetensors"
    big = ppo(sim, tmp_path / "big.zip")
    for path, message in ((tmp_path / "sac.zip", "is of sac"), (big, "look with one of .*coarse.*fine")):
        with pytest.raises(ValueError, match=f"policy: .*{message}"):
            export_agent(ExportAgentArgs(path, target))
    with pytest.raises(ValueError, match="output: .* end in .safetensors"):
        export_agent(ExportAgentArgs(big, tmp_path / "policy.bin"))
    with pytest.raises(FileNotFoundError, match="^policy: there is no file '.*none.zip'"):
        export_agent(ExportAgentArgs(tmp_path / "none.zip"))
    assert not target.exists()


def test_other_files_are_refused(sim, tmp_path):
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    save_file({"weight": zeros(3)}, tmp_path / "other.safetensors")
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match=f"agent: .*{path.name}.* is no policy for observations"):
            make_agent(str(path), sim)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.safetensors")), ids=lambda path: path.stem)
def test_what_comes_with_the_package_acts_in_its_world(path):
    with make_block_env(f"Astra{path.stem.capitalize()}-v0", blocks=3) as env:
        steps = list(run_episode(env, make_agent("learned", env), seed=0))
        assert len(steps) == 4 and all(env.action_space.contains(step.action) for step in steps[1:])
        assert np.ptp([step.block for step in steps]) > 100


def test_scenario_without_one():
    with pytest.raises(ValueError, match="agent: none was learned for 'sailing', 'learned' can act in"):
        shipped_agent("sailing")
