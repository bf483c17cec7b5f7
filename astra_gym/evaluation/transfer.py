"""Whether an agent of the dream is any use in truth: ``astra-gym transfer``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import tyro

from astra_gym.agents.rollout import make_block_env
from astra_gym.evaluation.intervals import estimate_mean, interval, number, resampled, with_interval
from astra_gym.evaluation.ledger import Ledger, digest, policy_key
from astra_gym.evaluation.truth import Episode, make_policy, simulator_id, true_returns
from astra_gym.files import replacing, write_json
from astra_gym.processes import worker_pool
from astra_gym.scenarios import environment_id

if TYPE_CHECKING:
    from astra_gym.evaluation.paired import PairedStarts


@dataclass
class TransferArgs:
    """Judge an agent that was trained only in the dream in the true simulator, on held-out scenes.

    Beside it: random actions, the agent before it learned anything, the same algorithm trained in the simulator, and
    the simulator's scripted expert, which reads its state. Scores are returns on a scale where random is 0 and the
    expert 1. To be fair, the algorithm gets as many frames in the simulator as the world has seen:

        astra-gym train-agent AstraDrive-v0 --output runs/dream --timesteps 40960 --keep-checkpoints
        astra-gym train-agent AstraSim/Drive-v0 --output runs/true --timesteps 121000
        astra-gym transfer drive --dream-agent runs/dream/policy.zip --true-agent runs/true/policy.zip

    The exploitation gap is what the dream promises beyond the truth: the return in the dream minus that in the
    simulator from paired starts, for every checkpoint policy_<blocks>.zip beside the agent, and for the agent.

    All returns are kept in the output folder: run again after an interruption, it measures only what is missing.
    """

    dream_agent: Path
    """Policy trained only in the dream (.zip)."""
    scenario: tyro.conf.Positional[str] = "drive"
    """Scenario to act in, one that has a true simulator."""
    true_agent: Path | None = None
    """Policy that the same algorithm learned in the true simulator (.zip); None leaves it out."""
    initial: Path | None = None
    """Policy before training (.zip); None takes policy_0.zip beside the agent, or makes it anew
    from the agent's kind and seed."""
    world: str = "small"
    """Name of a bundled world, or the folder of one: that of the dream. The exploitation gap is measured in it."""
    episodes: int = 50
    """Held-out scenes."""
    blocks: int | None = None
    """Longest episode; None takes the scenario's own."""
    first_seed: int = 3_000_000
    """Of the scenes; the starts for the gap begin at 2,000,000, all data below."""
    gap_starts: int = 32
    """Paired starts for the exploitation gap; 0 leaves it out."""
    gap_blocks: int = 60
    """For which a policy acts from each."""
    context: int = 16
    """True blocks before each, which the world is shown."""
    batch: int = 32
    """Worlds dreamt at a time."""
    resamples: int = 2_000
    """Of the bootstrap."""
    workers: int = 2
    """Processes for the simulator."""
    device: str = "cpu"
    """Of the world, cpu or cuda."""
    output: Path = Path("runs/transfer")
    """Folder for the figures (transfer_<scenario>.json) and the returns."""


class TransferFigures(dict[str, Any]):
    """The figures of one scenario; as text, their tables."""

    def __str__(self) -> str:
        return transfer_table(self)


