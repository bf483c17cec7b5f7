"""The world: batched and stateful. It owns history, caches and random numbers, and knows nothing of Gymnasium."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astra_gym.bundles import Bundle, Start
from astra_gym.memory import HistoryMemory
from astra_gym.models.action_experts import RoutedActions
from astra_gym.models.autoencoder import to_model, to_pixels
from astra_gym.models.transformer import Conditioning
from astra_gym.sampler import Dynamics, compile_for


@dataclass
class WorldStep:
    """What one step made, for each of the B worlds."""

    frames: np.ndarray
    """uint8 (B, K, H, W, 3): the new block, oldest frame first."""
    latents: Tensor
    """float32 (B, C, h, w): its latent frame."""
    reward: np.ndarray
    """float32 (B,): reward of the block."""
    terminated: np.ndarray
    """bool (B,): whether the block ends the episode."""
    routing: np.ndarray
    """float32 (B, experts): weight of each action expert."""
    spread: np.ndarray | None = None
    """float32 (B,): how far apart several draws of noise would have taken the latents, if asked for: their standard
    deviation, root mean square over the latents. It is large where the model does not know what comes."""


class World:
    """B worlds that are stepped together.

    Args:
        bundle: the trained world.
        num_worlds: B.
        modality: the scenario, one of the model's modalities; or a sequence of B of them, one for each world.
        num_inference_steps: Euler steps a block, None for the bundle's default, which may differ between scenarios.
        guidance_scale: action-free guidance, 1 for none, None for the bundle's default.
        temperature: of what is left to chance, above 0, see :attr:`astra_gym.bundles.WorldConfig.temperatures`, whose
            values None stands for.
        compiled: let PyTorch's compiler make transformer and decoder; the first steps then take a minute.
    """

    def __init__(
        self,
        bundle: Bundle,
        num_worlds: int = 1,
        modality: str | Sequence[str] = "drive",
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        compiled: bool = False,
    ):
        config = bundle.config
        self.guidance_scale = config.guidance_scale if guidance_scale is None else guidance_scale
        for name, number in (("num_worlds", num_worlds), ("num_inference_steps", num_inference_steps)):
            if number is not None and number < 1:
                raise ValueError(f"{name}: got {number}, allowed are whole numbers from 1")
        if not self.guidance_scale >= 0:
            raise ValueError(f"guidance_scale: got {self.guidance_scale}, allowed are numbers from 0")
        if temperature is not None and not (isinstance(temperature, Real) and 0 < temperature < float("inf")):
            raise ValueError(f"temperature: got {temperature!r}, allowed are None and numbers above 0")
        self.modalities = [modality] * num_worlds if isinstance(modality, str) else list(modality)
        if len(self.modalities) != num_worlds:
            raise ValueError(f"modality: got {len(self.modalities)} names for {num_worlds} worlds")
        self._steps: list[int] = [
            config.inference_steps(name) if num_inference_steps is None else num_inference_steps
            for name in self.modalities
        ]
        self.bundle, self.num_worlds = bundle, num_worlds
        self.device, self.dtype = bundle.transformer.device, bundle.transformer.dtype
        self.dynamics = Dynamics(bundle.transformer, config.flow, compiled)
        decode = bundle.autoencoder.decode
        self._decode = compile_for(self.device, decode) if compiled else decode
        self.memory = HistoryMemory(bundle.transformer, num_worlds, self.dtype)
        size = bundle.transformer.config
        self._latent_shape = (size.in_channels, *size.latent_size)
        self._previous = torch.zeros(num_worlds, *self._latent_shape, device=self.device)
        self._features = torch.zeros(num_worlds, bundle.heads.config.feature_dim, device=self.device)
        self._generators = [torch.Generator() for _ in range(num_worlds)]
        self._begun = [False] * num_worlds
        self._prompts = bundle.transformer.prompt(self.modalities)
        endings = config.termination_rewards
        heat = [config.temperatures.get(name, 1.0) if temperature is None else temperature for name in self.modalities]
        self._temperatures = torch.tensor(heat, device=self.device)
        self._can_end = torch.tensor([name in endings for name in self.modalities], device=self.device)
        self._ending_reward = torch.tensor([endings.get(name, 0.0) for name in self.modalities], device=self.device)

    @torch.inference_mode()
    def reset(
        self,
        starts: Sequence[Start],
        seeds: Sequence[int],
        worlds: Sequence[int] | None = None,
        prompts: Sequence[str | None] | None = None,
    ) -> np.ndarray:
        """Begin episodes in all worlds, or in some.

        Args:
            starts: one for each world that is reset, of its scenario; each is taken in alone.
            seeds: of each one's random numbers.
            worlds: which worlds; None for all.
            prompts: for each one the scenario that the model is told it is in, None to tell it nothing; by default its
                own.

        Returns:
            uint8 (n, K, H, W, 3): the newest block of each start.
        """
        chosen = list(range(self.num_worlds)) if worlds is None else list(worlds)
        if not len(chosen) == len(starts) == len(seeds):
            raise ValueError(f"reset: got {len(starts)} starts and {len(seeds)} seeds for {len(chosen)} worlds")
        for world, seed in zip(chosen, seeds, strict=True):
            self._generators[world].manual_seed(int(seed))
        told = [self.modalities[world] for world in chosen] if prompts is None else prompts
        config = self.bundle.config
        frames = np.empty((len(chosen), config.frames_per_block, config.frame_size, config.frame_size, 3), np.uint8)
        if len(set(chosen)) == self.num_worlds:
            self.memory.clear()
        with self._limited_threads():
            for i, (world, start, name) in enumerate(zip(chosen, starts, told, strict=True)):
                self._begin(start, world, name)
                frames[i : i + 1] = self.decode(start.latents[-1:])
        return frames

    def _begin(self, start: Start, world: int, told: str | None) -> None:
        """Replace the history of one world.

        Each alone, so that it is the same whatever others begin with it: a product of more rows adds up in another
        order, and history keeps what that rounds away.
        """
        transformer = self.bundle.transformer
        actions = self._route(torch.as_tensor(start.rows)[None], [world])
        prompt = transformer.prompt([told])
        if prompt is not None and self._prompts is not None:
            self._prompts[world] = prompt[0]
        memory = HistoryMemory(transformer, 1, self.dtype)
        noise = torch.stack([self._noise([world]) for _ in start.latents], 1)
        latents = start.latents[None].to(self.device)
        previous, features = self.dynamics.begin(memory, latents, actions, noise, prompt)
        self._previous[world], self._features[world] = previous[0], features[0]
        self.memory.put([world], memory)
        self._begun[world] = True

    def warm_up(self, blocks: int = 2) -> None:
        """Step from some start and forget it, so that the first block that counts is no slower than the others."""
        banks = self.bundle.starts
        self.reset([banks[name][0] for name in self.modalities], [0] * self.num_worlds)
        width = max(self.bundle.transformer.config.modalities[name] for name in self.modalities)
        for _ in range(blocks):
            self.step(np.zeros((self.num_worlds, width), np.float32))
        self._begun = [False] * self.num_worlds

    @torch.inference_mode()
    def step(self, rows: np.ndarray, out: np.ndarray | None = None, decode: bool = True, draws: int = 1) -> WorldStep:
        """Generate the next block of every world.

        Args:
            rows: float32 (B, row_dim), see :meth:`astra_gym.actions.Modality.rows`; in a mixed batch, shorter rows are
                padded with zeros at the end.
            out: uint8 (B, K, H, W, 3), where to write the frames; None for a new array.
            decode: without it ``frames`` is empty, which saves the time to make them.
            draws: of noise; from 2 on there is ``spread``. The first makes the block, so the others change nothing.

        Raises:
            RuntimeError: if a world has not been reset.
        """
        self._require_begun("step")
        with self._limited_threads():
            everyone = range(self.num_worlds)
            action_rows = torch.as_tensor(rows)
            # The one line that routes an action: projector of its modality, router, weights of the experts.
            actions = self._route(action_rows, everyone)
            free = self._route(torch.zeros_like(action_rows), everyone) if self.guidance_scale != 1.0 else None
            plan = self.dynamics.plan(self.memory, actions, self._prompts, self._steps)
            hidden = free and self.dynamics.plan(self.memory, free, self._prompts, self._steps)
            noise = self._draw(plan)
            latents = self.dynamics.generate(self.memory, plan, self._previous, noise, self.guidance_scale, hidden)
            spread = self._spread(latents, plan, hidden, draws) if draws > 1 else None
            pixels = self._start_decoding(latents) if decode else None  # a GPU copies them while the block is committed
            reward, terminated = self._remember(latents, plan)
            routing = actions.weights.float()
            return WorldStep(
                frames=np.empty(0, np.uint8) if pixels is None else self._finish_decoding(pixels, out),
                latents=latents.float(),
                reward=reward,
                terminated=terminated,
                routing=(routing / routing.sum(-1, keepdim=True)).cpu().numpy(),  # what bfloat16 has rounded off
                spread=spread,
            )

    def _spread(self, latents: Tensor, plan: Conditioning, hidden: Conditioning | None, draws: int) -> np.ndarray:
        """How far ``draws`` of noise lie apart, of which the first has made ``latents``; the others are not kept."""
        before = [generator.get_state() for generator in self._generators]
        made = [latents]
        for _ in range(draws - 1):
            noise = self._draw(plan)
            made.append(self.dynamics.generate(self.memory, plan, self._previous, noise, self.guidance_scale, hidden))
        for generator, state in zip(self._generators, before, strict=True):
            generator.set_state(state)
        return torch.stack(made).float().var(0).flatten(1).mean(1).sqrt().cpu().numpy()

    @torch.inference_mode()
    def observe(self, latents: Tensor, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take in the next block of every world as it truly was, instead of generating it.

        Args:
            latents: float32 (B, C, h, w), the block's latent frame.
            rows: of the actions that led to it, as for :meth:`step`.

        Returns:
            Reward float32 (B,) and termination bool (B,), as the heads read them from that block.

        Raises:
            RuntimeError: if a world has not been reset.
        """
        self._require_begun("observe")
        with self._limited_threads():
            actions = self._route(torch.as_tensor(rows), range(self.num_worlds))
            plan = self.dynamics.plan(self.memory, actions, self._prompts)
            return self._remember(latents.to(self.device), plan)

    def _remember(self, latents: Tensor, plan: Conditioning) -> tuple[np.ndarray, np.ndarray]:
        """Add the newest block of every world to its history and read its reward and termination."""
        noise = self._noise(range(self.num_worlds))
        self._previous, features = self.dynamics.commit(self.memory, latents, plan, self._previous, noise)
        self._features = features.float()
        standard, ending = self.bundle.heads(self._features, plan.actions.code[:, 0].float(), self.modalities)
        reward = self.bundle.heads.reward_units(standard, self.modalities)
        terminated = (ending > 0) & self._can_end
        return torch.where(terminated, self._ending_reward, reward).cpu().numpy(), terminated.cpu().numpy()

    @torch.inference_mode()
    def encode(self, video: np.ndarray) -> Tensor:
        """Frames uint8 (T * K, H, W, 3) to float32 latents (T, C, h, w)."""
        block = self.bundle.config.frames_per_block
        frames = torch.from_numpy(np.ascontiguousarray(video)).unflatten(0, (-1, block)).to(self.device)
        return self.bundle.autoencoder.encode(to_model(frames).to(self.bundle.autoencoder.dtype)).float()

    @torch.inference_mode()
    def decode(self, latents: Tensor, out: np.ndarray | None = None) -> np.ndarray:
        """Latents (n, C, h, w) to frames uint8 (n, K, H, W, 3), which are written into ``out`` if it is given."""
        return self._finish_decoding(self._start_decoding(latents), out)

    def _start_decoding(self, latents: Tensor) -> Tensor:
        """Frames of latents in main memory, which a GPU may fill only later: :meth:`_finish_decoding` waits."""
        frames = to_pixels(self._decode(latents.to(self.device, self.bundle.autoencoder.dtype)))
        return frames.to("cpu", non_blocking=self.device.type == "cuda")

    def _finish_decoding(self, pixels: Tensor, out: np.ndarray | None) -> np.ndarray:
        """Wait for the frames of :meth:`_start_decoding` and write them into ``out``, or into a new array."""
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        if out is None:
            out = np.empty(pixels.shape, np.uint8)
        torch.from_numpy(out).copy_(pixels)
        return out

    def state(self) -> dict[str, Any]:
        """A snapshot of every world: history, random numbers. Give it to :meth:`load_state` to go on from there."""
        return {
            "memory": self.memory.state(),
            "previous": self._previous.clone(),
            "features": self._features.clone(),
            "generators": [generator.get_state() for generator in self._generators],
            "modalities": list(self.modalities),
            "begun": list(self._begun),
            "prompts": None if self._prompts is None else self._prompts.clone(),
        }

    @torch.inference_mode()
    def load_state(self, state: dict[str, Any]) -> None:
        """Go back to a snapshot of a world with as many worlds."""
        if len(state["generators"]) != self.num_worlds:
            raise ValueError(f"state: of {len(state['generators'])} worlds, this one has {self.num_worlds}")
        if state["modalities"] != list(self.modalities):
            raise ValueError(f"state: of {state['modalities']}, this world is of {list(self.modalities)}")
        self.memory.load_state(state["memory"])
        self._previous, self._features = state["previous"].clone(), state["features"].clone()
        for generator, saved in zip(self._generators, state["generators"], strict=True):
            generator.set_state(saved)
        self._begun = list(state["begun"])
        self._prompts = None if state["prompts"] is None else state["prompts"].clone()

    @torch.inference_mode()
    def branch(self, source: World, seeds: Sequence[int]) -> None:
        """Go on in every world from where the one world of ``source`` is, each with random numbers of its own.

        Args:
            source: of the same bundle and scenario; it is not changed.
            seeds: B of them; worlds with the same seed draw the same noise.

        Raises:
            RuntimeError: if the source has not been reset.
            ValueError: if it is not one world, or the seeds are not one for each world.
        """
        source._require_begun("branch")
        if source.num_worlds != 1 or len(seeds) != self.num_worlds:
            raise ValueError(
                f"branch: got {source.num_worlds} worlds and {len(seeds)} seeds for {self.num_worlds} worlds"
            )
        self.memory.clear()
        self.memory.put(list(range(self.num_worlds)), source.memory)
        self._previous = source._previous.repeat(self.num_worlds, 1, 1, 1)
        self._features = source._features.repeat(self.num_worlds, 1)
        for generator, seed in zip(self._generators, seeds, strict=True):
            generator.manual_seed(int(seed))
        self._begun = [True] * self.num_worlds
        if self._prompts is not None and source._prompts is not None:
            self._prompts[:] = source._prompts

    @contextmanager
    def _limited_threads(self) -> Iterator[None]:
        """PyTorch's threads, but no more than there are worlds.

        A block of one world is hundreds of small operations, at each of which threads wait for each other: two of them
        save little, and cost much as soon as another process wants a core.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(min(threads, self.num_worlds))
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def _require_begun(self, caller: str) -> None:
        if not all(self._begun):
            waiting = [i for i, begun in enumerate(self._begun) if not begun]
            raise RuntimeError(f"{caller}: reset worlds {waiting} first")

    def _route(self, rows: Tensor, worlds: Sequence[int]) -> RoutedActions:
        names = [self.modalities[world] for world in worlds]
        return self.bundle.transformer.action_encoder(rows.to(self.device, self.dtype), names)

    def _draw(self, plan: Conditioning) -> Tensor:
        """Noise to make the next block of every world from, ``(B, C, h, w)``."""
        prior, worlds = self.bundle.prior, range(self.num_worlds)
        if prior is None:
            return self._temperatures[:, None, None, None] * self._noise(worlds)
        chance = torch.stack([torch.rand((), generator=generator) for generator in self._generators]).to(self.device)
        normal = self._noise(worlds, self._latent_shape[:1])
        code = plan.actions.code[:, 0].float()
        noise = prior.sample(self._features, self._previous, code, chance, normal, self._temperatures)
        return noise[:, :, None, None].expand(-1, *self._latent_shape)

    def _noise(self, worlds: Sequence[int], shape: Sequence[int] | None = None) -> Tensor:
        noise = [torch.randn(shape or self._latent_shape, generator=self._generators[world]) for world in worlds]
        return torch.stack(noise).to(self.device)
