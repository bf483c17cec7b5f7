"""Tuned settings of each learner in each scenario: the YAML files in ``configs/``, and what is laid over them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from astra_gym.actions import MODALITIES
from astra_gym.simulators.own import creator_of, find_spec

CONFIGS = Path(__file__).parent / "configs"
POSITIVE = "clip_range", "learning_rate", "reward_scale", "target_kl", "temperature"
"""Settings that are numbers above 0."""
LEAST = {"learning_starts": 0} | dict.fromkeys(
    (
        *("batch_size", "blocks", "buffer_size", "gradient_steps", "n_epochs", "n_steps"),
        *("num_envs", "timesteps", "train_freq"),
    ),
    1,
)
"""The least that settings which are whole numbers may be."""
SHARES = "gae_lambda", "gamma", "tau"
"""Settings that are numbers from 0 to 1."""


def algorithms() -> list[str]:
    """The learners that there are settings for."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def setting_names() -> set[str]:
    """The settings of all learners."""
    return {name for algorithm in algorithms() for name in _read(CONFIGS / f"{algorithm}.yaml", "default")["default"]}


def scenario_of(env_id: str) -> str:
    """The scenario of an Astra environment or a simulator by its id: that of AstraSim/Drive-v0 is drive.

    Raises:
        gymnasium.error.Error: if there is no environment of that name.
    """
    return find_spec(env_id).name.removeprefix("Astra").lower()


def scenario_option(env_id: str, scenario: str | None) -> dict[str, str]:
    """The argument of ``gym.make`` that names a scenario, which AstraWorld-v0 takes; empty where none is named.

    Raises:
        ValueError: if the environment takes none.
    """
    if scenario is None:
        return {}
    creator = creator_of(env_id)
    if creator is None or "scenario" not in inspect.signature(creator).parameters:
        raise ValueError(f"scenario: got {scenario!r}, but {env_id} has one scenario alone, allowed is None")
    return {"scenario": scenario}


def load_settings(
    algorithm: str, scenario: str, given: Mapping[str, Any] | None = None, config: Path | None = None
) -> dict[str, Any]:
    """The settings of ``algorithm`` in ``scenario``, each from the last of these that has it.

    The package's file: its sections ``default`` and ``scenario``; the same of the file ``config``; ``given``.

    Raises:
        ValueError: if an algorithm, section or setting is unknown, or a setting is no number where it must be one.
        FileNotFoundError: if there is no file ``config``.
    """
    if algorithm not in algorithms():
        raise ValueError(f"algorithm: got {algorithm!r}, allowed are {algorithms()}")
    tuned = _read(CONFIGS / f"{algorithm}.yaml", scenario)
    known = tuned["default"]
    layers = [tuned.get(scenario, {})]
    if config is not None:
        own = _read(config, scenario)
        layers += [own.get("default", {}), own.get(scenario, {})]
    settings = dict(known)
    for layer in (*layers, given or {}):
        for name, value in layer.items():
            settings[name] = _checked(name, value, known, algorithm)
    return settings


def _read(path: Path, scenario: str) -> dict[str, dict[str, Any]]:
    """The sections of a file; an empty one has no settings."""
    if not path.is_file():
        raise FileNotFoundError(f"config: there is no file {str(path)!r}")
    try:
        sections = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"config: {path} is not valid YAML ({error})") from error
    allowed = ["default", *MODALITIES]
    if not isinstance(sections, dict) or (unknown := set(sections) - {*allowed, scenario}):
        got = sections if not isinstance(sections, dict) else sorted(map(str, unknown))
        raise ValueError(f"config: {path} has the sections {got}, allowed are {allowed}")
    for name, section in sections.items():
        if not isinstance(section or {}, dict):
            raise ValueError(f"config: section {name!r} of {path} is {section!r}, allowed are lines 'setting: value'")
    return {name: section or {} for name, section in sections.items()}


def _checked(name: str, value: Any, known: Mapping[str, Any], algorithm: str) -> Any:
    """``value`` if it can be that of the setting ``name``, whose kind is that of the default: a number where that is
    None."""
    if name not in known:
        raise ValueError(f"{name}: is no setting of {algorithm}, allowed are {sorted(known)}")
    if value is None and known[name] is None:
        return None
    kinds: tuple[type, ...] = (int,) if isinstance(known[name], int) else (int, float)
    if isinstance(known[name], str):
        kinds = (*kinds, str)
    if isinstance(value, bool) or not isinstance(value, kinds):
        hint = " (YAML needs a point before an exponent: 3.0e-4)" if isinstance(value, str) else ""
        raise ValueError(f"{name}: got {value!r}, allowed are {'whole ' if kinds == (int,) else ''}numbers{hint}")
    number: Any = value
    if name in POSITIVE and not 0 < number < float("inf"):
        raise ValueError(f"{name}: got {value!r}, allowed are numbers above 0")
    if name in SHARES and not 0 <= number <= 1:
        raise ValueError(f"{name}: got {value!r}, allowed are numbers from 0 to 1")
    if name in LEAST and number < LEAST[name]:
        raise ValueError(f"{name}: got {value!r}, allowed are whole numbers from {LEAST[name]}")
    return value
