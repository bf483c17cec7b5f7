"""Drift in the Drive world, where an agent that looks at the frames keeps the car on the road."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from astra_gym.actions import DRIVE
from astra_gym.bundles import Start
from astra_gym.data.episodes import Episode
from astra_gym.evaluation.drift import MEASURES, Measures, against_truth, course, save_strip
from astra_gym.evaluation.egomotion import speed_and_turn
from astra_gym.evaluation.metrics import on_road, road_visible
from astra_gym.simulators import replay_start
from astra_gym.world import World

SIMULATORS = 4
"""Starts from which the agent also drives in the simulator, which takes longer than the dream. Where the two stand side
by side, so many worlds of the dream are taken, those of the same starts."""

STRAIGHT, BEND = np.radians(10), np.radians(30)
"""A road is straight if its part in sight turns by less, and bends if it turns by more."""
AHEAD = 6
"""Blocks in which a straight road may come to bend."""


def _turns(frames: np.ndarray) -> np.ndarray:
    """By how many radians the road in sight turns, ``(...)`` of frames ``uint8 (..., H, W, 3)``."""
    from astra_gym.agents.road import RoadView

    turns = [RoadView(frame).bend() for frame in frames.reshape(-1, *frames.shape[-3:])]
    return np.array(turns).reshape(frames.shape[:-3])


def bends(frames: np.ndarray) -> float:
    """Share of frames ``uint8 (..., H, W, 3)`` whose road bends."""
    return float((_turns(frames) > BEND).mean())


def bends_to_come(frames: np.ndarray) -> float | None:
    """Share of straight roads that bend :data:`AHEAD` blocks later, of the newest frames of consecutive blocks
    ``uint8 (N, blocks, H, W, 3)``; None without any."""
    turns = _turns(frames)
    later = turns[:, AHEAD:][turns[:, :-AHEAD] < STRAIGHT]
    return float((later > BEND).mean()) if later.size else None


ROAD: Measures = {
    "road_visible": lambda frames: float(road_visible(frames).mean()),
    "on_road": lambda frames: float(on_road(frames).mean()),
}
BENDS: Measures = {"bends": bends}


class Driven(NamedTuple):
    """What an agent saw of N worlds that it drove through."""

    frames: np.ndarray
    """The newest of each block, ``uint8 (N, blocks, H, W, 3)``."""
    speed: list[float]
    """Mean speed of the first :data:`SIMULATORS` at each horizon in m/s, as the ground passes in the picture."""


def dream(
    world: World, starts: Sequence[Start], agent: str, horizons: Sequence[int], seed: int
) -> tuple[Driven, np.ndarray]:
    """Let an agent drive a batch of worlds, one a start, on their own history.

    Returns:
        What it saw, and terminations ``bool (N, blocks)``, which do not stop a world.
    """
    from astra_gym.agents.policies import make_agent

    with gym.make("AstraSim/Drive-v0") as sim:
        agents = [make_agent(agent, sim) for _ in starts]
    for number, driver in enumerate(agents):
        driver.reset(seed + number)
    newest = world.reset(starts, [seed + number for number in range(len(starts))])
    made, terminated, whole = [], [], {}
    for number in tqdm(range(1, max(horizons) + 1), unit="block", desc="drift: dream", leave=False):
        actions = np.stack([driver.act(block) for driver, block in zip(agents, newest, strict=True)])
        step = world.step(DRIVE.rows(actions))
        newest = step.frames
        made.append(newest[:, -1])
        terminated.append(step.terminated)
        if number in horizons:
            whole[number] = newest
    return Driven(np.stack(made, 1), _speeds(whole, horizons)), np.stack(terminated, 1)


def _speeds(blocks: Mapping[int, np.ndarray | list[np.ndarray]], horizons: Sequence[int]) -> list[float]:
    return [float(speed_and_turn(np.asarray(blocks[horizon][:SIMULATORS]))[:, 0].mean()) for horizon in horizons]


def drive_simulator(starts: Sequence[Start], agent: str, horizons: Sequence[int], seed: int) -> Driven:
    """The same agent from the same starts in the simulator; an episode that ends goes on with a new track."""
    from astra_gym.agents.policies import make_agent

    blocks = max(horizons)
    made: list[list[np.ndarray]] = []
    whole: dict[int, list[np.ndarray]] = {horizon: [] for horizon in horizons}
    with (
        gym.make("AstraSim/Drive-v0", max_episode_blocks=None, disable_env_checker=True) as sim,
        tqdm(total=len(starts) * blocks, unit="block", desc="drift: simulator", leave=False) as bar,
    ):
        driver = make_agent(agent, sim)
        for number, start in enumerate(starts):
            block, _ = replay_start(sim, start)
            driver.reset(seed + number)
            made.append([])
            for step in range(blocks):
                block, _, terminated, truncated, _ = sim.step(driver.act(block))
                made[-1].append(block[-1])
                if step + 1 in whole:
                    whole[step + 1].append(block)
                if terminated or truncated:
                    block, _ = sim.reset(seed=2_000_000 + 1000 * number + step)
                    driver.reset(seed + number)
                bar.update()
    return Driven(np.array(made), _speeds(whole, horizons))


def judge_drive_drift(
    world: World,
    starts: Sequence[Start],
    episodes: Sequence[Episode],
    horizons: Sequence[int],
    agent: str,
    seed: int,
    output: Path,
) -> dict[str, Any]:
    """Compare frames after many blocks of an agent's driving with true frames.

    The true frames are all those of held-out episodes that show a road; the worlds of all starts are compared with
    them. Since sharpness depends on what is in the picture, it is also set against what the same agent sees in the
    simulator. That, the speeds and whatever is named alike "dream_..." and "simulator_..." are of the first
    :data:`SIMULATORS` starts in both; "dream_terminations" counts all worlds.

    Args:
        world: of as many worlds as there are starts.
        starts: with counterparts in the simulator.
        episodes: held out.
        horizons: blocks after which to measure.
        agent: name for ``astra_gym.agents.policies.make_agent``.
        seed: of the first world.
        output: folder for ``drift_drive.png``.
    """
    dreamt, terminated = dream(world, starts, agent, horizons, seed)
    driven = drive_simulator(starts[:SIMULATORS], agent, horizons, seed)
    save_strip(output / "drift_drive.png", dreamt.frames, "Driven by a scripted agent on the world's own history")
    true = np.concatenate([episode.blocks[1:, -1] for episode in episodes])
    true = true[road_visible(true)]
    figures = against_truth(world, dreamt.frames, [true] * len(horizons), episodes, horizons, MEASURES | ROAD | BENDS)
    paired = dreamt.frames[: len(driven.frames)]
    truly = course(driven.frames, horizons, MEASURES | ROAD)
    gradients = zip(course(paired, horizons, MEASURES)["gradient"], truly["gradient"], strict=True)
    figures |= {
        "agent": agent,
        "paired_worlds": len(paired),
        "ratio_to_simulator": [a / b for a, b in gradients],
        "simulator": truly | {"speed": driven.speed},
        "true_bends": bends(true),
        "blocks_ahead": AHEAD,
        "dream": figures["dream"] | {"speed": dreamt.speed},
        "dream_terminations": int(terminated.any(1).sum()),
    }
    for name, measure in (ROAD | {"bends_to_come": bends_to_come}).items():
        figures[f"dream_{name}"], figures[f"simulator_{name}"] = measure(paired), measure(driven.frames)
    return figures
