"""What planning in the dream is worth in the true simulator: ``astra-gym plan``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from tqdm import tqdm

from astra_gym.agents.planner import Planner, PlannerConfig
from astra_gym.agents.policies import Agent
from astra_gym.agents.rollout import Step, make_block_env, run_episode
from astra_gym.evaluation.intervals import estimate_mean, estimate_share, with_interval
from astra_gym.evaluation.ledger import Ledger, policy_key
from astra_gym.evaluation.metrics import on_road
from astra_gym.evaluation.truth import make_policy, simulator_id
from astra_gym.files import write_json
from astra_gym.processes import worker_pool


@dataclass
class PlanArgs:
    """Let planners act in the true simulator, beside other agents in the same scenes.

    The planner is judged at every horizon with its number of candidates, and at its horizon with every number of
    candidates. Each episode is written down as soon as it is over: run again after an interruption, or with more
    episodes, settings or agents, it measures only what is missing.
    """

    scenario: tyro.conf.Positional[str] = "drone"
    """Scenario to act in, one that has a true simulator."""
    planner: PlannerConfig = PlannerConfig()
    """How it plans, but for what is varied; planner.world names the world that it imagines."""
    horizons: tuple[int, ...] = (2, 4, 8, 16)
    """Blocks that it looks ahead."""
    candidates: tuple[int, ...] = (8, 32, 64)
    """Futures that it imagines at a time."""
    beside: tuple[str, ...] = ("random", "scripted")
    """Other agents to judge: random, scripted, expert (reads the simulator's state), "constant:" and an action, an SB3
    .zip or a planner's .json."""
    seek_goal: bool = False
    """Plan towards the picture of the goal that the simulator's info holds (Camera), instead of for reward."""
    episodes: int = 30
    """Held-out scenes."""
    blocks: int = 50
    """Longest episode."""
    first_seed: int = 4_000_000
    """Of the scenes; data for training and validation have smaller ones."""
    resamples: int = 2_000
    """Of the bootstrap."""
    workers: int = 2
    """Processes with one thread and a world each; 1 acts in this process, with all threads."""
    output: Path = Path("runs/plan")
    """Folder for the figures (plan_<scenario>.json), the episodes and the planners (.json, which other commands take as
    agents)."""


@dataclass(frozen=True)
class Job:
    """One episode to act."""

    scenario: str
    policy: str
    """A name for :func:`astra_gym.evaluation.truth.make_policy`."""
    seed: int
    blocks: int
    seek_goal: bool


def _drive(steps: Sequence[Step]) -> tuple[float, ...]:
    return (float(on_road(steps[-1].block[-1]) and not steps[-1].terminated),)


def _manipulation(steps: Sequence[Step]) -> tuple[float, ...]:
    info = steps[-1].info
    return float(info["is_success"]), 100 * float(np.linalg.norm(info["block"] - info["goal"]))


def _drone(steps: Sequence[Step]) -> tuple[float, ...]:
    gates = float(steps[-1].info["gates_passed"])
    return float(gates > 0), gates, float(steps[-1].terminated)


def _camera(steps: Sequence[Step]) -> tuple[float, ...]:
    return (float(steps[-1].reward >= 2.0),)


OUTCOMES: dict[str, tuple[Callable[[Sequence[Step]], tuple[float, ...]], str, tuple[str, ...]]] = {
    "drive": (_drive, "on the road at the end", ()),
    "manipulation": (_manipulation, "block within 5 cm of the goal at the end", ("cm from the goal",)),
    "drone": (_drone, "passed a gate", ("gates", "crashed")),
    "camera": (_camera, "at least half the goal view's reward at the end", ()),
}
"""For each scenario: what an episode's steps say of success (1 or 0) and of further measures, what success is, and the
names of those measures."""
SHARES = ("success", "crashed")
"""Measures that are 1 or 0."""


class PlanFigures(dict[str, Any]):
    """The figures of one scenario; as text, their table."""

    def __str__(self) -> str:
        return plan_table(self)


def judge_planning(args: PlanArgs) -> PlanFigures:
    """Measure what ``args`` asks for, write it to ``args.output`` and return it.

    Raises:
        ValueError: on an argument that cannot be.
        FileNotFoundError: if there is no such world.
    """
    from astra_gym.bundles import fingerprint, load_bundle

    planners = _checked(args)
    weights = fingerprint(load_bundle(args.planner.world or "small"))
    policies = {name: name for name in args.beside}
    for label, config in planners.items():
        policies[label] = str(config.save(args.output / f"{label}.json"))
    with make_block_env(simulator_id(args.scenario), 1) as env:
        for policy in policies.values():  # before hours of work
            make_policy(policy, env)
    keys = {label: policy_key(policy, args.scenario) for label, policy in policies.items()}
    seeds = range(args.first_seed, args.first_seed + args.episodes)
    settings = {"scenario": args.scenario, "blocks": args.blocks, "seek_goal": args.seek_goal}
    ledger = Ledger(args.output / f"plan_episodes_{args.scenario}.json", settings)
    jobs = {
        f"{key}, seed {seed}": Job(args.scenario, policies[label], seed, args.blocks, args.seek_goal)
        for label, key in keys.items()
        for seed in seeds
    }
    _measure({name: job for name, job in jobs.items() if name not in ledger}, ledger, args.workers)
    success, *further = OUTCOMES[args.scenario][1:]
    agents = {}
    for label, key in keys.items():
        rows = np.array([ledger.measured(f"{key}, seed {seed}", _missing) for seed in seeds])
        agents[label] = _figures(rows, further[0], args.resamples)
        if label in planners:
            config = planners[label]
            shown = "method", "guide", "horizon", "candidates"
            agents[label] |= {name: getattr(config, name) for name in shown}
    figures = PlanFigures(**settings, episodes=args.episodes, success=success, weights=weights, agents=agents)
    write_json(args.output / f"plan_{args.scenario}.json", figures)
    return figures


def _checked(args: PlanArgs) -> dict[str, PlannerConfig]:
    """The planners to judge by label."""
    simulator_id(args.scenario)
    for name, least in (("episodes", 1), ("blocks", 1), ("workers", 1), ("first_seed", 0)):
        if getattr(args, name) < least:
            raise ValueError(f"{name}: got {getattr(args, name)}, allowed are whole numbers from {least}")
    if args.seek_goal and args.scenario != "camera":
        raise ValueError(f"seek_goal: {args.scenario!r} shows no picture of its goal, only 'camera' does")
    base = args.planner
    settings = [(horizon, base.candidates) for horizon in args.horizons]
    settings += [(base.horizon, candidates) for candidates in args.candidates]
    planners = [
        replace(base, horizon=horizon, candidates=candidates, execute=min(base.execute, horizon))
        for horizon, candidates in dict.fromkeys(settings)
    ]
    ending = "" if base.guide is None else "_guided"
    return {f"{config.method}_h{config.horizon}_n{config.candidates}{ending}": config for config in planners}


def _missing() -> np.ndarray:
    raise AssertionError("every episode has been measured before the figures are made")


def _measure(jobs: dict[str, Job], ledger: Ledger, workers: int) -> None:
    """Act the episodes and write each one's row under its name."""
    with worker_pool(workers) if workers > 1 and jobs else nullcontext() as pool:
        rows = pool.map(act_episode, jobs.values()) if pool else map(act_episode, jobs.values())
        for name in tqdm(jobs, "plan", unit="episode"):
            ledger.measured(name, lambda: next(rows))


class _Timed:
    """An agent whose decisions are timed."""

    def __init__(self, agent: Agent):
        self.agent, self.reset = agent, agent.reset
        self.seconds: list[float] = []

    def act(self, observation: np.ndarray) -> np.ndarray:
        began = time.perf_counter()
        action = self.agent.act(observation)
        self.seconds.append(time.perf_counter() - began)
        return action


def act_episode(job: Job) -> np.ndarray:
    """Act an episode in the true simulator.

    Returns:
        ``float64 (n,)``: return, milliseconds a decision, success (1 or 0), and the scenario's further measures.
    """
    env = _simulator(job.scenario, job.blocks)
    agent = _Timed(_policy(job.policy, job.scenario, job.blocks))
    steps: list[Step] = []
    for step in run_episode(env, agent, job.seed):
        if job.seek_goal and not steps and isinstance(agent.agent, Planner):
            agent.agent.goal = step.info["goal"]
        steps.append(step)
    milliseconds = 1000 * float(np.mean(agent.seconds))
    return np.array([sum(step.reward for step in steps), milliseconds, *OUTCOMES[job.scenario][0](steps)])


@lru_cache(maxsize=1)
def _simulator(scenario: str, blocks: int) -> gym.Env:
    return make_block_env(simulator_id(scenario), blocks)


@lru_cache(maxsize=1)
def _policy(name: str, scenario: str, blocks: int) -> Agent:
    return make_policy(name, _simulator(scenario, blocks))


def _figures(rows: np.ndarray, further: Sequence[str], resamples: int) -> dict[str, Any]:
    """Means of an agent's episodes ``(N, n)`` with 95 % intervals."""
    named = dict(zip(("return", "milliseconds", "success", *further), rows.T, strict=True))
    figures: dict[str, Any] = {"milliseconds": float(named.pop("milliseconds").mean())}
    for name, values in named.items():
        figures[name] = estimate_share(values) if name in SHARES else estimate_mean(values, resamples=resamples)
    return figures


def plan_table(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    further = OUTCOMES[figures["scenario"]][2]
    columns = ["agent", "horizon", "candidates", "success", "return", *further, "ms a decision"]
    lines = [
        f"{figures['scenario'].capitalize()}: {figures['episodes']} held-out scenes of the true simulator, at most"
        f" {figures['blocks']} blocks each, with 95 % intervals. Success: {figures['success']}.",
        "",
        f"| {' | '.join(columns)} |",
        f"|---|{'---:|' * (len(columns) - 1)}",
    ]
    for label, judged in figures["agents"].items():
        name = judged["method"].upper() if "method" in judged else label
        if judged.get("guide") is not None:
            name += f", guided by {judged['guide']}"
        cells = [str(judged.get(key, "-")) for key in ("horizon", "candidates")]
        cells += [with_interval(judged["success"], 2), with_interval(judged["return"], 1)]
        cells += [with_interval(judged[key], 2) for key in further]
        lines.append(f"| {name} | {' | '.join(cells)} | {judged['milliseconds']:.0f} |")
    return "\n".join(lines)
