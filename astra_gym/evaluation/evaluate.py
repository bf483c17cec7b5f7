"""Judge a world on held-out tracks and write the figures down."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from astra_gym.actions import MODALITIES
from astra_gym.evaluation import report
from astra_gym.evaluation.report import Figures

if TYPE_CHECKING:
    from astra_gym.bundles import Bundle

Part = Literal["fidelity", "drift", "control", "speed"]


@dataclass
class EvaluateArgs:
    """Compare a world with its simulator on held-out tracks: fidelity, heads, drift, control and speed."""

    world: str = "small"
    """Name of a bundled world, or the folder of one."""
    data: Path = Path("data/drive/val")
    """Folder of the dataset of held-out episodes."""
    clips: int = 64
    """Clips for fidelity and the reward head, spread over the episodes."""
    context: int = 16
    """True blocks that the world is shown before it goes on by itself."""
    horizons: tuple[int, ...] = (1, 2, 4, 8, 16, 24)
    """Blocks ahead at which fidelity is measured."""
    steps: tuple[int, ...] = (1, 2, 4)
    """Numbers of denoising steps to compare; the world's default is always among them and used for all else."""
    drift_blocks: tuple[int, ...] = (1, 8, 24, 100, 500)
    """Blocks of its own history after which drift is measured."""
    drift_worlds: int = 8
    """Worlds in which the agent drives for the drift measure."""
    agent: str = "scripted"
    """Agent that drives there."""
    control_starts: int = 12
    """Starts from which left, right, gas and brake are tried."""
    batch: int = 32
    """Worlds rolled at a time in the other measures."""
    parts: tuple[Part, ...] = ("fidelity", "drift", "control", "speed")
    """What to measure; "fidelity" includes the heads. Other parts keep earlier figures of the same weights."""
    seed: int = 0
    """Of the choice of clips and of the worlds."""
    device: str = "cpu"
    """Of the model, such as cpu or cuda."""
    output: Path = Path("runs/evaluate")
    """Folder for figures.json, report.md and pictures."""
    write_docs: bool = False
    """Write the tables between the markers of README.md and the model card, and the pictures to docs/figures."""


def evaluate(args: EvaluateArgs) -> Figures:
    """Measure what ``args.parts`` names, write it to ``args.output`` and return all figures, a dict by part.

    The same arguments and weights on the same machine give the same figures, those of speed aside.

    Raises:
        ValueError: on an argument that cannot be, such as more clips than the data hold.
        FileNotFoundError: if there are no held-out episodes or no world.
    """
    from astra_gym.bundles import PRETRAINED, bundled_worlds, load_bundle

    _check(args)
    bundle = load_bundle(args.world, device=args.device)
    figures: dict[str, Any] = {"world": str(args.world), "weights": fingerprint(bundle), "seed": args.seed}
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.output / "figures.json"
    if file.exists():
        earlier = json.loads(file.read_text())
        if earlier["weights"] == figures["weights"]:
            figures = earlier | figures
    if set(args.parts) - {"speed"}:
        figures |= _judge(args, bundle)
    if "speed" in args.parts:
        from astra_gym.evaluation.speed import measure_speed

        figures["speed"] = measure_speed(args.world, args.device)
    file.write_text(json.dumps(figures, indent=1) + "\n")
    report.write(figures, args.output)
    if args.write_docs:
        folder = PRETRAINED / args.world if args.world in bundled_worlds() else Path(args.world)
        report.write_docs(figures, args.output, [Path("README.md"), folder / "README.md"])
    return Figures(figures)


def _judge(args: EvaluateArgs, bundle: Bundle) -> dict[str, Any]:
    from astra_gym.data.episodes import read_episodes
    from astra_gym.evaluation import control, drift, heads, heldout
    from astra_gym.evaluation.fidelity import judge_fidelity
    from astra_gym.evaluation.rollout import roll
    from astra_gym.world import World

    modality = MODALITIES[next(iter(bundle.starts))]
    episodes = list(read_episodes(args.data))
    figures: dict[str, Any] = {}
    default = bundle.config.num_inference_steps
    batch = min(args.batch, args.clips)
    if "fidelity" in args.parts:
        clips = heldout.choose_clips(episodes, args.clips, args.context, max(args.horizons), args.seed)
        worlds = {steps: World(bundle, batch, num_inference_steps=steps) for steps in sorted({*args.steps, default})}
        starts = [heldout.as_start(worlds[default], modality, clip) for clip in clips]
        rows = modality.rows(np.stack([clip.future_actions for clip in clips]))
        fidelity = judge_fidelity(worlds, default, clips, starts, rows, args.horizons, args.seed)
        figures["fidelity"] = fidelity.figures
        figures["reward"] = heads.judge_reward(fidelity.rollout, clips)
        endings = heldout.ending_clips(episodes, args.context)
        if endings:
            ending_starts = [heldout.as_start(worlds[default], modality, clip) for clip in endings]
            ending_rows = heads.ending_rows(endings, modality.rows)
            ending = roll(World(bundle, len(endings)), ending_starts, ending_rows, args.seed, "endings")
            figures["termination"] = heads.judge_termination(ending, endings, fidelity.rollout)
    if {"drift", "control"} & set(args.parts):
        count = max(args.drift_worlds, args.control_starts)
        world = World(bundle, num_worlds=args.drift_worlds)
        driving = control.driving_clips(episodes, count, args.context)
        starts = [heldout.as_start(world, modality, clip) for clip in driving]
    if "control" in args.parts:
        figures["control"] = control.judge_control(
            World(bundle, num_worlds=batch), modality, starts[: args.control_starts], args.seed, args.output
        )
    if "drift" in args.parts:
        few = starts[: args.drift_worlds]
        figures["drift"] = drift.judge_drift(
            world, modality, few, episodes, args.drift_blocks, args.agent, args.seed, args.output
        )
    return figures


def _check(args: EvaluateArgs) -> None:
    for name in ("clips", "context", "drift_worlds", "control_starts", "batch"):
        if getattr(args, name) < 1:
            raise ValueError(f"{name}: got {getattr(args, name)}, allowed are whole numbers from 1")
    for name in ("horizons", "drift_blocks", "steps"):
        values = getattr(args, name)
        if not values or list(values) != sorted(set(values)) or values[0] < 1:
            raise ValueError(f"{name}: got {values}, allowed are rising whole numbers from 1")


def fingerprint(bundle: Bundle) -> str:
    """First 16 hexadecimal digits of the SHA-256 of all of a bundle's weights."""
    digest = hashlib.sha256()
    for part in (bundle.transformer, bundle.autoencoder, bundle.heads):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
