"""What becomes of a world that lives on its own history: does it stay sharp, coloured and drivable?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from astra_gym.actions import Modality
from astra_gym.bundles import Start
from astra_gym.data.episodes import Episode
from astra_gym.evaluation.fidelity import reconstruct
from astra_gym.evaluation.metrics import fine_detail, gradient_magnitude, on_road, road_visible
from astra_gym.evaluation.pictures import save_grid
from astra_gym.simulators import replay_start
from astra_gym.world import World

WINDOW = 8
"""A measure "after n blocks" is the mean over the blocks n - 7 to n: what single frames show differs too much."""
SIMULATORS = 4
"""Starts from which the agent also drives in the simulator, which takes longer than the dream."""
STRIP = (1, 25, 125, 250, 500)
"""Blocks in the picture; four frames a block."""


def dream(world: World, modality: Modality, starts: Sequence[Start], agent: str, blocks: int, seed: int):
    """Let an agent drive a batch of worlds, one a start, on their own history.

    Returns:
        Blocks ``uint8 (N, blocks, K, H, W, 3)`` and terminations ``bool (N, blocks)``, which do not stop a world.
    """
    from astra_gym.agents.policies import make_agent

    with gym.make("AstraSim/Drive-v0") as sim:
        agents = [make_agent(agent, sim) for _ in starts]
    for number, driver in enumerate(agents):
        driver.reset(seed + number)
    newest = world.reset(starts, [seed + number for number in range(len(starts))])
    made, terminated = [], []
    for _ in tqdm(range(blocks), unit="block", desc="drift: dream", leave=False):
        actions = np.stack([driver.act(block) for driver, block in zip(agents, newest, strict=True)])
        step = world.step(modality.rows(actions))
        newest = step.frames
        made.append(newest)
        terminated.append(step.terminated)
    return np.stack(made, 1), np.stack(terminated, 1)


def drive_simulator(starts: Sequence[Start], agent: str, blocks: int, seed: int) -> np.ndarray:
    """The same agent from the same starts in the simulator, ``uint8 (N, blocks, K, H, W, 3)``.

    An episode that ends on the way goes on with a new track.
    """
    from astra_gym.agents.policies import make_agent

    made: list[list[np.ndarray]] = []
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
                made[-1].append(block)
                if terminated or truncated:
                    block, _ = sim.reset(seed=2_000_000 + 1000 * number + step)
                    driver.reset(seed + number)
                bar.update()
    return np.array(made)


def judge_drift(
    world: World,
    modality: Modality,
    starts: Sequence[Start],
    episodes: Sequence[Episode],
    horizons: Sequence[int],
    agent: str,
    seed: int,
    output: Path,
) -> dict[str, Any]:
    """Compare frames after many blocks of the world's own history with true frames.

    Sharpness is the mean gradient magnitude, detail the mean Laplacian. Both are set against the true held-out frames
    that show a road. Since they depend on what is in the picture, sharpness is also set against what the same agent
    sees from the same starts in the simulator.

    Args:
        world: of as many worlds as there are starts.
        modality: what an action means.
        starts: with counterparts in the simulator.
        episodes: held out.
        horizons: blocks after which to measure.
        agent: name for ``astra_gym.agents.policies.make_agent``.
        seed: of the first world.
        output: folder for ``drift.png``.
    """
    blocks = max(horizons)
    dreamt, terminated = dream(world, modality, starts, agent, blocks, seed)
    driven = drive_simulator(starts[:SIMULATORS], agent, blocks, seed)
    true = np.concatenate([episode.blocks[1:, -1] for episode in episodes])
    true = true[road_visible(true)]
    sharpness, detail = float(gradient_magnitude(true).mean()), float(fine_detail(true).mean())
    sample = np.concatenate([episode.blocks[1::16] for episode in episodes])
    reconstructed, sample = reconstruct(world, sample[None])[0, :, -1], sample[:, -1]
    shown = [block for block in STRIP if block <= blocks]
    save_grid(
        output / "drift.png",
        dreamt[:, [block - 1 for block in shown], -1],
        [f"world {number + 1}" for number in range(len(starts))],
        [f"frame {4 * block}" for block in shown],
        "Driven by a scripted agent on the world's own history",
    )
    seen, truly = _course(dreamt, horizons), _course(driven, horizons)
    return {
        "blocks": list(horizons),
        "window_blocks": WINDOW,
        "worlds": len(starts),
        "agent": agent,
        "gradient_true": sharpness,
        "detail_true": detail,
        "autoencoder_ratio_to_true": _ratio(gradient_magnitude, reconstructed, sample),
        "autoencoder_detail_ratio_to_true": _ratio(fine_detail, reconstructed, sample),
        "ratio_to_true": [value / sharpness for value in seen["gradient"]],
        "detail_ratio_to_true": [value / detail for value in seen["detail"]],
        "ratio_to_simulator": [a / b for a, b in zip(seen["gradient"], truly["gradient"], strict=True)],
        "colour_true": _colour(true),
        "dream": seen,
        "simulator": truly,
        "dream_road_visible": float(road_visible(dreamt[:, :, -1]).mean()),
        "simulator_road_visible": float(road_visible(driven[:, :, -1]).mean()),
        "dream_on_road": float(on_road(dreamt[:, :, -1]).mean()),
        "simulator_on_road": float(on_road(driven[:, :, -1]).mean()),
        "dream_terminations": int(terminated.any(1).sum()),
    }


def _course(blocks: np.ndarray, horizons: Sequence[int]) -> dict[str, list]:
    """The measures of ``(N, S, K, H, W, 3)`` in a window up to each horizon."""
    windows = [blocks[:, max(0, horizon - WINDOW) : horizon, -1] for horizon in horizons]
    return {
        "gradient": [float(gradient_magnitude(window).mean()) for window in windows],
        "detail": [float(fine_detail(window).mean()) for window in windows],
        "road_visible": [float(road_visible(window).mean()) for window in windows],
        "on_road": [float(on_road(window).mean()) for window in windows],
        "colour": [_colour(window) for window in windows],
    }


def _ratio(measure: Callable[[np.ndarray], np.ndarray], frames: np.ndarray, truth: np.ndarray) -> float:
    return float(measure(frames).mean() / measure(truth).mean())


def _colour(frames: np.ndarray) -> dict[str, list[float]]:
    """Mean and standard deviation of red, green and blue."""
    values = frames.reshape(-1, 3)
    return {"mean": values.mean(0).round(2).tolist(), "std": values.std(0).round(2).tolist()}
