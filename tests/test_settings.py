"""Tuned settings: every scenario has them, a file and the command line override them, mistakes are named."""

from dataclasses import fields

import pytest

import astra_gym  # noqa: F401
from astra_gym.actions import MODALITIES
from astra_gym.agents.settings import CONFIGS, algorithms, load_settings, scenario_of, setting_names
from astra_gym.agents.train import LEARNERS, TrainAgentArgs

SIMULATOR = "AstraSim/Drive-v0"


def test_every_learner_has_settings_in_every_scenario():
    assert set(algorithms()) == set(LEARNERS)
    for algorithm in algorithms():
        for scenario in [*MODALITIES, "one of your own"]:
            settings = load_settings(algorithm, scenario)
            assert set(settings) == set(load_settings(algorithm, "default"))
        assert load_settings(algorithm, "manipulation")["blocks"] == 50
    assert load_settings("ppo", "drive")["n_steps"] == 64


def test_every_setting_can_be_given_on_the_command_line():
    undecided = {field.name for field in fields(TrainAgentArgs) if field.default is None}
    assert setting_names() == undecided - {"config", "imitate", "scenario", "starts"}


@pytest.mark.parametrize("name", [*MODALITIES])
@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_tuned_settings_are_consistent(algorithm, name):
    for env_id in (f"Astra{name.capitalize()}-v0", f"AstraSim/{name.capitalize()}-v0"):
        assert scenario_of(env_id) == name
        assert TrainAgentArgs(env_id, algorithm=algorithm).settings() == load_settings(algorithm, name)


def test_what_is_given_counts_more_than_a_file_and_that_more_than_the_tuned(tmp_path):
    config = tmp_path / "own.yaml"
    config.write_text("default: {gamma: 0.5, tau: 0.5}\ndrive: {gamma: 0.6, buffer_size: 7}\ncamera: {tau: 0.9}\n")
    settings = TrainAgentArgs(SIMULATOR, algorithm="sac", config=config, buffer_size=8, ent_coef=0.25).settings()
    assert (settings["tau"], settings["gamma"], settings["buffer_size"], settings["ent_coef"]) == (0.5, 0.6, 8, 0.25)
    assert settings["num_envs"] == load_settings("sac", "drive")["num_envs"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("drive: {gama: 0.9}", "gama: is no setting of ppo, allowed are .*gamma"),
        ("drive: {tau: 0.9}", "tau: is no setting of ppo"),
        ("drvie: {gamma: 0.9}", r"config: .* has the sections \['drvie'\], allowed are \['default'"),
        ("drive: {learning_rate: 1e-3}", "learning_rate: got '1e-3', allowed are numbers .*needs a point"),
        ("drive: {n_steps: 1.5}", "n_steps: got 1.5, allowed are whole numbers"),
        ("drive: {gamma: true}", "gamma: got True"),
        ("drive: {gamma: 2}", "gamma: got 2, allowed are numbers from 0 to 1"),
        ("drive: {clip_range: 0}", "clip_range: got 0, allowed are numbers above 0"),
        ("drive: {n_epochs: 0}", "n_epochs: got 0, allowed are whole numbers from 1"),
        ("drive: 7", "config: section 'drive' .* is 7"),
        ("- drive", r"config: .* has the sections \['drive'\]"),
        ("drive: {", "config: .* is not valid YAML"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, text, message):
    config = tmp_path / "own.yaml"
    config.write_text(text)
    with pytest.raises(ValueError, match=f"^{message}"):
        load_settings("ppo", "drive", config=config)


def test_mistakes_on_the_command_line_are_named():
    with pytest.raises(ValueError, match="^n_steps: is no setting of sac"):
        TrainAgentArgs(SIMULATOR, algorithm="sac", n_steps=8).settings()
    with pytest.raises(ValueError, match="^batch_size: got 7"):
        TrainAgentArgs(SIMULATOR, batch_size=7).settings()
    with pytest.raises(ValueError, match="^algorithm: got 'dqn', allowed are \\['ppo', 'sac'\\]"):
        load_settings("dqn", "drive")
    with pytest.raises(FileNotFoundError, match="^config: there is no file '.*missing.yaml'"):
        TrainAgentArgs(SIMULATOR, config=CONFIGS / "missing.yaml").settings()
