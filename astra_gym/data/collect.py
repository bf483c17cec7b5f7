"""Collect episodes of any Gymnasium environment that renders, in parallel, into a Minari dataset."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from astra_gym import cluster
from astra_gym.data.storage import require_minari
from astra_gym.files import replacing, write_json
from astra_gym.processes import worker_pool
from astra_gym.scenarios import frames_per_second, simulator_id

Policy = Callable[[np.ndarray], np.ndarray]
PolicyFactory = Callable[[gym.Env, int], Policy]
Job = tuple[str, str, int, list[int]]
"""Id of the environment, name of the policy, most blocks, seeds."""

POLICIES: dict[str, str] = {
    "random": "astra_gym.data.collect:random_policy",
    "mixed-driver": "astra_gym.simulators.car_racing:mixed_driver",
    "runaway-driver": "astra_gym.simulators.car_racing:runaway_driver",
    "stubborn-driver": "astra_gym.simulators.car_racing:stubborn_driver",
    "swerving-driver": "astra_gym.simulators.car_racing:swerving_driver",
    "careless-driver": "astra_gym.simulators.car_racing:careless_driver",
    "hurried-follower": "astra_gym.agents.lane_follower:hurried_follower",
    "mixed-pusher": "astra_gym.simulators.push:mixed_pusher",
    "mixed-racer": "astra_gym.simulators.gates:mixed_racer",
    "stubborn-racer": "astra_gym.simulators.gates:stubborn_racer",
    "crashing-racer": "astra_gym.simulators.gates:crashing_racer",
    "mixed-pilot": "astra_gym.simulators.room:mixed_pilot",
}
"""Short names of policy factories; any other is given as ``package.module:function``."""

SCRIPTED: dict[str, str] = {
    simulator_id("drive"): "mixed-driver",
    simulator_id("manipulation"): "mixed-pusher",
    simulator_id("drone"): "mixed-racer",
    simulator_id("camera"): "mixed-pilot",
}
"""For each simulator the policy that fills its data sets: scripted experts of varied skill."""


@dataclass
class CollectArgs:
    """Collect episodes of an environment into a Minari dataset."""

    env: str = "AstraSim/Drive-v0"
    """Gymnasium id, or module:id where a module of yours registers it. An environment that does not observe blocks of
    frames is wrapped in BlockFrames."""
    output: Path = Path("data/drive/train")
    """Folder of the dataset; must not hold one yet. An interrupted collection goes on where it was."""
    policy: str | None = None
    """random, one for each simulator such as mixed-driver, a policy that train-agent has learned (.zip), or
    package.module:function(env, seed) -> policy(observation) -> action; None is the simulator's mixed one, or random
    for any other environment."""
    episodes: int = 320
    """Number of episodes; each has its own seed, and so its own track."""
    blocks: int = 160
    """Longest episode, in blocks of 4 frames."""
    first_seed: int = 0
    """Seeds run from here. Validation uses seeds from 1,000,000, which training never sees."""
    workers: int = 2
    """Worker processes on this machine."""
    ray: str | None = None
    """Collect on the workers of a Ray cluster instead: "local" starts one on this machine, "auto" or host:port joins
    one. A policy's own module or file must be on all its machines; the dataset is written here."""

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("blocks", 1), ("workers", 1), ("first_seed", 0)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{name}: got {value}, allowed are whole numbers from {least}")


class _RandomPolicy:
    def __init__(self, space: gym.Space, seed: int):
        space.seed(seed)
        self.space, self.rng = space, np.random.default_rng(seed)
        self.action, self.left = space.sample(), 0

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        if self.left == 0:
            self.action, self.left = self.space.sample(), int(self.rng.integers(1, 9))
        self.left -= 1
        return self.action


def random_policy(env: gym.Env, seed: int) -> Policy:
    """Uniformly random actions, each held for 1 to 8 blocks."""
    return _RandomPolicy(env.action_space, seed)


def load_policy(name: str) -> PolicyFactory:
    """The policy factory called ``name`` (a key of :data:`POLICIES`, a .zip, or ``package.module:function``).

    Raises:
        ValueError: if there is none.
    """
    if Path(name).suffix == ".zip":
        from astra_gym.agents.policies import make_agent

        if not Path(name).is_file():
            raise ValueError(f"policy: there is no file {name}")
        return lambda env, seed: make_agent(name, env, seed).act
    path = POLICIES.get(name, name)
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"policy: {name!r} is neither one of {sorted(POLICIES)} nor a 'package.module:function' to import ({error})"
        ) from error


def make_block_env(env_id: str) -> gym.Env:
    """Make ``env_id`` so that one step is one block of frames."""
    from astra_gym.simulators.blocks import BlockFrames, make_visible

    env = make_visible(env_id)
    return env if len(env.observation_space.shape or ()) == 4 else BlockFrames(env)


def run_episode(env: gym.Env, policy: Policy, seed: int, blocks: int, observation: np.ndarray) -> dict[str, np.ndarray]:
    """Roll ``policy`` out from ``observation``, which ``env.reset`` has just returned, for at most ``blocks`` steps."""
    observations, actions, rewards, terminations, truncations = [observation], [], [], [], []
    for step in range(blocks):
        action = policy(observation)
        if np.shape(action) != env.action_space.shape:
            raise ValueError(
                f"policy: its actions are of shape {np.shape(action)}, the environment takes {env.action_space.shape}"
            )
        observation, reward, terminated, truncated, _ = env.step(action)
        observations.append(observation)
        actions.append(action)
        rewards.append(reward)
        terminations.append(terminated)
        truncations.append((truncated or step == blocks - 1) and not terminated)
        if terminated or truncated:
            break
    return {
        "observations": np.stack(observations),
        "actions": np.stack(actions),
        "rewards": np.array(rewards, np.float32),
        "terminations": np.array(terminations, bool),
        "truncations": np.array(truncations, bool),
    }


