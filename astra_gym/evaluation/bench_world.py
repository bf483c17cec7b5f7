"""The benchmark of a world: how fast it is, where the time goes, and how fast the simulators are beside it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
from tqdm import tqdm

from astra_gym.envs import AstraVectorEnv
from astra_gym.envs.base import make_world
from astra_gym.evaluation import bench_report
from astra_gym.evaluation.bench_race import Contender, simulator_contenders, take_turns, world_contender
from astra_gym.evaluation.speed import in_a_process_of_its_own
from astra_gym.files import write_json
from astra_gym.scenarios import environment_id

# Whatever imports torch is imported where it is needed: the simulators' processes begin with this module too.

Part = Literal["race", "stages", "start", "memory"]


@dataclass
class BenchWorldArgs:
    """Measure a world's speed, beside its true simulators in the same run."""

    world: str = "small"
    """Name of a bundled world, or the folder of one."""
    scenarios: tuple[str, ...] = ("drive",)
    """Scenarios to measure, each with its own simulators."""
    parts: tuple[Part, ...] = ("race", "stages", "start", "memory")
    """What to measure: frames/s side by side, the stages of a step, start and latency of one world, memory of a world.
    The others keep earlier figures of the same weights on the same device."""
    worlds: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    """Numbers of worlds in a batch."""
    simulators: tuple[int, ...] = (1, 8, 32)
    """Numbers of simulators, in each of Gymnasium's SyncVectorEnv and AsyncVectorEnv."""
    options: tuple[str, ...] = (
        "num_inference_steps=1",
        "num_inference_steps=2",
        "num_inference_steps=4",
        "dtype=float32",
        "dtype=int8",
        "obs_type=latent",
    )
    """Settings to compare with the default: any arguments of AstraVectorEnv, several joined by commas."""
    option_worlds: tuple[int, ...] = (1, 32)
    """Numbers of worlds in a batch with those."""
    rounds: int = 5
    """Turns of each side by side; the median counts."""
    seconds: float = 0.7
    """Of a turn."""
    stage_worlds: tuple[int, ...] = (1, 32)
    """Numbers of worlds whose steps are taken apart; 1 is a single environment out of gym.make."""
    stage_steps: int = 40
    """Steps that are taken apart, in ``rounds`` turns; that with the median share of a matrix product's rate counts."""
    latency_steps: int = 2000
    """Steps of one world for the latency of a block and for memory that grows."""
    starts: int = 3
    """Fresh processes that are timed from gym.make to the first frame and the first step; the median counts."""
    memory_worlds: tuple[int, int] = (1, 32)
    """Numbers of worlds whose processes' memory is compared."""
    fidelity: bool = False
    """Also measure what each option costs in dB, on held-out episodes."""
    data: Path = Path("data")
    """Folder with those, <scenario>/val."""
    clips: int = 32
    """Clips of them."""
    context: int = 16
    """True blocks that the world is shown first."""
    horizons: tuple[int, ...] = (1, 4, 8)
    """Blocks ahead at which dB are measured."""
    seed: int = 0
    """Of the choice of clips and of their worlds."""
    device: str = "cpu"
    """Of the model, such as cpu or cuda."""
    quick: bool = False
    """Tiny sizes, to see that everything runs: the figures, in the folder quick/ of the output, say nothing."""
    output: Path = Path("runs/bench")
    """Folder for bench.json, bench.md and bench.png."""
    write_docs: bool = False
    """Write the tables between the markers of docs/performance.md, and the plot to docs/figures."""


QUICK: dict[str, Any] = {
    "worlds": (1, 2),
    "simulators": (2,),
    "options": ("num_inference_steps=1", "obs_type=latent"),
    "option_worlds": (2,),
    "rounds": 2,
    "seconds": 0.05,
    "stage_worlds": (1, 2),
    "stage_steps": 3,
    "latency_steps": 10,
    "starts": 1,
    "memory_worlds": (1, 2),
    "clips": 2,
    "context": 4,
    "horizons": (1, 2),
}


def bench_world(args: BenchWorldArgs) -> str:
    """Run the measurements and write them to ``args.output`` after each part, so that an interruption loses little.

    Returns:
        The tables.

    Raises:
        ValueError: on an argument that cannot be.
        FileNotFoundError: if there is no such world, or no held-out episodes for fidelity.
    """
    import torch

    from astra_gym.bundles import fingerprint, load_bundle
    from astra_gym.evaluation.bench_fidelity import judge_options
    from astra_gym.evaluation.machine import describe

    if args.quick:
        if args.write_docs:
            raise ValueError("write_docs: got True with quick, whose figures say nothing; allowed is False")
        args = dataclasses.replace(args, **QUICK, output=args.output / "quick")
    options = _check(args)
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    device = torch.device(args.device)
    file = args.output / "bench.json"
    bundle = load_bundle(args.world)
    if unknown := [name for name in args.scenarios if name not in bundle.starts]:
        raise ValueError(f"scenarios: got {unknown[0]!r}, this world has {list(bundle.starts)}")
    machine = describe(device)
    figures: dict[str, Any] = {"world": str(args.world), "weights": fingerprint(bundle), "machine": machine}
    earlier = json.loads(file.read_text()) if file.exists() else {}
    kept = earlier if _alike(earlier, figures) else {}
    figures["scenarios"] = kept.get("scenarios", {})
    for scenario in args.scenarios:
        found = figures["scenarios"].setdefault(scenario, {})
        for part in tqdm([*args.parts, *["fidelity"] * args.fidelity], desc=scenario, leave=False):
            if part == "race":
                found[part] = _race(args, scenario, options)
            elif part == "stages":
                found[part] = [_stages(args, scenario, count) for count in args.stage_worlds]
            elif part == "start":
                found[part] = _start(args, scenario)
            elif part == "memory":
                found[part] = _memory(args, scenario)
            else:
                found[part] = judge_options(args, scenario, _that_change_the_world(options))
            write_json(file, figures)
    return bench_report.write(figures, args.output, args.write_docs)


