"""How fast the environment runs, end to end, in a process of its own.

``python -m astra_gym.evaluation.speed small cpu drive 200`` prints the figures as JSON.
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


def measure_speed(world: str | Path, device: str = "cpu", scenario: str = "drive", steps: int = 200) -> dict[str, Any]:
    """Run this module in a fresh process and return what it measured.

    Args:
        world: name of a bundled world, or the folder of one.
        device: of the model.
        scenario: whose environment and simulator are timed.
        steps: timed steps of the environment and of the simulator; the rest is timed a tenth as often.

    Raises:
        RuntimeError: with the process's own words, if it fails.
    """
    command = [sys.executable, "-m", "astra_gym.evaluation.speed", str(world), device, scenario, str(steps)]
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"speed: the process failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _environment(world: str, device: str, scenario: str, steps: int) -> dict[str, Any]:
    """One environment with default settings; the clock of the first step begins before torch is imported."""
    import gymnasium as gym

    import astra_gym  # noqa: F401

    began = time.perf_counter()
    env = gym.make(f"Astra{scenario.capitalize()}-v0", world=world, device=device)
    env.reset(seed=0)
    env.action_space.seed(0)
    env.step(env.action_space.sample())
    first = time.perf_counter() - began
    return {"first_step_seconds": first, **_steps(env, steps)}


def _simulator(scenario: str, steps: int) -> dict[str, Any]:
    import gymnasium as gym

    env = gym.make(f"AstraSim/{scenario.capitalize()}-v0")
    env.reset(seed=0)
    env.action_space.seed(0)
    return _steps(env, steps)


def _steps(env: Any, steps: int) -> dict[str, float]:
    """Random actions; an episode that ends begins anew, off the clock."""
    seconds = []
    for _ in range(steps):
        action = env.action_space.sample()
        began = time.perf_counter()
        _, _, terminated, truncated, _ = env.step(action)
        seconds.append(time.perf_counter() - began)
        if terminated or truncated:
            env.reset()
    env.close()
    p50, p95 = np.percentile(seconds, [50, 95])
    return {
        "frames_per_second": FRAMES * steps / sum(seconds),
        "block_milliseconds_p50": 1000 * float(p50),
        "block_milliseconds_p95": 1000 * float(p95),
    }


def _world(name: str, device: str, scenario: str, repeats: int) -> dict[str, Any]:
    """The world by itself: by the number of worlds, by the number of denoising steps, and its decoder."""
    from astra_gym.bundles import load_bundle
    from astra_gym.world import World

    bundle = load_bundle(name, device=device)
    bank = bundle.starts[scenario]

    def milliseconds(count: int, inference_steps: int | None = None) -> float:
        world = World(bundle, count, modality=scenario, num_inference_steps=inference_steps)
        starts = [bank[i % len(bank)] for i in range(count)]
        world.reset(starts, list(range(count)))
        rows = np.zeros((count, starts[0].rows.shape[-1]), np.float32)
        return _median_milliseconds(lambda: world.step(rows), repeats)

    world, latents = World(bundle, modality=scenario), bank[0].latents[-1:]
    return {
        "frames_per_second_by_worlds": {count: 1000 * FRAMES * count / milliseconds(count) for count in WORLDS},
        "block_milliseconds_by_steps": {steps: milliseconds(1, steps) for steps in INFERENCE_STEPS},
        "decode_milliseconds": _median_milliseconds(lambda: world.decode(latents), repeats),
    }


def _median_milliseconds(call: Callable[[], object], repeats: int) -> float:
    for _ in range(3):
        call()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return 1000 * float(np.median(seconds))


def _main(world: str, device: str, scenario: str, steps: int) -> None:
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    environment = _environment(world, device, scenario, steps)
    figures = {
        "scenario": scenario,
        "device": device,
        "processors": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
        "steps": steps,
        "environment": environment,
        "simulator": _simulator(scenario, steps),
        "world": _world(world, device, scenario, max(2, steps // 10)),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
