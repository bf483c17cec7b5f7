"""Where the time of a step goes: the stages are timed from outside, without a change to the world.

The transformer's arithmetic is counted here too, so that its time can be held against what the machine can multiply.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import gymnasium as gym
import torch

from astra_gym.evaluation.machine import matrix_rate
from astra_gym.models.transformer import AstraTransformer
from astra_gym.precision import native_dtype
from astra_gym.world import World

OUTSIDE = "Gymnasium and Python"
"""The stage of all that a step does outside of the world."""
WARM_UP = 3


class Watched(NamedTuple):
    """A method whose calls are timed."""

    stage: str | None
    """What its own time counts as; None for what its caller's counts as."""
    owner: Any
    name: str


def stages_of(world: World) -> list[Watched]:
    """The stages of a world's step. Time within one of them that belongs to another is counted there only."""
    return [
        Watched("noise, bookkeeping", world, "step"),
        Watched("resets", world, "reset"),
        Watched("router, experts, time", world, "_route"),
        Watched("router, experts, time", world.dynamics, "plan"),
        Watched("denoising", world.dynamics, "generate"),
        Watched("commit to history", world.dynamics, "commit"),
        Watched(None, world.bundle.transformer, "predict"),
        Watched("heads", world.bundle.heads, "forward"),
        Watched("decoder", world, "_start_decoding"),
        Watched("decoder", world, "_finish_decoding"),
    ]


class Stopwatch:
    """Seconds of calls that lie within each other."""

    def __init__(self, device: torch.device):
        self.device = device
        self.own: defaultdict[str, float] = defaultdict(float)
        """By stage: seconds, less those of the stages within."""
        self.whole: defaultdict[tuple[str, ...], float] = defaultdict(float)
        """By the names of the calls that are open, the innermost last: seconds, with all that is within."""
        self.calls: Counter[tuple[str, ...]] = Counter()
        """By the same names."""
        self._open: tuple[str, ...] = ()
        self._within: list[float] = []

    def time(self, stage: str | None, name: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make a call and count its time."""
        self._wait()
        self._open += (name,)
        self._within.append(0.0)
        began = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            self._wait()
            took = time.perf_counter() - began
            within = self._within.pop()
            if stage is not None:
                self.own[stage] += took - within
            if self._within:
                self._within[-1] += within if stage is None else took
            self.whole[self._open] += took
            self.calls[self._open] += 1
            self._open = self._open[:-1]

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @contextmanager
    def watch(self, methods: list[Watched]) -> Iterator[None]:
        """Time the methods' calls within this context."""
        try:
            for stage, owner, name in methods:
                setattr(owner, name, _timed(self, stage, name, getattr(owner, name)))
            yield
        finally:
            for _, owner, name in methods:
                vars(owner).pop(name, None)


def _timed(watch: Stopwatch, stage: str | None, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: watch.time(stage, name, call, *args, **kwargs)


def world_of(env: Any) -> World:
    """The world behind an environment, single or vector."""
    return env.unwrapped._world


def judge_stages(env: gym.Env | gym.vector.VectorEnv, steps: int) -> dict[str, Any]:
    """Milliseconds of each stage of a step, and the rate at which the transformer multiplies.

    Args:
        env: single or vector, of Astra; it is reset.
        steps: with random actions, after a few that are not timed.

    Returns:
        ``milliseconds`` by stage and ``total_milliseconds`` of a step (means), ``outside_share`` of what is not the
        world's, ``transformer_passes`` in a step, their ``transformer_milliseconds`` and ``transformer_gflops`` a
        second.
    """
    world = world_of(env)
    watch, stages = Stopwatch(world.device), stages_of(world)
    env.reset(seed=0)
    env.action_space.seed(0)
    for step in range(-WARM_UP, steps):
        action = env.action_space.sample()
        if step < 0:
            ended = env.step(action)[2:4]
        else:
            with watch.watch(stages):
                ended = watch.time(OUTSIDE, "env", env.step, action)[2:4]
        if isinstance(env, gym.Env) and any(ended):
            env.reset()
    stages_by_time = sorted(watch.own, key=watch.own.__getitem__, reverse=True)
    total = watch.whole["env",]
    started, finished = (("env", "step", name) for name in ("_start_decoding", "_finish_decoding"))
    decoding = watch.whole[started] + watch.whole[finished]
    predicting, committing = (("env", "step", caller, "predict") for caller in ("generate", "commit"))
    seconds = watch.whole[predicting] + watch.whole[committing]
    products = watch.calls[predicting] * multiply_adds(world)
    products += watch.calls[committing] * multiply_adds(world, predicts=False)
    return {
        "worlds": world.num_worlds,
        "dtype": str(world.dtype).removeprefix("torch."),
        "milliseconds": {stage: 1000 * watch.own[stage] / steps for stage in stages_by_time},
        "total_milliseconds": 1000 * total / steps,
        "outside_share": watch.own[OUTSIDE] / total,
        "decode_milliseconds": 1000 * decoding / max(1, watch.calls[started]),
        "transformer_passes": (watch.calls[predicting] + watch.calls[committing]) / steps,
        "transformer_milliseconds": 1000 * seconds / steps,
        "transformer_gflops": 2e-9 * products / seconds,
    }


def multiply_adds(world: World, predicts: bool = True) -> int:
    """Multiplications with additions in one pass of all worlds' new latent frames through the transformer.

    For each world, with S tokens a frame (patches and a summary), width D, feed-forward width F, and K keys (history's
    slots and the frame's own)::

        embedding   (S - 1) * patch * D + latent * D
        each block  S * 4 D^2  (queries, keys, values, output; the projector is one matrix with the output's)
                    2 * S * K * D  (attention)
                    S * 2 D F  (feed-forward),  9 (S - 1) D  (its 3x3 convolution, if there is one)
        output      (S - 1) * D * patch  (not in a pass that predicts nothing, but commits a frame to history)

    The time embedding, the router and the experts are not in it: they are needed once a block, not at every pass.
    """
    transformer: AstraTransformer = world.bundle.transformer
    config = transformer.config
    tokens, width = transformer.tokens_per_frame, config.num_attention_heads * config.attention_head_dim
    keys = world.memory.slots + tokens
    patch = config.in_channels * config.patch_size**2
    latent = config.in_channels * config.latent_size[0] * config.latent_size[1]
    patches_in = patch * (2 if config.condition_on_previous else 1)
    block = tokens * (4 * width**2 + 2 * keys * width + 2 * width * config.ffn_dim)
    if config.local_mixing:
        block += 9 * (tokens - 1) * width
    total = config.num_layers * block + (tokens - 1) * patches_in * width + latent * width
    if predicts:
        total += (tokens - 1) * patch * width
    return world.num_worlds * total


def matrix_rates(device: torch.device) -> dict[str, float]:
    """GFLOP a second of a large matrix product, by dtype; of bfloat16 only where the device does not emulate it."""
    dtypes = dict.fromkeys((torch.float32, native_dtype(device)))
    return {str(dtype).removeprefix("torch."): 1e-9 * matrix_rate(device, dtype) for dtype in dtypes}
