"""What a training is asked for, and whether it can be done: checked before the first stage begins."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from astra_gym.actions import MODALITIES, Modality
from astra_gym.bundles import WorldConfig
from astra_gym.data.episodes import longest_episode, read_scenario
from astra_gym.data.storage import open_storage
from astra_gym.precision import usable_device
from astra_gym.sampler import FlowConfig
from astra_gym.scenarios import check_name, in_order
from astra_gym.training.loop import LoopConfig
from astra_gym.training.world import WorldLossConfig

STAGES = ("autoencoder", "decoder", "world", "bundle")
BEFORE_END = 8
"""Blocks that an episode must still go on after a start of the bank."""


@dataclass
class TransformerSize:
    """Size of the transformer."""

    heads: int = 6
    head_dim: int = 64
    layers: int = 4
    ffn_dim: int = 1536
    window: int = 6
    """Latent frames of history attended to in full."""
    summary_window: int = 10
    """Latent frames before those, remembered by one token each."""
    experts: int = 4
    top_k: int = 2
    """Experts that an action is sent to."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name}: got {value}, allowed are whole numbers from 1")
        if self.top_k > self.experts:
            raise ValueError(f"top_k: got {self.top_k}, allowed are 1 to {self.experts}, the number of experts")


@dataclass
class TrainArgs:
    """Train a world on collected episodes and write its bundle. Run again after an interruption, it goes on.

    For several processes: ``accelerate launch --multi_gpu --num_processes N scripts/train_world.py ...``, on CPUs too;
    batch sizes are those of one process.
    """

    data: Path = Path("data")
    """Folder with the Minari datasets <scenario>/train and <scenario>/val."""
    scenarios: tuple[str, ...] = ("all",)
    """Scenarios to learn jointly: "all" for the four known ones, or names of folders in ``data``. One that is not among
    the four can be of any environment; what its actions mean is read from its data."""
    run: Path = Path("runs/train")
    """Folder for checkpoints and TensorBoard logs."""
    output: Path | None = None
    """Folder for the finished bundle; None is the folder bundle of ``run``."""
    stages: tuple[str, ...] = STAGES
    """What to do: autoencoder; decoder (goes on with the decoder alone, for clean edges); world; bundle."""
    init_from: Path | None = None
    """Bundle to go on from instead of fresh weights, wherever its sizes are the same. Stages that are left out use its
    parts."""
    init_without: tuple[str, ...] = ()
    """Parts of names: tensors of that bundle whose name holds one of them are left out and begin anew."""
    train_only: tuple[str, ...] = ()
    """Parts of names: in the stage "world" only tensors whose name holds one of them learn, such as "experts" and
    "critic"; by default all do."""
    device: str = "cpu"
    """cpu or cuda."""
    bf16: bool | None = None
    """Compute in bfloat16 (autocast), None where the device has instructions for it; weights stay float32."""
    seed: int = 0
    """Of fresh weights, batches and noise."""
    latent_channels: int = 16
    autoencoder: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=1_500, lr=2e-3, muon_lr=0.02, warmup=50, ema_decay=0.99, validate_every=100
        )
    )
    decoder: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=1_000, lr=5e-4, muon_lr=5e-3, warmup=50, ema_decay=0.99, validate_every=100
        )
    )
    autoencoder_batch_size: int = 32
    decoder_edge_weight: float = 1.0
    """Weight of edges while only the decoder is trained; 0.25 before."""
    transformer: TransformerSize = field(default_factory=TransformerSize)
    world: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=4_000, lr=1e-3, muon_lr=0.02, warmup=100, decay_share=0.85, validate_every=250, checkpoint_every=50
        )
    )
    world_loss: WorldLossConfig = field(default_factory=WorldLossConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    starts: int = 64
    """Starts in the bundle's bank, from held-out episodes."""
    temperatures: dict[str, float] = field(default_factory=dict)
    """Those of the bundle, see :attr:`astra_gym.bundles.WorldConfig.temperatures`."""


def chosen_scenarios(names: tuple[str, ...], data: Path) -> list[str]:
    """Scenario names, the four known ones first and in their order; ("all",) is all of these.

    Raises:
        ValueError: on an unknown name, or if there is none.
    """
    own = sorted(path.parent.parent.name for path in data.glob("*/train/metadata.json"))
    allowed = in_order([*MODALITIES, *own])
    if names == ("all",):
        return list(MODALITIES)
    if not names or any(name not in allowed for name in names):
        raise ValueError(
            f"scenarios: got {list(names)}, allowed are {allowed}, or 'all' alone; "
            f"`astra-gym collect --env ... --output {data}/NAME/train` makes another"
        )
    for name in set(names) - set(MODALITIES):
        check_name(name)
        read_scenario(data / name / "train")  # which refuses actions that no world can learn
    return in_order(names)


def checked_scenarios(args: TrainArgs) -> list[str]:
    """Names of the scenarios to learn, once it is clear that no stage will fail for what ``args`` and the data are.

    Raises:
        ValueError: naming the argument that is wrong.
    """
    if unknown := [stage for stage in args.stages if stage not in STAGES]:
        raise ValueError(f"stages: got {unknown}, allowed are {STAGES}")
    usable_device(args.device)
    if args.starts < 1:
        raise ValueError(f"starts: got {args.starts}, allowed are whole numbers from 1")
    scenarios = chosen_scenarios(args.scenarios, args.data)
    _check_each_scenario("world_loss.scenario_weights", args.world_loss.scenario_weights, scenarios)
    _check_each_scenario("world_loss.nat_prices", args.world_loss.nat_prices, scenarios)
    _check_each_scenario("temperatures", args.temperatures, scenarios)
    _check_lengths(args, scenarios)
    _check_frames(args, scenarios)
    return scenarios


def _check_each_scenario(argument: str, numbers: dict[str, float], scenarios: list[str]) -> None:
    """Raise a ValueError if one of the ``numbers`` is of no scenario, or not above 0."""
    for name, number in numbers.items():
        if name not in scenarios:
            raise ValueError(f"{argument}: got {name!r}, allowed are {scenarios}")
        if not 0 < number < math.inf:
            raise ValueError(f"{argument}: got {number} for {name!r}, it must be finite and above 0")


def _check_lengths(args: TrainArgs, scenarios: list[str]) -> None:
    """Raise a ValueError now if episodes are too short for a later stage."""
    size = args.transformer
    start = size.window + size.summary_window + BEFORE_END
    clip = args.world_loss.clip_frames - 1  # an episode has a block more than steps
    for split, stage, needed in (("train", "world", clip), ("val", "world", clip), ("val", "bundle", start)):
        for name in scenarios if stage in args.stages else ():
            folder = args.data / name / split
            if (folder / "metadata.json").exists() and (longest := longest_episode(folder)) < needed:
                raise ValueError(f"data: the longest episode in {folder} has {longest} blocks, needed are {needed}")


def _check_frames(args: TrainArgs, scenarios: list[str]) -> None:
    """Raise a ValueError now if a dataset's blocks are none that a world can learn, or not of the first one's size."""
    block = WorldConfig.frames_per_block
    first: tuple[Path, tuple[int, ...]] | None = None
    for folder in (args.data / name / split for name in scenarios for split in ("train", "val")):
        if not (folder / "metadata.json").exists():
            continue
        shape = open_storage(folder).observation_space.shape
        frames, height, width, colours = shape
        if (frames, height, colours) != (block, width, 3) or height % 16:
            raise ValueError(f"data: {folder} has blocks {shape}, allowed is ({block}, S, S, 3) where 16 divides S")
        first = first or (folder, shape)
        if shape != first[1]:
            raise ValueError(f"data: {folder} has blocks {shape}, those of {first[0]} are {first[1]}")


def modality_of(args: TrainArgs, scenario: str) -> Modality:
    """What an action means in a scenario: known, or told by the data."""
    return MODALITIES.get(scenario) or read_scenario(args.data / scenario / "train").modality(scenario)
