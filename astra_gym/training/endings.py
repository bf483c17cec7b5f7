"""What ends an episode, learned from further episodes while the world stays as it is.

Few of the episodes that a world learns from end, and fewer in each of the ways in which they can. So the heads have a
second network for endings, which learns here, in a minute, from what the world makes of frames that truly came:
pictures and rewards stay the same, number for number, and so does every scenario that is not named.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from astra_gym.bundles import Bundle, load_bundle, scenarios_of, world_folder
from astra_gym.data.collect import check_empty
from astra_gym.data.episodes import read_episodes
from astra_gym.evaluation.heads import NEAR, judge_termination
from astra_gym.evaluation.rollout import read_truth
from astra_gym.models.heads import RewardHeads
from astra_gym.training.optim import learning_rate_factor
from astra_gym.world import World

WORLDS = 32
"""That look at episodes at the same time."""
ENDING_SHARE = 1 / 8
"""Of a batch; its loss counts them as often as there are."""


@dataclass
class EndingsArgs:
    """Teach a world's heads what ends an episode, from episodes many of which end, and write it as another bundle.

    Prints how many of the ends of held-out episodes are seen in true frames, before and after.

        astra-gym collect --env AstraSim/Drone-v0 --policy crashing-racer --episodes 1200 --blocks 60
            --output data/crashes/drone/train
        astra-gym collect --env AstraSim/Drone-v0 --episodes 160 --blocks 125 --first-seed 1100000
            --output data/crashes/drone/val
        astra-gym train-endings --data data/crashes --scenarios drone --output runs/seeing
    """

    scenarios: tuple[str, ...]
    """Names of the scenarios to learn the ends of, some of the world's; those of all others stay as they are."""
    world: str = "small"
    """Name of a bundled world, or the folder of one."""
    data: Path = Path("data")
    """Folder with the Minari datasets <scenario>/train and <scenario>/val."""
    output: Path = Path("runs/endings")
    """Folder for the new bundle."""
    ending_dim: int = 128
    """Width of the network, where the world has none of its own yet."""
    steps: int = 3_000
    batch_size: int = 256
    lr: float = 1e-3
    """Peak rate of AdamW, which falls linearly to zero."""
    weight_decay: float = 0.05
    seed: int = 0
    """Of fresh weights and batches."""


def train_endings(args: EndingsArgs) -> Path:
    """Write the bundle and return its folder.

    Raises:
        ValueError: naming the argument that is wrong, or where no episode ends.
        FileNotFoundError: if the world or data are missing.
        FileExistsError: if ``output`` holds something already.
    """
    _check(args)
    torch.manual_seed(args.seed)
    bundle = load_bundle(args.world)
    if bundle.heads.endings is None:
        bundle.heads = with_endings(bundle.heads, args.ending_dim)
    parts: dict[str, list[Blocks]] = {"train": [], "val": []}
    for name in args.scenarios:
        for split, kept in parts.items():
            kept.append(read_blocks(bundle, name, args.data / name / split))
    before = [judge(bundle.heads, blocks) for blocks in parts["val"]]
    fit(bundle.heads, parts["train"], args)
    for blocks, was in zip(parts["val"], before, strict=True):
        print(f"{blocks.scenario}: held-out ends before, {was}; now, {judge(bundle.heads, blocks)}")
    return write_heads(bundle.heads, world_folder(args.world), args.output)


def _check(args: EndingsArgs) -> None:
    known = scenarios_of(args.world)
    if not args.scenarios or any(name not in known for name in args.scenarios):
        raise ValueError(f"scenarios: got {list(args.scenarios)}, allowed are some of {known}")
    for name in ("ending_dim", "steps", "batch_size"):
        if (number := getattr(args, name)) < 1:
            raise ValueError(f"{name}: got {number}, allowed are whole numbers from 1")
    check_empty(args.output.absolute())


def with_endings(heads: RewardHeads, ending_dim: int) -> RewardHeads:
    """The same heads with a network for endings that says nothing yet."""
    extended = RewardHeads.from_config(heads.config, ending_dim=ending_dim)
    extended.load_state_dict(heads.state_dict(), strict=False)
    return extended.eval().requires_grad_(False)


@dataclass
class Blocks:
    """The blocks of a scenario's episodes, as the heads see them."""

    scenario: str
    features: Tensor
    """float32 (N, feature_dim)"""
    code: Tensor
    """float32 (N, action_dim)"""
    lengths: list[int]
    """Blocks of each episode."""
    ends: list[bool]
    """Whether each episode ends by itself, in its last block."""

    @property
    def to_end(self) -> Tensor:
        """int64 (N,): how many blocks each is before one that ends its episode; large where none does."""
        counts = [torch.arange(length - 1, -1, -1) + (0 if end else length) for length, end in self._episodes]
        return torch.cat(counts)

    @property
    def _episodes(self):
        return zip(self.lengths, self.ends, strict=True)


