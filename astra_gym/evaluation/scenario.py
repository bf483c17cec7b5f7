"""Everything that is measured of one scenario alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from astra_gym.actions import DRIVE, Modality
from astra_gym.bundles import Bundle
from astra_gym.data.episodes import Episode
from astra_gym.evaluation import (
    action_following,
    camera_pose,
    control,
    drift,
    drift_drive,
    heads,
    heldout,
    inverse_dynamics,
    there_and_back,
)
from astra_gym.evaluation.fidelity import judge_fidelity
from astra_gym.evaluation.heldout import Clip
from astra_gym.evaluation.pictures import save_grid
from astra_gym.evaluation.rollout import Rollout, read_truth, roll
from astra_gym.world import World

if TYPE_CHECKING:
    from astra_gym.evaluation.evaluate import EvaluateArgs

PARTS = ("fidelity", "drift", "control", "actions", "back", "pushing")
"""Those of a scenario alone."""
SHOWN = 4
"""Clips in the picture of dreams."""


def judge_scenario(
    args: EvaluateArgs, bundle: Bundle, name: str, part: str, episodes: Sequence[Episode]
) -> dict[str, Any]:
    """The figures of one part for one scenario; none where the scenario has no such part.

    Args:
        args: what to measure, and how much of it.
        bundle: the world.
        name: of the scenario.
        part: one of :data:`PARTS`.
        episodes: held out.
    """
    modality = bundle.config.modality(name)
    if part == "fidelity":
        return _fidelity_and_heads(args, bundle, modality, episodes)
    if part == "actions":
        return {"actions": _actions(args, bundle, modality, episodes)}
    if part == "back" and name in there_and_back.JOURNEYS:
        return {"back": _back(args, bundle, modality, episodes)}
    if part == "pushing" and name == "manipulation":
        from astra_gym.evaluation import pushing

        world = World(bundle, min(args.batch, args.pushes), modality=name)
        pushes = pushing.prepare(world, args.pushes, args.seed)
        return {"pushing": pushing.judge_pushing(world, pushes, args.seed, args.output)}
    if part in ("drift", "control") and name == "drive":
        return {part: _driving(args, bundle, episodes, part)}
    if part == "drift":
        clips = heldout.opening_clips(episodes, args.drift_worlds, args.context)
        world = World(bundle, len(clips), modality=name)
        return {"drift": drift.judge_drift(world, modality, clips, episodes, args.drift_blocks, args.seed, args.output)}
    return {}


def _fidelity_and_heads(
    args: EvaluateArgs, bundle: Bundle, modality: Modality, episodes: Sequence[Episode]
) -> dict[str, Any]:
    name, default = modality.name, bundle.config.inference_steps(modality.name)
    clips = heldout.choose_clips(episodes, args.clips, args.context, max(args.horizons), args.seed)
    batch = min(args.batch, len(clips))
    worlds = {
        steps: World(bundle, batch, modality=name, num_inference_steps=steps)
        for steps in sorted({*args.steps, default})
    }
    starts = [heldout.as_start(worlds[default], modality, clip) for clip in clips]
    rows = modality.rows(np.stack([clip.future_actions for clip in clips]))
    fidelity = judge_fidelity(worlds, default, clips, starts, rows, args.horizons, args.seed)
    _draw(clips, fidelity.rollout, args.horizons, args.output / f"dream_{name}.png")
    fidelity.figures["block_seconds"] = bundle.config.frames_per_block / modality.fps
    reader = World(bundle, min(args.batch, len(episodes)), modality=name)
    readings = read_truth(reader, modality, episodes, args.seed)
    figures: dict[str, Any] = {
        "fidelity": fidelity.figures,
        "reward": {
            "dream": heads.dreamt_reward(fidelity.rollout, clips),
            "true": heads.true_reward(readings, episodes),
        },
    }
    endings = heldout.ending_clips(episodes, args.context)
    if endings and name in bundle.config.termination_rewards:
        ending_starts = [heldout.as_start(worlds[default], modality, clip) for clip in endings]
        ending_rows = heads.ending_rows(endings, modality.rows)
        ending = roll(worlds[default], ending_starts, ending_rows, args.seed, "endings")
        figures["termination"] = {
            "dream": heads.dreamt_termination(ending, endings, fidelity.rollout, clips),
            "true": heads.true_termination(readings, episodes),
        }
    return figures


def _driving(args: EvaluateArgs, bundle: Bundle, episodes: Sequence[Episode], part: str) -> dict[str, Any]:
    count = args.control_starts if part == "control" else args.drift_worlds
    encoder = World(bundle)
    starts = [heldout.as_start(encoder, DRIVE, clip) for clip in control.driving_clips(episodes, count, args.context)]
    if part == "control":
        return control.judge_control(World(bundle, args.batch), DRIVE, starts, args.seed, args.output)
    return drift_drive.judge_drive_drift(
        World(bundle, len(starts)), starts, episodes, args.drift_blocks, args.agent, args.seed, args.output
    )


def _actions(args: EvaluateArgs, bundle: Bundle, modality: Modality, episodes: Sequence[Episode]) -> dict[str, Any]:
    name = modality.name
    reader = inverse_dynamics.trained(
        args.data / name / "train",
        args.output / f"inverse_dynamics_{name}.pt",
        args.reader_blocks,
        args.reader_steps,
        args.seed,
        camera_pose.followed if name == "camera" else None,
    )
    others = [args.data / other / "val" for other in bundle.scenarios if other != name]
    others = [folder for folder in others if (folder / "metadata.json").exists()]  # without any, none are swapped
    figures = action_following.judge_actions(
        bundle, modality, episodes, reader, args.clips, args.context, args.batch, args.seed, others
    )
    return figures | {"reader_blocks": args.reader_blocks, "reader_steps": args.reader_steps}


def _back(args: EvaluateArgs, bundle: Bundle, modality: Modality, episodes: Sequence[Episode]) -> dict[str, Any]:
    clips = heldout.choose_clips(episodes, args.journeys, args.context, 1, args.seed)
    world = World(bundle, min(args.batch, len(clips)), modality=modality.name)
    starts = [heldout.as_start(world, modality, clip) for clip in clips]
    return there_and_back.judge_return(world, modality, clips, starts, args.seed, args.output)


def _draw(clips: Sequence[Clip], rollout: Rollout, horizons: Sequence[int], path: Path) -> None:
    """A few clips: the truth, and below it the dream of the default world, after each horizon."""
    places = np.array(horizons) - 1
    rows, labels = [], []
    for number in np.unique(np.linspace(0, len(clips) - 1, SHOWN).astype(int)):
        clip = clips[number]
        now = clip.context_blocks[-1:, -1]
        for label, blocks in (("truth", clip.future_blocks), ("dream", rollout.blocks[number])):
            rows.append(np.concatenate([now, blocks[places, -1]]))
            labels.append(f"{clip.episode.seed}, {label}")
    columns = ["last seen", *(f"{horizon} block{'s' * (horizon > 1)}" for horizon in horizons)]
    save_grid(path, np.stack(rows), labels, columns, "Held-out scenes by seed, with the true actions")
