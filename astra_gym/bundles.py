"""Bundles: a trained world on disk (weights, settings, start bank) and in memory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from astra_gym.actions import MODALITIES, Modality
from astra_gym.files import save_tensors
from astra_gym.models.autoencoder import BlockAutoencoder
from astra_gym.models.base import ModelMixin
from astra_gym.models.heads import RewardHeads
from astra_gym.models.layers import can_quantize
from astra_gym.models.noise_prior import NoisePrior
from astra_gym.models.transformer import AstraTransformer
from astra_gym.precision import native_dtype, resolve_dtype, usable_device
from astra_gym.sampler import FlowConfig
from astra_gym.scenarios import Scenario, in_order, simulator_id

PRETRAINED = Path(__file__).parent / "pretrained"
PARTS = {"transformer": AstraTransformer, "autoencoder": BlockAutoencoder, "heads": RewardHeads, "prior": NoisePrior}
"""Of a bundle, by folder; it may lack the last."""


@dataclass
class WorldConfig:
    """What a bundle says of itself, stored as ``world.json``."""

    frames_per_block: int = 4
    frame_size: int = 64
    num_inference_steps: int = 1
    """Euler steps a block by default."""
    scenario_inference_steps: dict[str, int] = field(default_factory=dict)
    """The same for the scenarios that take another number."""
    guidance_scale: float = 1.0
    """Action-free guidance by default; 1 is off."""
    temperatures: dict[str, float] = field(default_factory=dict)
    """For each scenario the temperature at which the noise that a block begins as is drawn from the prior (see
    :meth:`astra_gym.models.noise_prior.NoisePrior.sample`) or, where a bundle has none, its standard deviation; 1 where
    it is not named. Lower is truer on average and less varied."""
    flow: FlowConfig = field(default_factory=FlowConfig)
    termination_rewards: dict[str, float] = field(default_factory=dict)
    """For each scenario that can end: mean reward of the block that ends an episode."""
    own_scenarios: dict[str, Scenario] = field(default_factory=dict)
    """Those beyond the four of :data:`astra_gym.actions.MODALITIES`."""

    def inference_steps(self, scenario: str) -> int:
        """Euler steps a block of a scenario by default."""
        return self.scenario_inference_steps.get(scenario, self.num_inference_steps)

    def modality(self, scenario: str) -> Modality:
        """What an action means in a scenario.

        Raises:
            ValueError: if it is neither one of the four nor one of the bundle's own.
        """
        if scenario in self.own_scenarios:
            return self.own_scenarios[scenario].modality(scenario)
        if scenario in MODALITIES:
            return MODALITIES[scenario]
        raise ValueError(f"scenario: got {scenario!r}, allowed are {[*MODALITIES, *self.own_scenarios]}")

    def simulator_id(self, scenario: str) -> str:
        """Id of a scenario's ground truth, for :func:`astra_gym.simulators.own.make_simulator`."""
        if scenario in self.own_scenarios:
            return self.own_scenarios[scenario].env
        return simulator_id(scenario)

    def save(self, folder: Path) -> None:
        (folder / "world.json").write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> WorldConfig:
        """Read ``world.json``; unknown or misspelt keys are refused."""
        path = folder / "world.json"
        try:
            values = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"world: {path} is not valid JSON ({error})") from error
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"world: {path} has unknown keys {unknown}, allowed are {sorted(known)}")
        try:
            values["flow"] = FlowConfig(**values.get("flow", {}))
            values["own_scenarios"] = {
                name: Scenario(**{**stored, "low": tuple(stored["low"]), "high": tuple(stored["high"])})
                for name, stored in values.get("own_scenarios", {}).items()
            }
        except (TypeError, KeyError) as error:
            raise ValueError(f"world: {path} has a wrong or missing key ({error})") from error
        return cls(**values)