def transfer(args: TransferArgs) -> TransferFigures:
    """Measure what ``args`` asks for, write it to ``args.output`` and return it.

    Raises:
        ValueError: on an argument that cannot be.
        FileNotFoundError: if an agent or the world is missing.
    """
    from astra_gym.agents.sb3 import load_model
    from astra_gym.bundles import fingerprint, load_bundle
    from astra_gym.evaluation.paired import PairedStarts

    policies, blocks = _checked(args)
    bundle = load_bundle(args.world, device=args.device)
    paired = None
    if args.gap_starts:
        gap = (args.gap_starts, args.context, args.gap_blocks, 2_000_000, args.batch)
        paired = PairedStarts(bundle, args.scenario, *gap, args.output)
    with make_block_env(simulator_id(args.scenario), 1) as env:
        if args.initial is None:
            kept = checkpoints(args.dream_agent).get(0)
            policies["initial"] = str(kept or untrained(args.dream_agent, args.output))
        for policy in policies.values():  # before hours of work
            make_policy(policy, env)
    settings = {"episodes": args.episodes, "blocks": blocks, "first_seed": args.first_seed}
    ledger = Ledger(args.output / f"true_returns_{args.scenario}.json", settings)
    nothing = np.zeros((0, *(env.action_space.shape or ())), np.float32)
    scenes = [Episode(args.first_seed + i, nothing) for i in range(args.episodes)]
    with worker_pool(args.workers) as pool:
        returns = {}
        for label, policy in policies.items():
            measure = partial(true_returns, pool, args.scenario, policy, scenes, blocks)
            returns[label] = ledger.measured(policy_key(policy, args.scenario), measure)
    figures = TransferFigures(
        scenario=args.scenario,
        world=args.world,
        weights=fingerprint(bundle),
        **settings,
        **scores(returns, args.resamples),
        dream_agent=str(args.dream_agent),
    )
    for label in set(policies) - {"random", "expert"}:
        figures["agents"][label]["timesteps"] = load_model(policies[label]).num_timesteps
    write_json(args.output / f"transfer_{args.scenario}.json", figures)
    if paired is not None:
        figures["gap"] = exploitation_gap(args, paired)
        write_json(args.output / f"transfer_{args.scenario}.json", figures)
    return figures


def _checked(args: TransferArgs) -> tuple[dict[str, str], int]:
    """Policies to judge by label, and the longest episode, in blocks."""
    from astra_gym.agents.sb3 import load_model

    blocks = args.blocks
    if blocks is None:
        simulator_id(args.scenario)
        blocks = gym.spec(environment_id(args.scenario)).max_episode_steps
    assert blocks is not None
    for name, value, least in (
        ("episodes", args.episodes, 2),
        ("blocks", blocks, 1),
        ("gap_starts", args.gap_starts, 0),
        ("gap_blocks", args.gap_blocks, 1),
        ("context", args.context, 1),
        ("batch", args.batch, 1),
        ("resamples", args.resamples, 1),
        ("workers", args.workers, 1),
    ):
        if value < least:
            raise ValueError(f"{name}: got {value}, allowed are whole numbers from {least}")
    files = {"initial": args.initial, "dream": args.dream_agent, "true": args.true_agent}
    for label, file in files.items():
        if file is not None:
            argument = "initial" if label == "initial" else f"{label}_agent"
            if not file.is_file():
                raise FileNotFoundError(f"{argument}: there is no file {file}")
            kept = checkpoints(file).values() if label == "dream" and args.gap_starts else ()
            for each in (file, *kept):
                try:
                    load_model(each)
                except ValueError as error:
                    raise ValueError(f"{argument}: {str(error).removeprefix('agent: ')}") from error
    policies = {"random": "random", "initial": "", "dream": "", "true": "", "expert": "expert"}
    policies |= {label: str(file) for label, file in files.items() if file is not None}
    if args.true_agent is None:
        del policies["true"]
    return policies, blocks


def untrained(policy: Path, folder: Path) -> Path:
    """Write the policy that training began with, made anew from its kind and seed, and return its file.

    Args:
        policy: what training has made of it (.zip).
        folder: for the file, which is written once.

    Raises:
        ValueError: if ``policy`` is no policy that Stable-Baselines3 has saved.
    """
    from astra_gym.agents.sb3 import load_model

    path = folder / f"initial_of_{digest(policy)}.zip"
    if path.exists():
        return path
    model = load_model(policy)
    # As when training begins: the seed, then the weights.
    model.set_random_seed(model.seed)
    arguments = {"use_sde": model.use_sde, **model.policy_kwargs}
    model.policy = model.policy_class(model.observation_space, model.action_space, model.lr_schedule, **arguments)
    model.num_timesteps = 0
    with replacing(path) as unfinished:
        model.save(unfinished)
    return path


