"""Many worlds that are stepped together, behind Gymnasium's interface for vector environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from astra_gym.actions import MODALITIES, Modality
from astra_gym.envs.base import LATENT_BOUND, check_views, make_world, observation_space
from astra_gym.envs.released import is_released
from astra_gym.envs.starts import Beginning, ResetOptions, draw_beginnings, read_options, start_bank
from astra_gym.scenarios import environment_id, in_order

if TYPE_CHECKING:
    import torch

    from astra_gym.bundles import Start

RENDER_MODES = ("rgb_array", "rgb_array_list")


class AstraVectorEnv(gym.vector.VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """
    ## Description
    N worlds, of one scenario or of several, whose next blocks come from one forward pass of the model. `reset` and
    `step` behave as those of Gymnasium's `SyncVectorEnv` of N single environments do, and are much faster. There are no
    single environments in it, so no `envs`, `call`, `get_attr` and `set_attr`.

    ```python
    import gymnasium as gym
    envs = gym.make_vec("astra_gym:AstraDrive-v0", num_envs=32)
    observations, infos = envs.reset(seed=0)
    observations, rewards, terminations, truncations, infos = envs.step(envs.action_space.sample())
    ```

    A mixed batch is made by its class:

    ```python
    from astra_gym.envs import AstraVectorEnv
    envs = AstraVectorEnv(["drive", "drone", "drone", "camera"])
    ```

    ## Action Space
    One row for each world, `Box(low, high, (N, A), float32)`; the single environment's page tells what its numbers
    mean. In a mixed batch, A is the longest action's length. Shorter rows are padded at the end with numbers that mean
    nothing, whose bounds are 0 and 0; `single_action_space` is then the smallest box that holds every world's actions.
    Values out of bounds are clipped. A wrong shape or a number that is not finite raises a `ValueError`.

    ## Observation Space
    One row for each world: the single environment's observation, as `obs_type` says.

    ## Starting State, Seeds
    `reset(seed=s)` seeds world i with `s + i`, `reset(seed=[...])` each with its own; a None leaves a world's random
    numbers as they are. The same seed begins the same episode as in a single environment. The options of `reset` are
    the single environment's, for all worlds alike, and `"reset_mask"`, bool (N,): reset these worlds only.

    The same seeds, actions and N give the same bytes. Beside other worlds, a world begins with the same bytes as alone,
    and one step from there differs by at most one grey level (in bfloat16 but for single pixels), and by more with
    `dtype="int8"`, whose rounding depends on the whole batch; over an episode such rounding may grow, as the model's
    output is its next input.

    ## Episode End
    Worlds end as single environments do: by the model's judgement, and truncated after `max_episode_steps`.
    `autoreset_mode` says what comes then (also in `metadata["autoreset_mode"]`):

    - `NextStep`: the world's next step ignores the action and resets it. Its reward is 0.
    - `SameStep`: it is reset in the same step. The end is in `infos["final_obs"]` and `infos["final_info"]`.
    - `Disabled`: the caller resets it, with `options={"reset_mask": ended}`, before the next step.

    ## Arguments
    - `scenarios`: of all worlds, or one for each: "drive", "manipulation", "drone", "camera", and whatever else
      `world` was trained for.
    - `num_envs`: N; None for as many as there are scenarios.
    - `max_episode_steps`: longest episode, -1 for no limit, None for each scenario's own.
    - `autoreset_mode`: of Gymnasium's `AutoresetMode`, or its value.
    - `copy`: return copies of the observations; otherwise the next call overwrites them.
    - `render_mode`: `"rgb_array"` renders a tuple of each world's newest frame, `"rgb_array_list"` of the list of its
      newest block's frames. `metadata["render_fps"]` is the first world's blocks in a second.
    - `starts`: folder of collected episodes, any moment of which may be a beginning, as for the single environment; in
      a mixed batch a mapping from scenarios to folders. None takes the world's own bank.
    - `info_spread`: draws of noise, from 2, for "spread" in `info`, each of which takes time; 0 for none.
    - `world`, `obs_type`, `device`, `dtype`, `num_inference_steps`, `guidance_scale`, `temperature`, `info_routing`,
      `compiled`: as for the single environment. The converted released weights step one world at a time:
      `make_vec(..., vectorization_mode="sync")`.

    ## Info
    The single environment's "start" and "routing", a row for each world, each beside a mask of the worlds that have it,
    such as "_start". With `info_spread`, "spread" tells how far apart so many draws of noise would have taken the
    step's latents (root mean square of their standard deviation): far where the model does not know what comes.
    """

    def __init__(
        self,
        scenarios: str | Sequence[str] = "drive",
        num_envs: int | None = None,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        copy: bool = True,
        world: str | Path = "small",
        render_mode: str | None = None,
        obs_type: str = "block",
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        info_routing: bool = False,
        info_spread: int = 0,
        compiled: bool = False,
        starts: str | Path | Mapping[str, str | Path] | None = None,
    ):
        self.scenarios = _scenario_names(scenarios, num_envs)
        """Each world's scenario."""
        self.num_envs = len(self.scenarios)
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        check_views(render_mode, obs_type, RENDER_MODES)
        if is_released(world):
            raise ValueError(f"world: {world!r} is a released model; use make_vec(..., vectorization_mode='sync')")
        _check_scenarios(self.scenarios, world)
        if info_spread < 0 or info_spread == 1:
            raise ValueError(f"info_spread: got {info_spread}, allowed are 0 and 2, 3, 4, ...")
        limits = [_step_limit(name, max_episode_steps) for name in self.scenarios]
        folders = _start_folders(starts, self.scenarios)
        self._world = make_world(
            world, self.scenarios, device, dtype, num_inference_steps, guidance_scale, temperature, compiled
        )
        self.copy, self.render_mode, self.obs_type = copy, render_mode, obs_type
        self.info_routing, self.info_spread = info_routing, info_spread

        config, model = self._world.bundle.config, self._world.bundle.transformer.config
        self._modalities = {name: config.modality(name) for name in self.scenarios}
        self._banks = {
            name: start_bank(self._world, modality, folders.get(name)) for name, modality in self._modalities.items()
        }
        fps = round(self._modalities[self.scenarios[0]].fps / config.frames_per_block)
        self.metadata = {"render_modes": list(RENDER_MODES), "render_fps": fps, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = observation_space(self._world, obs_type)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        modalities = [self._modalities[name] for name in self.scenarios]
        self.single_action_space, self.action_space = _action_spaces(modalities)

        self._members: dict[str, list[int]] = {name: [] for name in self.scenarios}
        for i, name in enumerate(self.scenarios):
            self._members[name].append(i)
        size = config.frame_size
        self._frames = np.zeros((self.num_envs, config.frames_per_block, size, size, 3), np.uint8)
        self._latents = np.zeros((self.num_envs, model.in_channels, *model.latent_size), np.float32)
        self._starts: list[Start | None] = [None] * self.num_envs
        drawn = [seeding.np_random() for _ in self.scenarios]
        self._generators = [generator for generator, _ in drawn]
        self._seeds = [seed for _, seed in drawn]
        self._limits = np.array(limits)
        self._elapsed = np.zeros(self.num_envs, np.int64)
        self._ended = np.zeros(self.num_envs, np.bool_)

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """Each world's random numbers."""
        return tuple(self._generators)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """Each world's seed."""
        return tuple(self._seeds)

    @property
    def starts(self) -> tuple[Start | None, ...]:
        """Where each world's episode began, None before its first."""
        return tuple(self._starts)

    @property
    def frames(self) -> np.ndarray:
        """A copy of the newest blocks, ``uint8 (N, K, H, W, 3)``, oldest frame first."""
        return self._frames.copy()

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin episodes in all worlds, or in those of ``options["reset_mask"]``.

        Args:
            seed: an integer s seeds world i with s + i, a sequence each with its own, None leaves the random numbers.
            options: for all these worlds, see :meth:`astra_gym.envs.AstraEnv.reset`; "reset_mask", ``bool (N,)``.

        Raises:
            ValueError: naming the option that is wrong.
        """
        if not isinstance(options or {}, Mapping):
            raise ValueError(f"options: got {options!r}, allowed is a dict")
        options = dict(options or {})
        mask = self._checked_mask(options.pop("reset_mask", None))
        seeds = self._seed_list(seed)
        worlds = np.flatnonzero(mask).tolist()
        asked = self._read_options(worlds, options)  # refuses before anything has changed
        for world in worlds:
            if seeds[world] is not None:
                self._generators[world], self._seeds[world] = seeding.np_random(seeds[world])
        self._begin(worlds, asked)
        return self._observation(), self._info(mask)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Hold each world's action for one block of frames; see the class for worlds that have ended.

        Raises:
            ResetNeeded: before the first ``reset``, or if a world has ended and ``autoreset_mode`` is Disabled.
            ValueError: on a wrong shape or a number that is not finite.
        """
        self._require_begun("step")
        if self.autoreset_mode == AutoresetMode.DISABLED and self._ended.any():
            over = np.flatnonzero(self._ended).tolist()
            raise ResetNeeded(f"call reset(options={{'reset_mask': ...}}) before step(): worlds {over} have ended")
        # Worlds that only wait for their reset are stepped with the others, which keeps the batch's shape.
        waiting = self._ended & (self.autoreset_mode == AutoresetMode.NEXT_STEP)
        step = self._world.step(self._rows(actions, waiting), out=self._frames, draws=max(self.info_spread, 1))
        np.clip(step.latents.cpu().numpy(), -LATENT_BOUND, LATENT_BOUND, out=self._latents)
        self._elapsed += 1
        rewards = np.where(waiting, 0.0, step.reward.astype(np.float64))
        terminations = step.terminated & ~waiting
        truncations = (self._elapsed >= self._limits) & ~waiting
        ended = terminations | truncations
        same_step = self.autoreset_mode == AutoresetMode.SAME_STEP
        infos = self._final(ended, step.routing, step.spread) if same_step and ended.any() else {}
        reset = ended if same_step else waiting
        self._ended = ended.copy()
        if reset.any():
            beginning = np.flatnonzero(reset).tolist()
            self._begin(beginning, self._read_options(beginning))
        spread = None if step.spread is None else np.where(reset, 0, step.spread)
        infos |= self._info(np.ones_like(reset), np.where(reset[:, None], 0, step.routing), spread)
        return self._observation(), rewards, terminations, truncations, infos

    def render(self) -> tuple[Any, ...] | None:
        """Each world's picture, as ``render_mode`` says; None without one."""
        self._require_begun("render")
        if self.render_mode is None:
            gym.logger.warn("render() does nothing without a render_mode: gym.make_vec(..., render_mode='rgb_array')")
            return None
        if self.render_mode == "rgb_array":
            return tuple(self._frames[:, -1].copy())
        return tuple(list(block) for block in self._frames.copy())

    def get_state(self) -> dict[str, Any]:
        """A snapshot of everything, time limits included, for :meth:`set_state`; wrappers are not in it."""
        self._require_begun("get_state")
        return {
            "starts": list(self._starts),
            "world": self._world.state(),
            "np_random": [generator.bit_generator.state for generator in self._generators],
            "np_random_seed": list(self._seeds),
            "frames": self._frames.copy(),
            "latents": self._latents.copy(),
            "elapsed": self._elapsed.copy(),
            "ended": self._ended.copy(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a snapshot, of this environment or of another one made with the same arguments."""
        self._world.load_state(state["world"])
        for generator, saved in zip(self._generators, state["np_random"], strict=True):
            generator.bit_generator.state = saved
        self._seeds, self._starts = list(state["np_random_seed"]), list(state["starts"])
        self._frames[...], self._latents[...] = state["frames"], state["latents"]
        self._elapsed, self._ended = state["elapsed"].copy(), state["ended"].copy()

    def __reduce__(self):
        raise TypeError(f"{type(self).__name__} cannot be copied or pickled; use get_state and set_state")

    def _read_options(self, worlds: list[int], options: dict[str, Any] | None = None) -> dict[str, ResetOptions]:
        """What ``options`` ask of each scenario that is among ``worlds``."""
        among = {self.scenarios[world] for world in worlds}
        return {
            name: read_options(self._world, self._banks[name], self._modalities[name], options)
            for name in self._members
            if name in among
        }

    def _begin(self, worlds: list[int], asked: dict[str, ResetOptions]) -> None:
        """Begin an episode in each of ``worlds``."""
        drawn: dict[int, Beginning] = {}
        for name, options in asked.items():
            chosen = [world for world in self._members[name] if world in worlds]
            beginnings = draw_beginnings(self._banks[name], options, [self._generators[world] for world in chosen])
            drawn |= zip(chosen, beginnings, strict=True)
        starts, seeds, prompts = zip(*((b.start, b.seed, b.prompt) for b in drawn.values()), strict=True)
        self._frames[list(drawn)] = self._world.reset(starts, seeds, list(drawn), prompts)
        for world, start in zip(drawn, starts, strict=True):
            self._starts[world] = start
            self._latents[world] = start.latents[-1].float().cpu().numpy().clip(-LATENT_BOUND, LATENT_BOUND)
        self._elapsed[worlds] = 0
        self._ended[worlds] = False

    def _rows(self, actions: np.ndarray, ignored: np.ndarray) -> np.ndarray:
        """Model rows ``float32 (N, widest)`` of the actions; those of ``ignored`` worlds may be anything."""
        if np.shape(actions) != self.action_space.shape:
            raise ValueError(f"actions: got shape {np.shape(actions)}, allowed is {self.action_space.shape}")
        actions = np.where(ignored[:, None], 0, np.asarray(actions, np.float32))
        widest = max(modality.row_dim for modality in self._modalities.values())
        rows = np.zeros((self.num_envs, widest), np.float32)
        for name, modality in self._modalities.items():
            members = self._members[name]
            own = actions[members, : modality.action_dim]
            if not (finite := np.isfinite(own).all(1)).all():
                wrong = [world for world, good in zip(members, finite, strict=True) if not good]
                raise ValueError(f"actions: every number must be finite, those of worlds {wrong} are not")
            rows[members, : modality.row_dim] = modality.rows(own)
        return rows

    def _observation(self) -> np.ndarray:
        observation = self._view()
        return observation.copy() if self.copy else observation

    def _view(self) -> np.ndarray:
        """The worlds' observations, in the buffer that the next step overwrites."""
        if self.obs_type == "latent":
            return self._latents
        return self._frames[:, -1] if self.obs_type == "frame" else self._frames

    def _info(
        self, mask: np.ndarray, routing: np.ndarray | None = None, spread: np.ndarray | None = None
    ) -> dict[str, Any]:
        """The info of the worlds of ``mask``, zeros for the others; without ``routing`` that of a reset."""
        places = [-1 if start is None or start.index is None else start.index for start in self._starts]
        info: dict[str, Any] = {"start": np.where(mask, places, 0), "_start": mask.copy()}
        if self.info_routing:
            info["routing"] = np.zeros((self.num_envs, self._world.bundle.transformer.config.num_experts), np.float32)
            if routing is not None:
                info["routing"][mask] = routing[mask]
            info["_routing"] = mask.copy()
        if self.info_spread:
            info["spread"] = np.where(mask, 0 if spread is None else spread, 0).astype(np.float32)
            info["_spread"] = mask.copy()
        return info

    def _final(self, ended: np.ndarray, routing: np.ndarray, spread: np.ndarray | None) -> dict[str, Any]:
        """What Gymnasium puts into the infos of worlds that end and are reset in the same step."""
        observations = np.full(self.num_envs, None, object)
        for world in np.flatnonzero(ended):
            observations[world] = self._view()[world].copy()
        final = {"final_obs": observations, "final_info": self._info(ended, routing, spread)}
        return final | {f"_{key}": ended.copy() for key in final}

    def _require_begun(self, caller: str) -> None:
        if waiting := [world for world, start in enumerate(self._starts) if start is None]:
            raise ResetNeeded(f"call reset() before {caller}(): no episode has begun in worlds {waiting}")

    def _checked_mask(self, mask: Any) -> np.ndarray:
        if mask is None:
            return np.ones(self.num_envs, np.bool_)
        mask = np.asarray(mask)
        if mask.dtype != np.bool_ or mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"reset_mask: got {mask!r}, allowed is bool ({self.num_envs},) with at least one True")
        return mask

    def _seed_list(self, seed: Any) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, (int, np.integer)):
            return [int(seed) + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"seed: got {len(seed)} seeds for {self.num_envs} worlds")
        return [None if one is None else int(one) for one in seed]


# What make_vec calls for each environment id.
drive_worlds = partial(AstraVectorEnv, "drive")
manipulation_worlds = partial(AstraVectorEnv, "manipulation")
drone_worlds = partial(AstraVectorEnv, "drone")
camera_worlds = partial(AstraVectorEnv, "camera")


def _scenario_names(scenarios: str | Sequence[str], num_envs: int | None) -> tuple[str, ...]:
    if num_envs is not None and not (isinstance(num_envs, (int, np.integer)) and num_envs > 0):
        raise ValueError(f"num_envs: got {num_envs!r}, allowed are 1, 2, 3, ...")
    names = (scenarios,) * (num_envs or 1) if isinstance(scenarios, str) else tuple(scenarios)
    if not names:
        raise ValueError(f"scenarios: got {names!r}, allowed is a name, or one for each world")
    if num_envs not in (None, len(names)):
        raise ValueError(f"num_envs: got {num_envs}, but scenarios names {len(names)} worlds")
    return names


def _check_scenarios(names: Sequence[str], world: str | Path) -> None:
    """Raise a ValueError if one is neither among the four nor among those of the world's own."""
    if set(names) - set(MODALITIES):
        from astra_gym.bundles import scenarios_of

        allowed = in_order([*MODALITIES, *scenarios_of(world)])
        if unknown := [name for name in names if name not in allowed]:
            raise ValueError(f"scenarios: got {unknown[0]!r}, allowed are {allowed}")


def _start_folders(
    starts: str | Path | Mapping[str, str | Path] | None, scenarios: Sequence[str]
) -> Mapping[str, str | Path]:
    """For each scenario the folder that its beginnings come from, if they do not come from the bank."""
    names = in_order(scenarios)
    if isinstance(starts, Mapping):
        if unknown := [name for name in starts if name not in names]:
            raise ValueError(f"starts: got a folder for {unknown[0]!r}, allowed are {names}")
        return starts
    if starts is None:
        return {}
    if len(names) > 1:
        raise ValueError(f"starts: got {str(starts)!r} for the scenarios {names}, allowed is a folder for each by name")
    return {names[0]: starts}


def _autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError:
        allowed = [allowed.value for allowed in AutoresetMode]
        raise ValueError(f"autoreset_mode: got {mode!r}, allowed are {allowed}") from None


def _step_limit(scenario: str, max_episode_steps: int | None) -> float:
    """The longest episode; None for the one that the scenario is registered with."""
    if max_episode_steps is None:
        max_episode_steps = gym.spec(environment_id(scenario)).max_episode_steps
    if max_episode_steps == -1:
        return np.inf
    if not (isinstance(max_episode_steps, (int, np.integer)) and max_episode_steps > 0):
        raise ValueError(f"max_episode_steps: got {max_episode_steps!r}, allowed are None, -1 and 1, 2, 3, ...")
    return max_episode_steps


def _action_spaces(modalities: Sequence[Modality]) -> tuple[spaces.Box, spaces.Box]:
    """The box that holds each world's actions, and that of the batch."""
    boxes = [modality.action_space for modality in modalities]
    width = max(len(box.low) for box in boxes)
    low = np.stack([np.pad(box.low, (0, width - len(box.low))) for box in boxes])
    high = np.stack([np.pad(box.high, (0, width - len(box.high))) for box in boxes])
    return spaces.Box(low.min(0), high.max(0)), spaces.Box(low, high)
