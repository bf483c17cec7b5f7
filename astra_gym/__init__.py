"""Gymnasium environments whose dynamics are a learned Astra world model.

Importing this package registers the environment ids and nothing else: torch, diffusers and transformers are imported
when the first world is made.
"""

import os
from pathlib import Path

import gymnasium as gym

__version__ = "0.1.0"

# GNU OpenMP's threads spin for milliseconds at barriers, which makes a small model 60 times slower when another process
# is busy; if they sleep at once, a block takes twice as long on an idle machine. So they spin for a moment. Only
# effective before torch is imported; what the user has set is kept.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# In a checkout, `astra_gym.envs` and `astra_gym.agents` are the folders beside this one.
_root = Path(__file__).resolve().parent.parent
if (_root / "setup.cfg").exists() and str(_root) not in __path__:
    __path__.append(str(_root))


def _register() -> None:
    for name, steps, simulator in (
        ("Drive", 250, "car_racing:DriveSim"),
        ("Manipulation", 50, "push:PushSim"),
        ("Drone", 150, "gates:DroneSim"),
        ("Camera", 100, "room:CameraSim"),
    ):
        gym.register(
            id=f"Astra{name}-v0",
            entry_point=f"astra_gym.envs.{name.lower()}:Astra{name}Env",
            vector_entry_point=f"astra_gym.envs.vector:{name.lower()}_worlds",
            max_episode_steps=steps,
        )
        gym.register(id=f"AstraSim/{name}-v0", entry_point=f"astra_gym.simulators.{simulator}")
    gym.register(
        id="AstraWorld-v0",
        entry_point="astra_gym.envs.world:AstraWorldEnv",
        vector_entry_point="astra_gym.envs.world:own_worlds",
        max_episode_steps=250,
    )


_register()
