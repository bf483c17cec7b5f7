"""Throughput side by side: worlds and simulators step in turns, so that other work on the machine meets them all."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from tqdm import tqdm

import astra_gym  # noqa: F401
from astra_gym.scenarios import simulator_id

DEFAULT = "world"
"""Name of a world with default settings."""
ACTIONS = 16
"""Batches of random actions that are drawn before the clock runs, and taken one after the other."""


@dataclass
class Contender:
    """A vector environment that is timed."""

    name: str
    kind: Literal["world", "option", "simulator"]
    envs: gym.vector.VectorEnv
    frames: int
    """Frames of video that a step of one environment makes."""
    rates: list[float] = field(default_factory=list)
    """Steps a second of the whole vector, in each turn."""
    _actions: list[np.ndarray] = field(default_factory=list)
    _taken: int = 0

    def warm_up(self, steps: int = 2) -> None:
        """Reset, and step off the clock."""
        self.envs.reset(seed=0)
        self.envs.action_space.seed(0)
        self._actions = [self.envs.action_space.sample() for _ in range(ACTIONS)]
        for _ in range(steps):
            self._step()

    def turn(self, seconds: float) -> None:
        """Step for so many seconds, at least once; the reset of what ends is part of it."""
        steps, began = 0, time.perf_counter()
        while steps == 0 or time.perf_counter() - began < seconds:
            self._step()
            steps += 1
        self.rates.append(steps / (time.perf_counter() - began))

    def _step(self) -> None:
        self.envs.step(self._actions[self._taken % ACTIONS])
        self._taken += 1

    def figures(self) -> dict[str, Any]:
        """Medians over the turns, and the slowest and the fastest turn."""
        rate, count = float(np.median(self.rates)), self.envs.num_envs
        return {
            "name": self.name,
            "kind": self.kind,
            "worlds": count,
            "frames_per_second": self.frames * count * rate,
            "frames_per_second_range": [self.frames * count * float(f(self.rates)) for f in (np.min, np.max)],
            "steps_per_second": count * rate,
            "step_milliseconds": 1000 / rate,
        }


def take_turns(contenders: Sequence[Contender], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Time all contenders, one after the other, in so many rounds.

    Args:
        contenders: they are reset.
        rounds: turns of each.
        seconds: of a turn; a step that has begun is finished.
    """
    for contender in tqdm(contenders, desc="warm up", leave=False):
        contender.warm_up()
    with tqdm(total=rounds * len(contenders), desc="side by side", unit="turn", leave=False) as bar:
        for _ in range(rounds):
            for contender in contenders:
                contender.turn(seconds)
                bar.update()
    return [contender.figures() for contender in contenders]


def world_contender(
    world: str | Path,
    scenario: str,
    count: int,
    device: str,
    options: dict[str, Any] | None = None,
    name: str = DEFAULT,
) -> Contender:
    """So many worlds in one batch, with further arguments of :class:`astra_gym.envs.AstraVectorEnv`."""
    from astra_gym.envs import AstraVectorEnv
    from astra_gym.evaluation.bench_stages import world_of

    envs = AstraVectorEnv(scenario, count, world=world, device=device, **(options or {}))
    frames = world_of(envs).bundle.config.frames_per_block
    return Contender(name, "option" if options else "world", envs, frames)


_PRELOADED = ["__main__", "astra_gym.simulators.blocks", "gymnasium.envs.box2d.car_racing"]
"""What the server imports once for all simulators; MuJoCo, which opens the display, must not be among it."""


def simulator_ids(scenario: str) -> dict[str, int]:
    """A scenario's true simulators, and the frames that one of their steps makes."""
    plain = {"CarRacing-v3": 1} if scenario == "drive" else {}
    return plain | {simulator_id(scenario): 4}


def simulator_contenders(scenario: str, counts: Sequence[int]) -> Iterator[Contender]:
    """True simulators, which step and render, in Gymnasium's two vector environments."""
    # What is forked from a process that has drawn with OpenGL hangs, so processes are forked from a clean server.
    clean = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    multiprocessing.set_forkserver_preload(_PRELOADED)
    for mode, arguments in {"async": {"context": clean}, "sync": {}}.items():
        for name, frames in simulator_ids(scenario).items():
            for count in counts:
                envs = gym.make_vec(name, count, vectorization_mode=mode, vector_kwargs=arguments)
                yield Contender(f"{name}, {mode}", "simulator", envs, frames)
