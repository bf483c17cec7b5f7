"""Whether a block that is pushed moves the right way, judged on frames alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tqdm import tqdm

from astra_gym.actions import MANIPULATION
from astra_gym.agents.block_pusher import TableView
from astra_gym.bundles import Start
from astra_gym.evaluation.intervals import estimate_share
from astra_gym.evaluation.metrics import correlation
from astra_gym.evaluation.pictures import save_grid
from astra_gym.evaluation.rollout import roll
from astra_gym.simulators.push import METRES_PER_ACTION, PUSH_HEIGHT, SAFE_HEIGHT
from astra_gym.world import World

FIRST_SEED = 1_000_000
"""Of the scenes, those of held-out data."""
DIRECTIONS = {"right": (1.0, 0.0), "left": (-1.0, 0.0), "near": (0.0, -1.0)}
"""Along the table's axes, tried in turn. Pushed away from the camera, a block would be hidden by the arm."""
BESIDE = 0.075
"""Metres from the block's middle at which the gripper stands before it pushes."""
PUSH, PUSH_BLOCKS = 0.3, 4
"""Action and blocks of a push."""
APPROACH, LONGEST = 0.35, 30
"""Length of the longest actions of the approach, and the blocks after which it has failed."""
FIELD_LOW, FIELD_HIGH = np.array([1.18, 0.58]), np.array([1.50, 0.92])
"""Where the gripper must stand and the block must arrive, metres."""
LEAST_MOVE, MOST_ASIDE = 0.02, np.deg2rad(45.0)
"""Metres that a block must move, and the angle from the push within which it moves the right way."""


@dataclass
class Push:
    """A gripper beside a block, and a push."""

    start: Start
    blocks: np.ndarray
    """The true past, ``uint8 (T, K, H, W, 3)``."""
    direction: str
    place: np.ndarray
    """Where the block truly is, ``(2,)`` metres."""


def prepare(world: World, count: int, seed: int) -> list[Push]:
    """Bring the gripper beside the block in held-out scenes of the simulator.

    Args:
        world: for its autoencoder.
        count: pushes.
        seed: added to that of the first scene; left out are scenes where a push does not fit on the table, or where the
            detector does not see the block before it.
    """
    pushes: list[Push] = []
    with gym.make("AstraSim/Manipulation-v0", max_episode_blocks=None, disable_env_checker=True) as sim:
        scene = FIRST_SEED + seed
        with tqdm(total=count, unit="start", desc="pushing: approach", leave=False) as bar:
            while len(pushes) < count:
                direction = list(DIRECTIONS)[len(pushes) % len(DIRECTIONS)]
                push = _approach(sim, world, scene, direction)
                if push is not None:
                    pushes.append(push)
                    bar.update()
                scene += 1
    return pushes


def _approach(sim: gym.Env, world: World, scene: int, direction: str) -> Push | None:
    """Over the block and down beside it; None if the push does not fit, or the block was touched or is not seen."""
    ahead = np.array(DIRECTIONS[direction])
    block, info = sim.reset(seed=scene)
    place = info["block"][:2].copy()
    beside, arrival = place - BESIDE * ahead, place + PUSH * METRES_PER_ACTION * PUSH_BLOCKS * ahead
    for point in (beside, arrival):
        if (point < FIELD_LOW).any() or (point > FIELD_HIGH).any():
            return None
    blocks: list[np.ndarray] = []
    actions: list[np.ndarray] = []
    while (way := _way(info["gripper"], beside)) is not None:
        if len(actions) == LONGEST:
            return None
        actions.append(np.array([*way, 0.0], np.float32))
        block, _, _, _, info = sim.step(actions[-1])
        blocks.append(block)
    touched = np.linalg.norm(info["block"][:2] - place) > 0.01
    if not actions or touched or TableView(block[-1]).block is None:
        return None
    past = np.stack(blocks)
    start = Start(
        latents=world.encode(past.reshape(-1, *past.shape[2:])).float().cpu(),
        rows=torch.from_numpy(MANIPULATION.rows(np.stack(actions))),
        sim_seed=scene,
        sim_actions=np.stack(actions),
    )
    return Push(start, past, direction, info["block"][:2].copy())


def _way(gripper: np.ndarray, beside: np.ndarray) -> np.ndarray | None:
    """The next motion of the approach as an action ``(3,)``; None once the gripper is there."""
    aside = beside - gripper[:2]
    if np.linalg.norm(aside) < 0.012:
        if gripper[2] < PUSH_HEIGHT + 0.012:
            return None
        way = np.array([*aside, PUSH_HEIGHT - gripper[2]])
    elif gripper[2] < SAFE_HEIGHT - 0.02:
        way = np.array([0.0, 0.0, SAFE_HEIGHT - gripper[2]])
    else:
        way = np.array([*aside, SAFE_HEIGHT - gripper[2]])
    motion = way / METRES_PER_ACTION
    return motion * min(1.0, APPROACH / max(float(np.linalg.norm(motion)), 1e-6))


