"""Whether the dream ranks policies as the truth does: ``astra-gym rank``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from astra_gym.evaluation.intervals import estimate_mean, with_interval
from astra_gym.evaluation.ranking_metrics import LEAST_POLICIES, ranking
from astra_gym.files import write_json

SKILLS = tuple(f"scripted:{skill}" for skill in ("0.2", "0.4", "0.6", "0.8", "0.9", "1"))
DEFAULT_POLICIES = {
    "drive": ("random", "constant:0,0,0", "constant:0,0.3,0", "constant:0.3,0.2,0", *SKILLS),
    "manipulation": ("random", "constant:0,0,0,0", "constant:0,0.2,0,0", "constant:0.2,0,-0.1,0", *SKILLS),
    "drone": ("random", "constant:0,0,0,0", "constant:1,0,0,0", "constant:0.7,0,0,0.5", *SKILLS),
    "camera": ("random", "constant:0,0,0,0,0,0", "constant:0,0,0.5,0,0,0", "constant:0,0,0,0.6,0,0", *SKILLS),
}
"""Ten of mixed skill: random, rest, straight ahead, something odd, and the scripted agent at six skills."""


@dataclass
class RankArgs:
    """Let policies of mixed skill act from the same moments in the dream and in truth, and compare their ranking.

    Contexts and every policy's returns are kept in the output folder: run again after an interruption, with more
    policies or with other weights, it measures only what is missing.
    """

    scenario: tyro.conf.Positional[str] = "drive"
    """Scenario to act in, one that has a true simulator."""
    world: str = "small"
    """Name of a bundled world, or the folder of one."""
    policies: tuple[str, ...] = ("default",)
    """Who acts: "default" for ten policies of mixed skill, random, scripted, scripted:0.5 (its skill), "constant:" and
    an action, and policies that train-agent has learned (.zip)."""
    starts: int = 100
    """Moments from which each policy goes on."""
    context: int = 16
    """True blocks before each, which the world is shown."""
    blocks: int = 30
    """For which a policy acts."""
    first_seed: int = 2_000_000
    """Of the scenes; data for training and validation have smaller ones."""
    resamples: int = 2_000
    """Of the bootstrap."""
    workers: int = 2
    """Processes for the simulator."""
    batch: int = 32
    """Worlds dreamt at a time."""
    device: str = "cpu"
    """Of the world, cpu or cuda."""
    output: Path = Path("runs/rank")
    """Folder for the figures (rank_<scenario>.json), the contexts and the returns."""


class RankFigures(dict[str, Any]):
    """The figures of one scenario; as text, their tables."""

    def __str__(self) -> str:
        return rank_table(self)


def rank(args: RankArgs) -> RankFigures:
    """Measure what ``args`` asks for, write it to ``args.output`` and return it.

    Raises:
        ValueError: on an argument that cannot be, or fewer than 3 policies.
        FileNotFoundError: if there is no such world.
    """
    from astra_gym.bundles import load_bundle
    from astra_gym.evaluation.paired import PairedStarts

    policies = chosen_policies(args.policies, args.scenario)
    bundle = load_bundle(args.world, device=args.device)
    paired = PairedStarts(
        bundle, args.scenario, args.starts, args.context, args.blocks, args.first_seed, args.batch, args.output
    )
    dream, truth = paired.returns(policies, args.workers)
    figures = RankFigures(
        scenario=args.scenario,
        world=str(args.world),
        weights=paired.weights,
        starts=args.starts,
        context=args.context,
        blocks=args.blocks,
        policies={name: _policy_figures(dream[i], truth[i], args.resamples) for i, name in enumerate(policies)},
        ranking=_rankings(policies, dream, truth, args.resamples),
    )
    write_json(args.output / f"rank_{args.scenario}.json", figures)
    return figures


def chosen_policies(names: tuple[str, ...], scenario: str) -> list[str]:
    """The policies by name, "default" replaced by those of the scenario, each once.

    Raises:
        ValueError: if they are fewer than 3, or the scenario has no default ones.
    """
    if "default" in names and scenario not in DEFAULT_POLICIES:
        raise ValueError(f"scenario: got {scenario!r}, those with a true simulator are {list(DEFAULT_POLICIES)}")
    chosen = [each for name in names for each in (DEFAULT_POLICIES[scenario] if name == "default" else (name,))]
    chosen = list(dict.fromkeys(chosen))
    if len(chosen) < LEAST_POLICIES:
        raise ValueError(f"policies: got {chosen}, a ranking takes at least {LEAST_POLICIES}")
    return chosen


def _policy_figures(dream: np.ndarray, truth: np.ndarray, resamples: int) -> dict[str, Any]:
    returns = {"dream": dream, "truth": truth, "bias": dream - truth}
    return {name: estimate_mean(values, resamples=resamples) for name, values in returns.items()}


def _rankings(policies: list[str], dream: np.ndarray, truth: np.ndarray, resamples: int) -> dict[str, Any]:
    """The ranking of all policies, and without the truly best and the random one: those two are told apart easily."""
    found = {"all": ranking(dream, truth, resamples)}
    best = policies[int(truth.mean(1).argmax())]
    middle = [i for i, name in enumerate(policies) if name not in (best, "random")]
    if len(middle) >= LEAST_POLICIES:
        found["without best and random"] = ranking(dream[middle], truth[middle], resamples)
    return found


def rank_table(figures: dict[str, Any]) -> str:
    """The figures as Markdown: returns by policy, best in truth first, and how well they are ranked."""
    lines = [
        f"{figures['scenario'].capitalize()}: mean return over {figures['blocks']} blocks from {figures['starts']}"
        " paired starts, with 95 % bootstrap intervals.",
        "",
        "| policy | truth | dream | dream - truth |",
        "|---|---:|---:|---:|",
    ]
    ordered = sorted(figures["policies"].items(), key=lambda item: -item[1]["truth"]["value"])
    for name, judged in ordered:
        cells = " | ".join(with_interval(judged[key], 1) for key in ("truth", "dream", "bias"))
        lines.append(f"| {name} | {cells} |")
    lines += [
        "",
        "| ranking of | policies | Pearson | Spearman | MMRV, share of range | bias |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, scores in figures["ranking"].items():
        shown = [with_interval(scores[key], 2) for key in ("pearson", "spearman", "mmrv")]
        shown.append(with_interval(scores["bias"], 1))
        lines.append(f"| {name} | {scores['policies']} | {' | '.join(shown)} |")
    return "\n".join(lines)
