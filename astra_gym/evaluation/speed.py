"""How fast an environment starts and steps, in a process of its own.

``python -m astra_gym.evaluation.speed alone small cpu drive 200`` prints figures as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FRAMES = 4
WORLDS = (1, 8, 32)
INFERENCE_STEPS = (1, 2, 4)
ROUNDS = 3
TENTHS = 10
"""Parts of a run whose memory is compared."""


def in_a_process_of_its_own(part: str, world: str | Path, device: str, scenario: str, *numbers: int) -> dict[str, Any]:
    """Run one of :data:`PARTS` in a fresh process and return what it measured.

    Args:
        part: what to measure.
        world: name of a bundled world, or the folder of one.
        device: of the model.
        scenario: whose environment is timed.
        numbers: the part's own arguments.

    Raises:
        RuntimeError: with the process's own words, if it fails.
    """
    command = [sys.executable, "-m", "astra_gym.evaluation.speed", part, str(world), device, scenario]
    command += map(str, numbers)
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"speed: the process failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_speed(world: str | Path, device: str = "cpu", scenario: str = "drive", steps: int = 200) -> dict[str, Any]:
    """One world beside its simulator, and the world by numbers of worlds and denoising steps.

    Args:
        world: name of a bundled world, or the folder of one.
        device: of the model.
        scenario: whose environment and simulator are timed.
        steps: timed steps of the environment and of the simulator.
    """
    return {
        "scenario": scenario,
        "device": device,
        "processors": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
        "steps": steps,
        "environment": in_a_process_of_its_own("alone", world, device, scenario, steps),
        "simulator": in_a_process_of_its_own("simulator", world, device, scenario, steps),
        "world": in_a_process_of_its_own("batches", world, device, scenario, steps),
    }


def _alone(world: str, device: str, scenario: str, steps: int) -> dict[str, Any]:
    """One environment with default settings; its clock begins before torch is imported.

    Before its steps and after them, half as many runs of matrix products are timed, each about as long as a block.
    """
    import gymnasium as gym

    import astra_gym  # noqa: F401

    began = time.perf_counter()
    env = gym.make("AstraWorld-v0", world=world, scenario=scenario, device=device)
    env.action_space.seed(0)
    made = time.perf_counter() - began
    env.reset(seed=0)
    first_frame = time.perf_counter() - began
    env.step(env.action_space.sample())
    first_step = time.perf_counter() - began
    figures = {
        "make_seconds": made,
        "first_frame_seconds": first_frame,
        "first_step_seconds": first_step,
        "first_block_milliseconds": 1000 * (first_step - first_frame),
        "steps": steps,
    }
    import torch

    from astra_gym.evaluation.machine import product_seconds

    def products() -> list[float]:
        return product_seconds(first_step - first_frame, max(1, steps // 2), torch.device(device))

    before, stepped, after = products(), _steps(env, steps), products()
    jitter = np.percentile(before + after, 95) / np.median(before + after)
    return figures | stepped | {"product_p95_over_p50": float(jitter)}


def _simulator(world: str, device: str, scenario: str, steps: int) -> dict[str, Any]:
    from astra_gym.actions import MODALITIES
    from astra_gym.scenarios import simulator_id
    from astra_gym.simulators.own import make_simulator

    true_id = simulator_id(scenario)
    if scenario not in MODALITIES:  # else torch stays out of the process
        from astra_gym.bundles import WorldConfig, world_folder

        true_id = WorldConfig.load(world_folder(world)).simulator_id(scenario)
    env = make_simulator(true_id)
    env.reset(seed=0)
    env.action_space.seed(0)
    return _steps(env, steps)


def _steps(env: Any, steps: int) -> dict[str, Any]:
    """Random actions; an episode that ends begins anew, off the clock. The memory is that at each tenth's end."""
    from astra_gym.evaluation.machine import memory

    seconds, megabytes = [], []
    marks = {round(tenth * steps / TENTHS) for tenth in range(1, TENTHS + 1)}
    for step in range(1, steps + 1):
        action = env.action_space.sample()
        began = time.perf_counter()
        _, _, terminated, truncated, _ = env.step(action)
        seconds.append(time.perf_counter() - began)
        if terminated or truncated:
            env.reset()
        if step in marks:
            megabytes.append(1e-6 * memory("VmRSS"))
    env.close()
    p50, p95 = np.percentile(seconds, [50, 95])
    return {
        "frames_per_second": FRAMES * steps / sum(seconds),
        "block_milliseconds_p50": 1000 * float(p50),
        "block_milliseconds_p95": 1000 * float(p95),
        "block_milliseconds_most": 1000 * max(seconds),
        "memory_megabytes": megabytes,
    }


def _batches(world: str, device: str, scenario: str, steps: int) -> dict[str, Any]:
    """The vector environment: by the number of worlds, by the number of denoising steps, and its decoder."""
    import gymnasium as gym

    from astra_gym.evaluation.bench_race import take_turns, world_contender
    from astra_gym.evaluation.bench_stages import judge_stages

    by_worlds = [world_contender(world, scenario, count, device) for count in WORLDS]
    by_steps = [
        world_contender(world, scenario, 1, device, {"num_inference_steps": count}) for count in INFERENCE_STEPS
    ]
    figures = take_turns([*by_worlds, *by_steps], ROUNDS, seconds=steps / 200)
    rates = zip(WORLDS, figures, strict=False)
    times = zip(INFERENCE_STEPS, figures[len(WORLDS) :], strict=True)
    env = gym.make("AstraWorld-v0", world=world, scenario=scenario, device=device)
    return {
        "frames_per_second_by_worlds": {count: each["frames_per_second"] for count, each in rates},
        "block_milliseconds_by_steps": {count: each["step_milliseconds"] for count, each in times},
        "decode_milliseconds": judge_stages(env, max(2, steps // 10))["decode_milliseconds"],
    }


def _memory(world: str, device: str, scenario: str, count: int) -> dict[str, Any]:
    """Megabytes of the whole process with so many worlds, after a few steps."""
    from astra_gym.evaluation.bench_race import world_contender
    from astra_gym.evaluation.machine import memory

    contender = world_contender(world, scenario, count, device)
    contender.warm_up(steps=3)
    return {"worlds": count, "megabytes": 1e-6 * memory("VmRSS")}


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "alone": _alone,
    "simulator": _simulator,
    "batches": _batches,
    "memory": _memory,
}

if __name__ == "__main__":
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    part, *names = sys.argv[1:5]
    print(json.dumps(PARTS[part](*names, *map(int, sys.argv[5:]))))