def read_blocks(bundle: Bundle, scenario: str, folder: Path) -> Blocks:
    """Show the world a dataset's episodes as they truly were, and keep what its heads look at.

    Raises:
        ValueError: if none of them ends by itself.
    """
    episodes = sorted(
        read_episodes(folder), key=lambda episode: len(episode.actions)
    )  # short ones wait for no long one
    if not any(episode.terminations[-1] for episode in episodes):
        raise ValueError(f"data: no episode in {folder} ends by itself")
    world, modality = World(bundle, WORLDS, scenario), bundle.config.modality(scenario)
    looked_at: list[tuple[Tensor, Tensor]] = []
    handle = bundle.heads.register_forward_pre_hook(lambda _, inputs: looked_at.append(inputs[:2]))
    features: list[Tensor] = []
    codes: list[Tensor] = []
    try:
        for first in tqdm(range(0, len(episodes), WORLDS), desc=f"look at {folder}"):
            batch = episodes[first : first + WORLDS]
            looked_at.clear()
            read_truth(world, modality, batch, first)
            for kept, parts in zip((features, codes), zip(*looked_at, strict=True), strict=True):
                by_world = torch.stack(parts, 1).cpu()
                kept += [by_world[i, : len(episode.actions)] for i, episode in enumerate(batch)]
    finally:
        handle.remove()
    return Blocks(
        scenario,
        torch.cat(features),
        torch.cat(codes),
        [len(episode.actions) for episode in episodes],
        [bool(episode.terminations[-1]) for episode in episodes],
    )


def judge(heads: RewardHeads, blocks: Blocks) -> str:
    """How well ends are seen, in words, see :func:`astra_gym.evaluation.heads.judge_termination`."""
    _, logits = heads(blocks.features, blocks.code, [blocks.scenario] * len(blocks.features))
    said = [each.numpy() > 0 for each in logits.split(blocks.lengths)]
    ends = [length - 1 if end else None for length, end in zip(blocks.lengths, blocks.ends, strict=True)]
    figures = judge_termination(said, ends)
    low, high = figures["f1_interval"]
    return (
        f"{figures['hits']} of {figures['endings']} seen, {figures['false_alarms']} false alarms,"
        f" F1 {figures['f1']:.2f} ({low:.2f} to {high:.2f})"
    )


def fit(heads: RewardHeads, examples: Sequence[Blocks], args: EndingsArgs) -> None:
    """Let the network for endings learn from ``examples``, a batch of each in a step.

    Blocks shortly before an end are left out: to end there is neither right nor wrong. A batch has more ends than the
    data, and its loss weighs them less by as much, so that what is learned is how likely an end is.
    """
    network = heads.endings
    assert network is not None
    generator = torch.Generator().manual_seed(args.seed)
    drawn = []
    for blocks in examples:
        to_end = blocks.to_end
        drawn.append(((to_end == 0).nonzero().flatten(), (to_end > NEAR).nonzero().flatten()))
    rare = max(1, round(ENDING_SHARE * args.batch_size))
    network.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    for step in tqdm(range(args.steps), desc="endings", unit="step"):
        for group in optimizer.param_groups:
            group["lr"] = args.lr * learning_rate_factor(step, args.steps, 1, 1.0)
        loss = torch.zeros(())
        for blocks, (ends, others) in zip(examples, drawn, strict=True):
            parts = []
            for places, count in ((ends, rare), (others, args.batch_size - rare)):
                chosen = places[torch.randint(len(places), (count,), generator=generator)]
                _, logits = heads(blocks.features[chosen], blocks.code[chosen], [blocks.scenario] * count)
                target = torch.full_like(logits, float(places is ends))
                parts.append(len(places) * F.binary_cross_entropy_with_logits(logits, target))
            loss = loss + sum(parts) / (len(ends) + len(others))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    network.requires_grad_(False).eval()


def write_heads(heads: RewardHeads, source: Path, output: Path) -> Path:
    """Copy the bundle ``source`` to ``output``, with ``heads`` in place of its own, as float16."""
    unfinished = output.with_name(f".unfinished-{output.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(source, unfinished)
    shutil.rmtree(unfinished / "heads")
    heads.to(torch.float16).save_pretrained(unfinished / "heads")
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.exists():
        output.rmdir()
    unfinished.rename(output)
    return output
