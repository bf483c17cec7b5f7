"""Act by imagining: try many futures in the world, do the beginning of the best, look again, plan again.

Cross-entropy method (CEM; Rubinstein 1999) and model predictive path integral control (MPPI; Williams et al. 2017) over
smooth action sequences, with an Astra world as the model.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import gymnasium as gym
import numpy as np
import torch

from astra_gym.agents.policies import make_agent
from astra_gym.agents.sb3 import Controls, SB3Agent
from astra_gym.bundles import Start
from astra_gym.envs.base import make_world
from astra_gym.files import write_json
from astra_gym.media import load_image
from astra_gym.rewards import GoalImage
from astra_gym.world import World

LEAST_SPREAD = 0.05
"""CEM's search never becomes narrower than this, so that a plan can still change."""
_BOUNDS = {
    "elites": (0.0, 1.0),
    "temperature": (1e-6, np.inf),
    "spread": (1e-6, np.inf),
    "smoothness": (0.0, 1.0),
    "caution": (0.0, np.inf),
}
"""Of settings that are real numbers: lowest allowed, and what they must stay below."""


@dataclass(frozen=True)
class PlannerConfig:
    """How a planner plans. Controls run from -1 to 1, see :class:`astra_gym.agents.sb3.Controls`."""

    method: Literal["cem", "mppi"] = "cem"
    """CEM refits mean and spread to the best candidates; MPPI weighs all candidates by their scores."""
    horizon: int = 8
    """Blocks that are imagined ahead."""
    candidates: int = 32
    """Futures that are tried at once."""
    iterations: int = 2
    """Times that the plan is improved before it is acted on."""
    elites: float = 0.15
    """CEM: share of the candidates that the plan is refitted to, at least two of them."""
    temperature: float = 0.3
    """MPPI: in standard deviations of the scores; the smaller, the more the best candidates count."""
    spread: float = 0.5
    """Standard deviation of the candidates around the plan."""
    hold: int = 2
    """Blocks for which a candidate's deviation from the plan is held."""
    smoothness: float = 0.5
    """Correlation of one held deviation with the next, from 0 to below 1."""
    execute: int = 1
    """Blocks that are acted before the next plan is made."""
    samples: int = 1
    """Times that each candidate is imagined, each with other noise; the score is the mean."""
    caution: float = 0.0
    """Standard deviations of a candidate's samples that are taken off its score: shuns what the world is unsure of."""
    goal: str | None = None
    """Picture to come close to, the path of a file: the score is then how much the last imagined frame looks like it,
    instead of the summed reward."""
    guide: str | None = None
    """A policy that plans begin from: learned, or the path of a .zip or .safetensors. What it would do in the world is
    the plan that the candidates deviate from, and what is left of the last plan is a candidate."""
    world: str | None = None
    """Name or folder of the world that is imagined; None for the environment's own, and "small" for a simulator."""
    num_inference_steps: int | None = 1
    """Denoising steps a block; None takes the world's default."""
    device: str = "cpu"
    """Of the world."""

    def __post_init__(self) -> None:
        for name in ("horizon", "candidates", "iterations", "hold", "execute", "samples"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1 + (name == "candidates"):
                raise ValueError(f"{name}: got {value!r}, allowed are whole numbers from {1 + (name == 'candidates')}")
        for name, (lowest, below) in _BOUNDS.items():
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not lowest <= value < below:
                raise ValueError(f"{name}: got {value!r}, allowed are numbers from {lowest} to below {below}")
        if self.method not in ("cem", "mppi"):
            raise ValueError(f"method: got {self.method!r}, allowed are 'cem' and 'mppi'")
        for name in ("goal", "guide", "world"):
            if not isinstance(value := getattr(self, name), (str, type(None))):
                raise ValueError(f"{name}: got {value!r}, allowed are text and None")
        if self.execute > self.horizon:
            raise ValueError(f"execute: got {self.execute}, allowed are 1 to the horizon, {self.horizon}")

    def save(self, path: Path) -> Path:
        """Write the settings as JSON; :func:`astra_gym.agents.policies.make_agent` takes the path."""
        write_json(path, asdict(self))
        return path

    @classmethod
    def load(cls, path: Path) -> PlannerConfig:
        """Read settings; those that are left out have their defaults.

        Raises:
            ValueError: if the file holds something else.
        """
        try:
            values = json.loads(path.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"planner: {path} is not valid JSON ({error})") from error
        known = [f.name for f in fields(cls)]
        if not isinstance(values, dict) or set(values) - set(known):
            raise ValueError(f"planner: {path} must hold some of {known} and nothing else")
        return cls(**values)


class Planner:
    """An agent that plans in an Astra world.

    What it sees is encoded as the world's history, in which its own actions are known and the first block has none. So
    it acts in a dream as in the simulator, which it knows by its frames alone. All candidates share the noise of a
    plan: they are compared by what they do, not by their luck.

    Args:
        env: environment that observes blocks of frames, of a scenario that the world was trained on.
        config: how to plan.
        seed: of the candidates and the noise, until ``reset`` brings another one.

    Raises:
        ValueError: naming what is wrong, such as a world that does not know the scenario.
        FileNotFoundError: if there is no such world.
    """

    def __init__(self, env: gym.Env, config: PlannerConfig | None = None, seed: int = 0):
        self.config = config = config or PlannerConfig()
        self.modality = env.get_wrapper_attr("modality")
        own_world = env.spec.kwargs.get("world") if env.spec else None
        steps, scenario = config.num_inference_steps, self.modality.name
        self._present = make_world(config.world or own_world or "small", [scenario], config.device, None, steps)
        """One world that has seen what really happened."""
        bundle = self._present.bundle
        self._futures = World(bundle, config.candidates * config.samples, scenario, steps)
        seen = (bundle.config.frames_per_block, bundle.config.frame_size, bundle.config.frame_size, 3)
        rows = bundle.transformer.config.modalities[scenario]
        if env.observation_space.shape != seen or self.modality.row_dim != rows:
            raise ValueError(
                f"env: its blocks {env.observation_space.shape} and action rows of {self.modality.row_dim} do not fit "
                f"the world's blocks {seen} and rows of {rows}"
            )
        self.controls = Controls(env.action_space, scenario)
        self._guide: SB3Agent | None = None
        if config.guide is not None:
            self._guide = _make_guide(config.guide, env)
            self._guided_future = World(bundle, 1, scenario, steps)
        self.goal: np.ndarray | None = None
        """Picture to come close to, ``uint8 (H, W, 3)``; None to collect reward."""
        if config.goal is not None:
            try:
                self.goal = load_image(config.goal, bundle.config.frame_size)
            except ValueError as error:
                raise ValueError(f"goal: {error}") from error
        self.reset(seed)

    def reset(self, seed: int | None = None) -> None:
        """Forget the episode; with a seed the choices begin anew too."""
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.plan = np.zeros((self.config.horizon, *self.controls.space.shape), np.float32)
        """Controls of the blocks ahead."""
        self._to_do: deque[np.ndarray] = deque()
        self._last_action: np.ndarray | None = None

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The next action, given the newest block ``uint8 (K, H, W, 3)``, which the last action led to."""
        self._remember(observation)
        if not self._to_do:
            self._improve_plan(observation)
            begin, rest = np.split(self.plan, [self.config.execute])
            self._to_do.extend(self.controls.actions(begin))
            self.plan = np.concatenate([rest, np.repeat(self.plan[-1:], len(begin), 0)])
        self._last_action = self._to_do.popleft()
        return self._last_action.copy()

    def _remember(self, block: np.ndarray) -> None:
        """Make a true block the newest of the world's history."""
        latents = self._present.encode(block)
        if self._last_action is None:
            unknown = torch.zeros(1, self.modality.row_dim)
            self._present.reset([Start(latents, unknown)], [int(self.rng.integers(2**31))])
        else:
            self._present.observe(latents, self.modality.rows(self._last_action)[None])

    def _improve_plan(self, observation: np.ndarray) -> None:
        config, plan = self.config, self.plan
        blocks, numbers = plan.shape
        seeds = self.rng.integers(2**31, size=config.samples).tolist()
        if self._guide is not None:
            plan = self._guided(observation, seeds[0])
        spread = np.full_like(plan, config.spread)
        for _ in range(config.iterations):
            noise = smooth_noise(self.rng, config.candidates, blocks, numbers, config.hold, config.smoothness)
            noise[0] = 0.0  # the plan itself is a candidate
            candidates = np.clip(plan + spread * noise, -1.0, 1.0)
            if self._guide is not None:
                candidates[1] = self.plan
            scores = self.imagine(self.controls.actions(candidates), seeds)
            if config.method == "cem":
                count = max(2, round(config.elites * config.candidates))
                best = candidates[np.argsort(-scores, kind="stable")[:count]]
                plan, spread = best.mean(0), np.maximum(best.std(0), LEAST_SPREAD)
            else:
                advantage = (scores - scores.max()) / max(float(scores.std()), 1e-8)
                weights = np.exp(advantage / config.temperature)
                plan = np.tensordot(weights / weights.sum(), candidates, 1)
        self.plan = plan.astype(np.float32)

    def _guided(self, block: np.ndarray, seed: int) -> np.ndarray:
        """Controls of what the guide does in the world after a true block, ``float32 (horizon, n)``."""
        assert self._guide is not None
        self._guided_future.branch(self._present, [seed])
        plan = [self.controls.controls(self._guide.act(block))]
        while len(plan) < self.config.horizon:
            rows = self.modality.rows(self.controls.actions(plan[-1]))
            plan.append(self.controls.controls(self._guide.act(self._guided_future.step(rows[None]).frames[0])))
        return np.stack(plan)

    def imagine(self, actions: np.ndarray, seeds: list[int]) -> np.ndarray:
        """What the futures are worth that begin now with these actions.

        Args:
            actions: ``float32 (candidates, horizon, action_dim)``.
            seeds: of the noise, one for each sample of a candidate.

        Returns:
            ``float64 (candidates,)``: summed reward, in which an ending counts and what comes after it does not; or the
            likeness of the last frame, an ending's where there is one, to the goal.
        """
        config, futures = self.config, self._futures
        futures.branch(self._present, seeds * config.candidates)
        rows = self.modality.rows(np.repeat(actions, config.samples, 0))
        scores = np.zeros(len(rows))
        goes_on = np.ones(len(rows), bool)
        last = torch.zeros(())
        for block in range(config.horizon):
            step = futures.step(rows[:, block], decode=False)
            going = torch.from_numpy(goes_on).to(step.latents.device)
            last = torch.where(going[:, None, None, None], step.latents, last)
            scores += goes_on * step.reward
            goes_on &= ~step.terminated
        if self.goal is not None:
            likeness = GoalImage(self.goal)
            scores = np.array([likeness(frames, np.empty(0), {}) for frames in futures.decode(last)])
        by_sample = scores.reshape(config.candidates, config.samples)
        return by_sample.mean(1) - config.caution * by_sample.std(1)


def _make_guide(name: str, env: gym.Env) -> SB3Agent:
    """The policy called ``name``; one without memory, so that it can act in an imagined future and then go on here."""
    if name != "learned" and Path(name).suffix not in (".zip", ".safetensors"):
        raise ValueError(f"guide: got {name!r}, allowed are 'learned' and the path of a .zip or .safetensors")
    try:
        guide = make_agent(name, env)
    except ValueError as error:
        raise ValueError(f"guide: {str(error).removeprefix('agent: ')}") from error
    assert isinstance(guide, SB3Agent)
    return guide


def smooth_noise(
    rng: np.random.Generator, count: int, blocks: int, numbers: int, hold: int, smoothness: float
) -> np.ndarray:
    """Standard normal noise ``float64 (count, blocks, numbers)`` that is held for some blocks and changes gradually.

    Args:
        rng: of its draws.
        count: sequences.
        blocks: length of a sequence.
        numbers: in an action.
        hold: blocks for which a draw is held.
        smoothness: correlation of a draw with the next one.
    """
    noise = rng.standard_normal((count, -(-blocks // hold), numbers))
    for knot in range(1, noise.shape[1]):
        noise[:, knot] = smoothness * noise[:, knot - 1] + np.sqrt(1 - smoothness**2) * noise[:, knot]
    return noise.repeat(hold, 1)[:, :blocks]
