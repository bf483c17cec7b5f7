"""The environments that every contract is tested on."""

import gymnasium as gym

import astra_gym  # noqa: F401  (registers the ids)

OWN_WORLD = "AstraWorld-v0"  # needs a world of one's own, see test_own_world.py
IDS = [
    spec.id
    for spec in gym.registry.values()
    if str(spec.entry_point).startswith("astra_gym.envs.") and spec.id != OWN_WORLD
]