def judge_pushing(world: World, pushes: list[Push], seed: int, output: Path) -> dict[str, Any]:
    """Push from each start, in the dream and in the simulator, and see where the block goes.

    The block's way is that between its places in the true newest frame before the push and in the last frame of the
    push, as a colour detector sees them in both; a block that it does not see has not moved the right way. The detector
    is judged in the simulator, against where the block truly went.

    Args:
        world: of any number of worlds.
        pushes: where to begin.
        seed: of the first world.
        output: folder for the picture.
    """
    ahead = np.array([DIRECTIONS[push.direction] for push in pushes])
    courses = np.zeros((len(pushes), PUSH_BLOCKS, MANIPULATION.action_dim), np.float32)
    courses[..., :2] = PUSH * ahead[:, None]
    dreamt = roll(world, [push.start for push in pushes], MANIPULATION.rows(courses), seed, "pushing: dream").blocks
    simulated, true_ways = _simulate(pushes, courses)
    before = np.stack([push.blocks[-1, -1] for push in pushes])
    frames = {"dream": dreamt[:, :, -1], "simulator": simulated[:, :, -1]}
    ways = {name: _ways(before, each[:, -1]) for name, each in frames.items()}
    _draw(before, dreamt, simulated, pushes, output)
    seen = np.isfinite(ways["simulator"]).all(-1)
    figures: dict[str, Any] = {"starts": len(pushes), "push_blocks": PUSH_BLOCKS}
    figures["true_right_way"] = float(_right_way(true_ways, ahead).mean())
    for name, way in ways.items():
        right = _right_way(way, ahead)
        along = (way * ahead).sum(-1)
        figures[name] = {
            "right_way": estimate_share(right),
            "right_way_by_blocks": [
                float(_right_way(_ways(before, frames[name][:, block]), ahead).mean()) for block in range(PUSH_BLOCKS)
            ],
            "seen": float(np.isfinite(along).mean()),
            "centimetres": 100 * float(np.nanmean(along)) if np.isfinite(along).any() else None,
            "right_way_by_direction": {
                direction: float(right[[push.direction == direction for push in pushes]].mean())
                for direction in sorted({push.direction for push in pushes})
            },
        }
    figures["detector"] = {
        "correlation": correlation(ways["simulator"][seen], true_ways[seen]),
        "error_centimetres": 100 * float(np.linalg.norm(ways["simulator"] - true_ways, axis=-1)[seen].mean()),
        "agrees": float((_right_way(ways["simulator"], ahead) == _right_way(true_ways, ahead)).mean()),
    }
    return figures


def _simulate(pushes: list[Push], courses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames ``uint8 (N, S, K, H, W, 3)`` and the block's true way ``(N, 2)`` in metres."""
    from astra_gym.simulators import replay_start

    made, ways = [], []
    with gym.make("AstraSim/Manipulation-v0", max_episode_blocks=None, disable_env_checker=True) as sim:
        for push, course in zip(tqdm(pushes, desc="pushing: simulator", leave=False), courses, strict=True):
            replay_start(sim, push.start)
            steps = [sim.step(action) for action in course]
            made.append([step[0] for step in steps])
            ways.append(steps[-1][4]["block"][:2] - push.place)
    return np.array(made), np.array(ways)


def _ways(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The block's way in metres between frames ``(N, H, W, 3)``, ``(N, 2)``; NaN where it is not seen in both."""
    places = [[TableView(frame).block for frame in frames] for frames in (before, after)]
    nowhere = np.full(2, np.nan)
    first, last = (np.stack([nowhere if place is None else place for place in each]) for each in places)
    return last - first


def _right_way(ways: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """Whether ways ``(N, 2)`` are long enough and lead where the push does, ``bool (N,)``."""
    length, along = np.linalg.norm(ways, axis=-1), (ways * ahead).sum(-1)
    with np.errstate(invalid="ignore"):
        return (length >= LEAST_MOVE) & (along >= np.cos(MOST_ASIDE) * length)


def _draw(before: np.ndarray, dreamt: np.ndarray, simulated: np.ndarray, pushes: list[Push], output: Path) -> None:
    """The first push in each direction: the frame before it, and the last of each block."""
    shown, labels = [], []
    for number in range(min(len(DIRECTIONS), len(pushes))):
        for name, blocks in (("dream", dreamt), ("simulator", simulated)):
            shown.append(np.concatenate([before[number, None], blocks[number, :, -1]]))
            labels.append(f"push {pushes[number].direction}, {name}")
    columns = ["before", *(f"block {block + 1}" for block in range(PUSH_BLOCKS))]
    save_grid(output / "pushing.png", np.stack(shown), labels, columns, "Pushes beside the block, held-out scenes")