@dataclass
class Start:
    """A real beginning of an episode: what the world remembers before the first step."""

    latents: Tensor
    """float32 (T, C, h, w), newest last."""
    rows: Tensor
    """float32 (T, row_dim); ``rows[i]`` led to ``latents[i]``, zeros where the action is unknown."""
    sim_seed: int | None = None
    """The same beginning in the simulator: ``reset(seed=sim_seed)`` …"""
    sim_actions: np.ndarray | None = None
    """… then these actions, float32 (n, action_dim), the last of which leads to the newest block."""
    index: int | None = None
    """Place in the bundle's bank, None for a start that is not from there."""


class StartBank:
    """The starts of one scenario, stored as one safetensors file."""

    def __init__(self, tensors: dict[str, Tensor]):
        self.tensors = tensors

    @classmethod
    def from_starts(cls, starts: list[Start]) -> StartBank:
        actions = [np.asarray(start.sim_actions, np.float32) for start in starts]
        lengths = np.cumsum([0] + [len(a) for a in actions])
        return cls(
            {
                "latents": torch.stack([start.latents for start in starts]).half(),
                "rows": torch.stack([start.rows for start in starts]),
                "sim_seeds": torch.tensor([start.sim_seed for start in starts]),
                "sim_actions": torch.from_numpy(np.concatenate(actions)),
                "sim_offsets": torch.from_numpy(lengths),
            }
        )

    def __len__(self) -> int:
        return len(self.tensors["sim_seeds"])

    def __getitem__(self, index: int) -> Start:
        if not 0 <= index < len(self):
            raise ValueError(f"start: got {index}, allowed are 0 to {len(self) - 1}")
        first, last = self.tensors["sim_offsets"][index : index + 2].tolist()
        return Start(
            latents=self.tensors["latents"][index].float(),
            rows=self.tensors["rows"][index],
            sim_seed=int(self.tensors["sim_seeds"][index]),
            sim_actions=self.tensors["sim_actions"][first:last].numpy(),
            index=index,
        )

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors({name: tensor.contiguous() for name, tensor in self.tensors.items()}, path)

    @classmethod
    def load(cls, path: Path) -> StartBank:
        return cls(load_file(path))


