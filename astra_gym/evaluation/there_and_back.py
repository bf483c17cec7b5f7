"""There and back: actions, then their inverses. Does the world return to the view from which it went?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from astra_gym.actions import Modality
from astra_gym.bundles import Start
from astra_gym.evaluation.heldout import Clip, episodes_of
from astra_gym.evaluation.intervals import estimate_mean
from astra_gym.evaluation.metrics import psnr, squared_error
from astra_gym.evaluation.pictures import save_grid
from astra_gym.evaluation.rollout import roll
from astra_gym.scenarios import simulator_id
from astra_gym.simulators import replay_start
from astra_gym.world import World

REST = 2
"""Blocks without motion before the way out and after the way back, in which speed is lost."""
OTHERS = 8
"""Random other views of the same scene to which the last one is compared."""


class Journey(NamedTuple):
    """An action held for some blocks; the way back is its negative for as many."""

    action: tuple[float, ...]
    blocks: int


QUARTER = float(np.pi / 2 / (10 * 0.2))
"""Rad/s that turn a camera by 90 degrees in 10 blocks."""
JOURNEYS: dict[str, dict[str, Journey]] = {
    "camera": {
        "turn left 90° and back": Journey((0.0, 0.0, 0.0, QUARTER, 0.0, 0.0), 10),
        "turn left 27° and back": Journey((0.0, 0.0, 0.0, QUARTER, 0.0, 0.0), 3),
        "right 0.3 m and back": Journey((0.5, 0.0, 0.0, 0.0, 0.0, 0.0), 3),
    },
    "drone": {
        "turn left 34° and back": Journey((0.0, 0.0, 0.0, 1.0), 3),
        "left 0.3 m and back": Journey((0.0, 0.5, 0.0, 0.0), 3),
        "up 0.3 m and back": Journey((0.0, 0.0, 0.5, 0.0), 3),
    },
    "manipulation": {
        "gripper up 8 cm and back": Journey((0.0, 0.0, 0.3, 0.0), 2),
    },
}
"""By scenario; a car has no inverse of its actions."""


def judge_return(
    world: World, modality: Modality, clips: Sequence[Clip], starts: Sequence[Start], seed: int, output: Path
) -> dict[str, Any]:
    """Make each journey of the scenario from each start, in the dream and in the simulator.

    The first view is that after :data:`REST` blocks without motion, the last one that after as many at the end. The
    last view's PSNR to the first stands beside its mean PSNR to random other views of the same episode, and beside that
    to the farthest view of the journey.

    Args:
        world: of any number of worlds.
        modality: of a scenario in :data:`JOURNEYS`.
        clips: held out; their episodes give the other views.
        starts: of the clips, with counterparts in the simulator.
        seed: of the first world and of the other views.
        output: folder for the picture.
    """
    rng = np.random.default_rng(seed)
    choices = [rng.integers(1, len(clip.episode.blocks), OTHERS) for clip in clips]
    others = np.stack([clip.episode.blocks[chosen, -1:] for clip, chosen in zip(clips, choices, strict=True)])
    episodes = episodes_of(clips)
    figures: dict[str, Any] = {"starts": len(starts), "rest_blocks": REST, "journeys": {}}
    shown, labels = [], []
    for name, journey in JOURNEYS[modality.name].items():
        course = actions_of(journey)
        actions = np.broadcast_to(course, (len(starts), *course.shape))
        made = {
            "dream": roll(world, starts, modality.rows(actions), seed, f"there and back: {name}").blocks,
            "simulator": simulate(modality, starts, course),
        }
        figures["journeys"][name] = {"blocks": 2 * journey.blocks} | {
            where: _compare(blocks, journey.blocks, others, episodes, seed) for where, blocks in made.items()
        }
        places = [REST - 1, REST - 1 + journey.blocks, len(course) - 1]
        shown += [blocks[0, places, -1] for blocks in made.values()]
        labels += [f"{name}, {where}" for where in made]
    save_grid(
        output / f"back_{modality.name}.png", np.stack(shown), labels, ["first", "farthest", "last"], "There and back"
    )
    return figures


def actions_of(journey: Journey) -> np.ndarray:
    """Rest, way out, way back and rest, ``float32 (2 * REST + 2 * blocks, action_dim)``."""
    out = np.tile(np.array(journey.action, np.float32), (journey.blocks, 1))
    rest = np.zeros((REST, out.shape[1]), np.float32)
    return np.concatenate([rest, out, -out, rest])


def simulate(modality: Modality, starts: Sequence[Start], actions: np.ndarray) -> np.ndarray:
    """What the simulator makes of ``actions (S, action_dim)`` from each start, ``uint8 (N, S, K, H, W, 3)``."""
    made = []
    with gym.make(simulator_id(modality.name), max_episode_blocks=None, disable_env_checker=True) as sim:
        for start in tqdm(starts, desc="there and back: simulator", leave=False):
            replay_start(sim, start)
            made.append([sim.step(action)[0] for action in actions])
    return np.array(made)


def _compare(blocks: np.ndarray, out: int, others: np.ndarray, episodes: Sequence[int], seed: int) -> dict[str, Any]:
    """PSNR in dB of the last view to the first, the farthest and other ones, and how much closer the first is.

    Args:
        blocks: of the whole journeys, ``uint8 (N, S, K, H, W, 3)``.
        out: blocks of the way out.
        others: views ``uint8 (N, OTHERS, 1, H, W, 3)``.
        episodes: number of each journey's.
        seed: of the interval.
    """
    last = blocks[:, -1, -1:]
    first = psnr(squared_error(last, blocks[:, REST - 1, -1:]))
    farthest = psnr(squared_error(last, blocks[:, REST - 1 + out, -1:]))
    other = psnr(squared_error(last[:, None], others)).mean(1)
    return {
        "to_first": float(first.mean()),
        "to_farthest": float(farthest.mean()),
        "to_other": float(other.mean()),
        "closer_than_other": estimate_mean(first - other, seed, groups=episodes),
    }