def _episodes(job: Job) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    env_id, policy_name, blocks, seeds = job
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    env = make_block_env(env_id)
    factory = load_policy(policy_name)
    for seed in seeds:
        observation, _ = env.reset(seed=seed)
        yield seed, run_episode(env, factory(env, seed), seed, blocks, observation)
    env.close()


def _save(episode: dict[str, np.ndarray], seed: int, parts: Path) -> None:
    """Write one file a seed, atomically."""
    with replacing(parts / f"{seed}.npz") as unfinished:
        np.savez(unfinished, allow_pickle=False, **episode)


def _collect_here(work: tuple[Job, Path]) -> None:
    """Worker process on this machine: an interruption loses at most the episode under way."""
    job, parts = work
    for seed, episode in _episodes(job):
        _save(episode, seed, parts)


def _collect_there(job: Job) -> list[tuple[int, dict[str, np.ndarray]]]:
    """Worker of a cluster, which shares no files with this machine: its death loses at most the job under way."""
    return list(_episodes(job))


def _in_processes(jobs: Sequence[Job], workers: int, parts: Path) -> Iterator[int]:
    """Collect the jobs' episodes into ``parts``; yields the number of episodes as they are there."""
    with worker_pool(min(workers, len(jobs) or 1)) as pool:
        for job, _ in zip(jobs, pool.map(_collect_here, [(job, parts) for job in jobs]), strict=True):
            yield len(job[3])


def _on_cluster(jobs: Sequence[Job], address: str, parts: Path) -> Iterator[int]:
    """The same on a Ray cluster."""
    with cluster.joined(address):
        for _, episodes in cluster.spread(_collect_there, [(job,) for job in jobs]):
            for seed, episode in episodes:
                _save(episode, seed, parts)
            yield len(episodes)


def collect(args: CollectArgs) -> Path:
    """Collect the episodes that ``args`` asks for and return the dataset's folder.

    Raises:
        FileExistsError: if the folder already holds a finished dataset, or anything else.
        ValueError: if the environment or the policy cannot be made, they do not fit together, or an interrupted
            collection had other settings.
        RuntimeError: if a worker process is killed.
        ConnectionError: if ``args.ray`` names no cluster that can be joined.
        ImportError: if it names one and Ray is not installed.
    """
    output = Path(args.output).absolute()
    check_empty(output)
    require_minari("output")
    policy = args.policy or SCRIPTED.get(args.env, "random")
    _check_fit(policy, args.env)
    parts = output.with_name(output.name + ".parts")
    parts.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"env": args.env, "policy": policy, "blocks": args.blocks}
    recorded = parts / "settings.json"
    begun = any(parts.glob("*.npz"))
    if begun and not recorded.exists():
        raise ValueError(f"output: {parts} holds episodes of an unknown environment; delete it to begin anew")
    if begun and json.loads(recorded.read_text()) != settings:
        raise ValueError(
            f"output: {parts} was begun with {recorded.read_text()}, not {settings}; delete it to begin anew"
        )
    write_json(recorded, settings)

    seeds = range(args.first_seed, args.first_seed + args.episodes)
    missing = [seed for seed in seeds if not (parts / f"{seed}.npz").exists()]
    jobs: list[Job] = [(args.env, policy, args.blocks, missing[i : i + 4]) for i in range(0, len(missing), 4)]
    collected = _on_cluster(jobs, args.ray, parts) if args.ray else _in_processes(jobs, args.workers, parts)
    with tqdm(total=args.episodes, initial=args.episodes - len(missing), unit="episode", desc="collect") as bar:
        for count in collected:
            bar.update(count)
    _merge(parts, output, args.env, policy, seeds)
    for each in parts.glob("*.npz"):
        each.unlink()
    shutil.rmtree(parts)  # the settings last, which say whose the others are
    return output


def _check_fit(policy: str, env_id: str) -> None:
    """Raise a ValueError if there is no such policy, or one of ours cannot act in the environment."""
    factory = load_policy(policy)
    if policy not in POLICIES:  # whose first act may be to load a large model, which is the workers' affair
        return
    with make_block_env(env_id) as env:
        observation, _ = env.reset(seed=0)
        try:
            run_episode(env, factory(env, 0), 0, 1, observation)
        except AttributeError as error:  # an expert looks for what another simulator has
            raise ValueError(f"policy: {policy!r} cannot act in {env_id} ({error})") from error


def check_empty(output: Path) -> None:
    """Raise a FileExistsError if a dataset cannot be put at ``output``, because something is there."""
    if (output / "metadata.json").exists():
        raise FileExistsError(f"output: {output} already holds a dataset; delete it or name another folder")
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise FileExistsError(f"output: {output} is not an empty folder; name another")


def _merge(parts: Path, output: Path, env_id: str, policy: str, seeds: range) -> None:
    import minari
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    env = make_block_env(env_id)
    registered = env_id.split(":")[-1]
    temporary = output.with_name(output.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    storage = MinariStorage.new(
        temporary,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=gym.spec(registered),
        jpeg_encoding=False,
    )
    fps = frames_per_second(env)
    env.close()
    for seed in tqdm(seeds, unit="episode", desc="write"):
        with np.load(parts / f"{seed}.npz") as episode:
            storage.update_episodes([EpisodeBuffer(seed=seed, **{key: episode[key] for key in episode.files})])
    storage.update_metadata(
        {
            "algorithm_name": policy,
            "dataset_id": f"{registered.split('/')[-1].lower()}/{output.name}-v0",
            "minari_version": minari.__version__,
            "env_id": env_id,
            "frames_per_second": fps,
        }
    )
    temporary.rename(output)