def parse_option(text: str) -> dict[str, Any]:
    """Arguments of AstraVectorEnv from ``name=value,name=value``; a value that is no Python literal is a string.

    Raises:
        ValueError: naming what is wrong.
    """
    given: dict[str, Any] = {}
    allowed = [name for name in inspect.signature(AstraVectorEnv).parameters if name not in _FIXED]
    for part in text.split(","):
        name, sign, value = part.partition("=")
        if not sign or name not in allowed:
            raise ValueError(f"options: got {part!r}, allowed are name=value with one of {allowed}")
        try:
            given[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            given[name] = value
    return given


_FIXED = ("scenarios", "num_envs", "world", "device")


def _check(args: BenchWorldArgs) -> dict[str, dict[str, Any]]:
    """The options by their text; raises a ValueError that names the argument which cannot be."""
    if not args.scenarios:
        raise ValueError("scenarios: got none, name at least one")
    for name in ("worlds", "simulators", "option_worlds", "stage_worlds", "memory_worlds", "horizons"):
        numbers: Sequence[int] = getattr(args, name)
        if not numbers or list(numbers) != sorted(set(numbers)) or numbers[0] < 1:
            raise ValueError(f"{name}: got {numbers}, allowed are rising whole numbers from 1")
    for name in ("rounds", "stage_steps", "latency_steps", "starts", "clips", "context"):
        if getattr(args, name) < 1:
            raise ValueError(f"{name}: got {getattr(args, name)}, allowed are whole numbers from 1")
    if not args.seconds > 0:
        raise ValueError(f"seconds: got {args.seconds}, allowed are numbers above 0")
    return {text: parse_option(text) for text in args.options}


def _alike(earlier: dict[str, Any], figures: dict[str, Any]) -> bool:
    """Whether earlier figures may stand beside new ones."""
    same = ("device", "processors", "threads", "torch")
    return earlier.get("weights") == figures["weights"] and all(
        earlier["machine"][key] == figures["machine"][key] for key in same
    )


def _that_change_the_world(options: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The options that may change what is dreamt, not only what is seen of it."""
    matter = set(inspect.signature(make_world).parameters)
    return {text: option for text, option in options.items() if matter.intersection(option)}


def _race(args: BenchWorldArgs, scenario: str, options: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    contenders: list[Contender] = []
    try:
        contenders.extend(simulator_contenders(scenario, args.simulators))
        for count in args.worlds:
            contenders.append(world_contender(args.world, scenario, count, args.device))
        for text, option in options.items():
            for count in args.option_worlds:
                contenders.append(world_contender(args.world, scenario, count, args.device, option, text))
        return take_turns(contenders, args.rounds, args.seconds)
    finally:
        for contender in contenders:
            contender.envs.close()


def _stages(args: BenchWorldArgs, scenario: str, count: int) -> dict[str, Any]:
    """Of several turns, each between two matrix products, that in which the transformer reached the median share."""
    import torch

    from astra_gym.evaluation.bench_stages import judge_stages, matrix_rates

    env: gym.Env | gym.vector.VectorEnv
    if count == 1:
        env = gym.make(environment_id(scenario), world=args.world, device=args.device)
    else:
        env = AstraVectorEnv(scenario, count, world=args.world, device=args.device)
    turns = []
    before = matrix_rates(torch.device(args.device))
    for _ in tqdm(range(args.rounds), desc=f"stages, {count}", leave=False):
        turn = judge_stages(env, max(1, args.stage_steps // args.rounds))
        after = matrix_rates(torch.device(args.device))
        rates = {dtype: (before[dtype] + after[dtype]) / 2 for dtype in before}
        shares = {dtype: turn["transformer_gflops"] / rate for dtype, rate in rates.items()}
        turns.append(turn | {"matrix_gflops": rates, "matrix_shares": shares})
        before = after
    env.close()
    shares_of_own = [turn["matrix_shares"].get(turn["dtype"], 0.0) for turn in turns]
    return turns[shares_of_own.index(statistics.median_low(shares_of_own))]


def _start(args: BenchWorldArgs, scenario: str) -> dict[str, Any]:
    """The longest run's figures, with the medians of all starts."""
    runs = [
        in_a_process_of_its_own("alone", args.world, args.device, scenario, steps)
        for steps in tqdm([args.latency_steps, *[1] * (args.starts - 1)], desc="start", leave=False)
    ]
    keys = ("make_seconds", "first_frame_seconds", "first_step_seconds", "first_block_milliseconds")
    medians = {key: sorted(run[key] for run in runs)[len(runs) // 2] for key in keys}
    return runs[0] | medians | {"starts": len(runs)}


def _memory(args: BenchWorldArgs, scenario: str) -> dict[str, Any]:
    few, many = (
        in_a_process_of_its_own("memory", args.world, args.device, scenario, count) for count in args.memory_worlds
    )
    each = (many["megabytes"] - few["megabytes"]) / (many["worlds"] - few["worlds"])
    return {"processes": [few, many], "megabytes_per_world": each}
