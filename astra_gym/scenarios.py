"""Scenarios outside the four: what the data of any Gymnasium environment tell of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from astra_gym.actions import MODALITIES, Modality

DEFAULT_FPS = 30
"""Frames a second of an environment whose metadata name no ``render_fps``."""
KEYS = ((("left", "a"), ("right", "d")), (("down", "s"), ("up", "w")), (("q",), ("e",)))
"""For the first three numbers of an action, the keys that make it least and greatest."""


@dataclass(frozen=True)
class Scenario:
    """What a world has to know of an environment that it has learned."""

    env: str
    """Gymnasium id of the environment, perhaps with the module that registers it: "module:Id-v0"."""
    low: tuple[float, ...]
    high: tuple[float, ...]
    """Bounds of the action."""
    fps: int = DEFAULT_FPS
    """Frames a second."""

    @classmethod
    def of(cls, env: str, action_space: spaces.Space, fps: float | None = None) -> Scenario:
        """The scenario of an environment with these actions and frames a second.

        Raises:
            ValueError: if the actions are no flat box of bounded real numbers.
        """
        if (
            not isinstance(action_space, spaces.Box)
            or not np.issubdtype(action_space.dtype, np.floating)
            or len(action_space.shape) != 1
            or not np.isfinite([action_space.low, action_space.high]).all()
            or not (action_space.low < action_space.high).all()
        ):
            raise ValueError(
                f"env: {env} has the action space {action_space}, allowed is a Box of real numbers with one axis, "
                "finite bounds and low < high; wrap the environment, and register what results"
            )
        low, high = (tuple(float(number) for number in bound) for bound in (action_space.low, action_space.high))
        return cls(env, low, high, max(1, round(fps or DEFAULT_FPS)))

    def modality(self, name: str) -> Modality:
        """What an action means in the scenario called ``name``; within its bounds, rows run from -1 to 1.

        The first three numbers have keys, for playing.
        """
        low, high = np.array(self.low), np.array(self.high)
        count = len(low)
        bindings = {
            keys: tuple(float(bound[place]) if i == place else 0.0 for i in range(count))
            for place, pair in enumerate(KEYS[:count])
            for keys, bound in zip(pair, (low, high), strict=True)
        }
        return Modality(
            name=name,
            low=self.low,
            high=self.high,
            labels=tuple(f"action {place}" for place in range(count)),
            centre=tuple(((low + high) / 2).tolist()),
            scale=tuple(((high - low) / 2).tolist()),
            fps=self.fps,
            key_bindings=bindings,
        )


def frames_per_second(env: gym.Env) -> float:
    """All frames of an environment in a second, also where ``render()`` shows one of each block."""
    fps = env.get_wrapper_attr("fps") if env.has_wrapper_attr("fps") else env.metadata.get("render_fps")
    return float(fps or DEFAULT_FPS)


def environment_id(scenario: str) -> str:
    """Gymnasium id of the learned world of a scenario."""
    return f"Astra{scenario.capitalize()}-v0" if scenario in MODALITIES else "AstraWorld-v0"


def simulator_id(scenario: str) -> str:
    """Gymnasium id of the ground truth of one of the four; others have theirs from their :class:`Scenario`."""
    return f"AstraSim/{scenario.capitalize()}-v0"


def check_name(name: str) -> None:
    """Raise a ValueError if no scenario can be called ``name``, which names folders and parts of the model."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) or name == "all":
        raise ValueError(f"scenarios: got {name!r}, allowed are letters, digits, '-' and '_' after a letter; not 'all'")


def in_order(names: Iterable[str]) -> list[str]:
    """Scenario names, the four known ones first."""
    chosen = set(names)
    return [name for name in MODALITIES if name in chosen] + sorted(chosen - set(MODALITIES))