@dataclass
class Bundle:
    """A world's parts, ready to run."""

    config: WorldConfig
    transformer: AstraTransformer
    autoencoder: BlockAutoencoder
    heads: RewardHeads
    starts: dict[str, StartBank]
    """By scenario."""
    prior: NoisePrior | None = None
    """Of the noise that a block begins as; without one it is normal and independent at each place."""

    @property
    def parts(self) -> dict[str, ModelMixin]:
        """Those of :data:`PARTS` that it has."""
        return {name: getattr(self, name) for name in PARTS if getattr(self, name) is not None}

    @property
    def scenarios(self) -> list[str]:
        """Names of what it can begin, the four known ones first."""
        return in_order(self.starts)

    def save(self, folder: Path, dtype: torch.dtype = torch.float16) -> None:
        """Write the bundle, its weights as ``dtype``, in place of the one that the folder may hold."""
        unfinished = folder.with_name(f".unfinished-{folder.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        self.config.save(unfinished)
        for name, module in self.parts.items():
            original = {key: value.clone() for key, value in module.state_dict().items()}
            own_dtype = module.dtype
            nn.Module.to(module, dtype).save_pretrained(unfinished / name)
            nn.Module.to(module, own_dtype).load_state_dict(original)
        for scenario, bank in self.starts.items():
            bank.save(unfinished / "starts" / f"{scenario}.safetensors")
        folder.mkdir(parents=True, exist_ok=True)
        for name in (*PARTS, "starts"):
            shutil.rmtree(folder / name, ignore_errors=True)
            if (unfinished / name).exists():
                (unfinished / name).rename(folder / name)
        os.replace(unfinished / "world.json", folder / "world.json")
        unfinished.rmdir()


def bundled_worlds() -> list[str]:
    """Names of the worlds that ship with the package."""
    return sorted(path.parent.name for path in PRETRAINED.glob("*/world.json"))


def world_folder(world: str | Path) -> Path:
    """The folder of a world.

    Raises:
        FileNotFoundError: if ``world`` is neither a bundled world's name nor the folder of one.
    """
    folder = PRETRAINED / world if str(world) in bundled_worlds() else Path(world)
    if not (folder / "world.json").is_file():
        raise FileNotFoundError(
            f"world: {str(world)!r} is neither a bundled world {bundled_worlds()} nor a folder with a world.json"
        )
    return folder


def scenarios_of(world: str | Path) -> list[str]:
    """Names of a world's scenarios, the four known ones first, without loading its weights."""
    return in_order([path.stem for path in (world_folder(world) / "starts").glob("*.safetensors")])


def load_bundle(
    world: str | Path = "small", device: str | torch.device = "cpu", dtype: str | torch.dtype | None = None
) -> Bundle:
    """Load a world.

    Args:
        world: name of a bundled world, or a folder that :meth:`Bundle.save` wrote.
        device: where to put it.
        dtype: of the transformer and the autoencoder, a torch dtype or its name; "int8" for float32 with the matrix
            products of the transformer's blocks in 8-bit integers; None for bfloat16 where the device computes in it,
            else float32.

    Raises:
        FileNotFoundError: if there is no such world, or a file of it is missing.
        ValueError: if a file is corrupt or does not fit its configuration, or the device or dtype is unknown.
    """
    folder = world_folder(world)
    target = usable_device(device)
    int8 = dtype in ("int8", torch.int8)
    if int8 and not (target.type == "cpu" and can_quantize()):
        raise ValueError(f"dtype: got int8, which PyTorch cannot compute in on {device!r} here; allowed is another")
    torch_dtype = native_dtype(target) if dtype is None else resolve_dtype("float32" if int8 else dtype)
    modules = {}
    for name, cls in PARTS.items():
        if name == "prior" and not (folder / name).is_dir():
            continue
        if not (folder / name / "diffusion_pytorch_model.safetensors").is_file():
            raise FileNotFoundError(f"world: {folder / name} has no diffusion_pytorch_model.safetensors")
        try:
            kept = torch.float32 if name in ("heads", "prior") else torch_dtype
            module = cls.from_pretrained(folder / name, torch_dtype=kept, low_cpu_mem_usage=False)
        except (SafetensorError, OSError, RuntimeError, ValueError, TypeError) as error:
            raise ValueError(
                f"world: the weights in {folder / name} are corrupt or do not fit their config: {error}"
            ) from error
        if target.type != "cpu":  # diffusers' `to` imports PyTorch's compiler, see astra_gym.models.base
            module = module.to(target)
        modules[name] = module.eval().requires_grad_(False)
    modules["transformer"].fuse(int8)
    modules["autoencoder"].fuse()
    try:
        starts = {path.stem: StartBank.load(path) for path in sorted((folder / "starts").glob("*.safetensors"))}
    except SafetensorError as error:
        raise ValueError(f"world: a start bank in {folder / 'starts'} is corrupt: {error}") from error
    config = WorldConfig.load(folder)
    known = in_order(modules["transformer"].config.modalities)
    for key in ("scenario_inference_steps", "temperatures", "termination_rewards"):
        if unknown := sorted(set(getattr(config, key)) - set(known)):
            raise ValueError(f"world: {folder / 'world.json'} has {unknown} in {key}, allowed are {known}")
    if cold := {name: heat for name, heat in config.temperatures.items() if not 0 < heat < float("inf")}:
        raise ValueError(f"world: {folder / 'world.json'} has {cold} in temperatures, allowed are numbers above 0")
    return Bundle(config=config, starts=starts, **modules)


def fingerprint(bundle: Bundle, without: str | None = None) -> str:
    """First 16 hexadecimal digits of the SHA-256 of all of a bundle's weights, as bfloat16 whatever it computes in, and
    of its settings (world.json). One of its parts can be left out, by its name."""
    digest = hashlib.sha256()
    for part in (bundle.parts[name] for name in bundle.parts if name != without):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().bfloat16().float().cpu().numpy().tobytes())
    digest.update(json.dumps(asdict(bundle.config), sort_keys=True).encode())
    return digest.hexdigest()[:16]