def scores(returns: dict[str, np.ndarray], resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Returns, and scores on a scale where random is 0 and the expert 1, with 95 % bootstrap intervals over the scenes.

    A resample draws scenes with replacement and takes them for all agents alike.

    Args:
        returns: ``(N,)`` by agent, in the same scenes; with "random" and "expert", and perhaps "dream" and "true".
        resamples: number of bootstrap resamples.
        seed: of the bootstrap.

    Returns:
        "agents": for each its return, its score, and whether its return's interval lies above that of random; with
        "true", "share_of_true": the score of "dream" divided by that of "true".
    """
    count = len(returns["random"])
    draws = resampled(count, resamples, seed)
    means = {label: values[draws].mean(1) for label, values in returns.items()}
    plain = {label: values.mean(keepdims=True) for label, values in returns.items()}
    earned = {label: estimate_mean(values, seed, resamples) for label, values in returns.items()}
    agents = {
        label: {
            "return": figure,
            "score": {"value": number(_score(plain, label)[0]), "interval": interval(_score(means, label))},
            "above_random": figure["interval"][0] > earned["random"]["interval"][1],
        }
        for label, figure in earned.items()
    }
    figures: dict[str, Any] = {"agents": agents}
    if "dream" in returns and "true" in returns:
        with np.errstate(divide="ignore", invalid="ignore"):
            share, shares = (_score(each, "dream") / _score(each, "true") for each in (plain, means))
        figures["share_of_true"] = {"value": number(share[0]), "interval": interval(shares)}
    return figures


def _score(means: dict[str, np.ndarray], label: str) -> np.ndarray:
    """Score of one agent for each of several mean returns ``(R,)``; not a number where the expert is no better."""
    scale = means["expert"] - means["random"]
    return (means[label] - means["random"]) / np.where(scale > 0, scale, np.nan)


def checkpoints(agent: Path) -> dict[int, Path]:
    """The policies ``policy_<blocks>.zip`` beside ``agent`` by the number of blocks that they have learned from."""
    found = {path: re.fullmatch(rf"{re.escape(agent.stem)}_(\d+)\.zip", path.name) for path in agent.parent.iterdir()}
    return dict(sorted((int(match[1]), path) for path, match in found.items() if match))


def exploitation_gap(args: TransferArgs, paired: PairedStarts) -> list[dict[str, Any]]:
    """Returns of the agent and of its checkpoints from paired starts: dream, truth, and the first minus the second."""
    from astra_gym.agents.sb3 import load_model

    policies = checkpoints(args.dream_agent)
    policies[load_model(args.dream_agent).num_timesteps] = args.dream_agent
    dream, truth = paired.returns([str(path) for path in policies.values()], args.workers)
    gap = []
    for i, steps in enumerate(policies):
        returns = {"dream": dream[i], "truth": truth[i], "gap": dream[i] - truth[i]}
        figures = {name: estimate_mean(values, resamples=args.resamples) for name, values in returns.items()}
        gap.append({"timesteps": steps, **figures})
    return gap


LABELS = {
    "random": "random actions",
    "initial": "the agent, untrained",
    "dream": "trained only in the dream",
    "true": "trained in the simulator",
    "expert": "scripted expert, reads the state",
}


def transfer_table(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{figures['scenario'].capitalize()}: {figures['episodes']} held-out scenes of the true simulator, at most"
        f" {figures['blocks']} blocks each, with 95 % bootstrap intervals.",
        "",
        "| agent | learned from, blocks | return | score |",
        "|---|---:|---:|---:|",
    ]
    for label, judged in figures["agents"].items():
        earned, score = with_interval(judged["return"], 1), with_interval(judged["score"], 2)
        lines.append(f"| {LABELS[label]} | {judged.get('timesteps', '-')} | {earned} | {score} |")
    if share := figures.get("share_of_true"):
        lines += ["", f"Score of the dream's agent as a share of the simulator's: {with_interval(share, 2)}."]
    if gap := figures.get("gap"):
        lines += ["", "| blocks learned from | return in the dream | in truth | gap |", "|---:|---:|---:|---:|"]
        for judged in gap:
            cells = " | ".join(with_interval(judged[key], 1) for key in ("dream", "truth", "gap"))
            lines.append(f"| {judged['timesteps']} | {cells} |")
    return "\n".join(lines)
