"""Whether the world obeys: the same starts with opposite actions, in the dream and in the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from astra_gym.actions import Modality
from astra_gym.bundles import Start
from astra_gym.data.episodes import Episode
from astra_gym.evaluation.egomotion import speed_and_turn
from astra_gym.evaluation.heldout import Clip
from astra_gym.evaluation.metrics import correlation, on_road, squared_error
from astra_gym.evaluation.pictures import save_grid
from astra_gym.evaluation.rollout import roll
from astra_gym.simulators import replay_start
from astra_gym.world import World

ORDERS = {
    "left": (-1.0, 0.2, 0.0),
    "right": (1.0, 0.2, 0.0),
    "gas": (0.0, 1.0, 0.0),
    "brake": (0.0, 0.0, 0.8),
}
"""Steer, gas and brake, held from the start on."""
BLOCKS = 12
STEERED = 4
"""Blocks over which turning is measured; speed is measured over the blocks from the eighth on."""
BLOCK_SECONDS = 0.08


def driving_clips(episodes: Sequence[Episode], count: int, context: int) -> list[Clip]:
    """Contexts that end on the road at 15 m/s or more, soon after an episode's beginning, at most one an episode.

    Raises:
        ValueError: if there is none.
    """
    chosen: list[Clip] = []
    for episode in episodes:
        for now in range(max(context, 16), min(49, len(episode.actions)), 8):
            newest = episode.blocks[now]
            if on_road(newest[-1]) and speed_and_turn(newest)[0] >= 15.0:
                chosen.append(Clip(episode, now - context + 1, context, 0))
                break
        if len(chosen) == count:
            break
    if not chosen:
        raise ValueError("data: no episode begins on the road at speed; collect some of a driver that follows it")
    return chosen


def simulate(starts: Sequence[Start], actions: np.ndarray) -> np.ndarray:
    """What the simulator makes of ``actions (N, S, action_dim)`` from each start, ``uint8 (N, S, K, H, W, 3)``."""
    made = []
    with gym.make("AstraSim/Drive-v0", max_episode_blocks=None, disable_env_checker=True) as sim:
        for start, course in zip(tqdm(starts, desc="control: simulator", leave=False), actions, strict=True):
            replay_start(sim, start)
            made.append([sim.step(action)[0] for action in course])
    return np.array(made)


def judge_control(world: World, modality: Modality, starts: Sequence[Start], seed: int, output: Path) -> dict[str, Any]:
    """Give each start four orders and see what they do, in the dream and in the simulator.

    Speed and turning are measured from the frames alone, the same way in both. "Recognised" is the share of starts
    whose dream is closer, in squared error, to the simulator under the same order than under the opposite one.

    Args:
        world: of any number of worlds.
        modality: what an action means.
        starts: with counterparts in the simulator.
        seed: of the first world.
        output: folder for ``control.png``.
    """
    count = len(starts)
    actions = np.repeat(np.array(list(ORDERS.values()), np.float32), count, 0)[:, None].repeat(BLOCKS, 1)
    everywhere = [start for _ in ORDERS for start in starts]
    dream = roll(world, everywhere, modality.rows(actions), seed, "control: dream").blocks
    blocks = {
        "dream": dream.reshape(len(ORDERS), count, *dream.shape[1:]),
        "simulator": simulate(everywhere, actions).reshape(len(ORDERS), count, *dream.shape[1:]),
    }
    _draw(blocks, output)
    motion = {name: speed_and_turn(made) for name, made in blocks.items()}
    # Degrees to the left over the first blocks, and m/s over the last; each (orders, starts).
    turn = {name: rates[:, :, :STEERED, 1].sum(2) * BLOCK_SECONDS for name, rates in motion.items()}
    speed = {name: rates[:, :, 7:, 0].mean(2) for name, rates in motion.items()}
    left, right, gas, brake = range(len(ORDERS))
    figures: dict[str, Any] = {"starts": count, "blocks_steered": STEERED, "blocks": BLOCKS}
    for name in blocks:
        figures[name] = {
            "turn_left_degrees": float(turn[name][left].mean()),
            "turn_right_degrees": float(turn[name][right].mean()),
            "opposite_turns": float(((turn[name][left] > 0) & (turn[name][right] < 0)).mean()),
            "speed_gas": float(speed[name][gas].mean()),
            "speed_brake": float(speed[name][brake].mean()),
            "gas_faster": float((speed[name][gas] > speed[name][brake]).mean()),
        }
    differences = {name: np.sign(values[left] - values[right]) for name, values in turn.items()}
    figures["steering_sign_agreement"] = float((differences["dream"] == differences["simulator"]).mean())
    figures["turn_correlation"] = correlation(turn["dream"], turn["simulator"])
    figures["speed_correlation"] = correlation(speed["dream"], speed["simulator"])
    figures["recognised_steering"] = _recognised(blocks, left, right, STEERED)
    figures["recognised_pedals"] = _recognised(blocks, gas, brake, BLOCKS)
    return figures


def _recognised(blocks: dict[str, np.ndarray], one: int, other: int, after: int) -> float:
    last = {name: made[:, :, after - 1] for name, made in blocks.items()}
    closer = [
        squared_error(last["dream"][a], last["simulator"][a]) < squared_error(last["dream"][a], last["simulator"][b])
        for a, b in ((one, other), (other, one))
    ]
    return float(np.mean(closer))


def _draw(blocks: dict[str, np.ndarray], output: Path) -> None:
    """One start: each order in the dream and in the simulator."""
    shown = [1, 2, 3, 4, 6, 8, 10, 12]
    places = [block - 1 for block in shown]
    rows = np.stack([made[order, 0, places, -1] for order in range(len(ORDERS)) for made in blocks.values()])
    labels = [f"{order}, {name}" for order in ORDERS for name in blocks]
    save_grid(output / "control.png", rows, labels, [f"block {block}" for block in shown], "One start, four orders")
