"""How fast the environment runs, end to end, in a process of its own.

``python -m astra_gym.evaluation.speed small`` prints the figures as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

STEPS = 200
FRAMES = 4
WORLDS = (1, 8, 32)


def measure_speed(world: str | Path, device: str = "cpu") -> dict[str, Any]:
    """Run this module in a fresh process and return what it measured.

    Raises:
        RuntimeError: with the process's own words, if it fails.
    """
    command = [sys.executable, "-m", "astra_gym.evaluation.speed", str(world), device]
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"speed: the process failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _environment(world: str, device: str) -> dict[str, Any]:
    """One environment with default settings; the clock of the first step begins before torch is imported."""
    import gymnasium as gym

    import astra_gym  # noqa: F401

    began = time.perf_counter()
    env = gym.make("AstraDrive-v0", world=world, device=device)
    env.reset(seed=0)
    env.action_space.seed(0)
    env.step(env.action_space.sample())
    first = time.perf_counter() - began
    return {"first_step_seconds": first, **_steps(env)}


def _simulator() -> dict[str, Any]:
    import gymnasium as gym

    env = gym.make("AstraSim/Drive-v0")
    env.reset(seed=0)
    env.action_space.seed(0)
    return _steps(env)


def _steps(env: Any) -> dict[str, float]:
    """Random actions; an episode that ends begins anew, off the clock."""
    seconds = []
    for _ in range(STEPS):
        action = env.action_space.sample()
        began = time.perf_counter()
        _, _, terminated, truncated, _ = env.step(action)
        seconds.append(time.perf_counter() - began)
        if terminated or truncated:
            env.reset()
    env.close()
    p50, p95 = np.percentile(seconds, [50, 95])
    return {
        "frames_per_second": FRAMES * STEPS / sum(seconds),
        "block_milliseconds_p50": 1000 * float(p50),
        "block_milliseconds_p95": 1000 * float(p95),
    }


def _batches(world: str, device: str) -> dict[str, float]:
    """Frames a second of all worlds together, by their number."""
    from astra_gym.bundles import load_bundle
    from astra_gym.world import World

    bundle = load_bundle(world, device=device)
    bank = next(iter(bundle.starts.values()))
    rates = {}
    for count in WORLDS:
        worlds = World(bundle, num_worlds=count)
        starts = [bank[i % len(bank)] for i in range(count)]
        worlds.reset(starts, list(range(count)))
        rows = np.zeros((count, starts[0].rows.shape[-1]), np.float32)
        for _ in range(3):
            worlds.step(rows)
        steps = max(5, STEPS // 5 // count)
        began = time.perf_counter()
        for _ in range(steps):
            worlds.step(rows)
        rates[str(count)] = FRAMES * count * steps / (time.perf_counter() - began)
    return rates


def _main(world: str, device: str) -> None:
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    environment = _environment(world, device)
    figures = {
        "device": device,
        "processors": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 1),
        "steps": STEPS,
        "environment": environment,
        "simulator": _simulator(),
        "frames_per_second_by_worlds": _batches(world, device),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    _main(*sys.argv[1:3])
