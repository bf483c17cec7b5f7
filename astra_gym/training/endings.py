"""What ends an episode, learned from further episodes while the world stays as it is.

Few of the episodes that a world learns from end, and fewer in each of the ways in which they can. So a scenario can
have a second network for its endings, which learns here, in a minute, from what the world makes of frames that truly
came and, if asked for, of those that it dreams with the same actions: pictures and rewards stay the same, number for
number, and so does every other scenario.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from astra_gym.bundles import WorldConfig, load_bundle, scenarios_of, world_folder
from astra_gym.data.collect import check_empty
from astra_gym.data.storage import open_storage
from astra_gym.evaluation.heads import NEAR, judge_termination
from astra_gym.evaluation.intervals import with_interval
from astra_gym.models.heads import RewardHeads
from astra_gym.training.optim import learning_rate_factor
from astra_gym.training.seen_episodes import SeenEpisodes, look_at

ENDING_SHARE = 1 / 8
"""Of a batch; its loss counts them as often as there are."""


@dataclass
class EndingsArgs:
    """Teach a world's heads what ends an episode, from episodes many of which end, and write it as another bundle.

    Prints how many of the ends of held-out episodes are seen, before and after: in true frames and, where dreams are
    learned from, in dreams of the same actions. What is learned is of this world's own features: one that goes on from
    it (train --init-from) has to be taught again.

        astra-gym collect --env AstraSim/Drone-v0 --policy crashing-racer --episodes 1200 --blocks 60
            --output data/crashes/drone/train
        astra-gym collect --env AstraSim/Drone-v0 --episodes 160 --blocks 125 --first-seed 1100000
            --output data/crashes/drone/val
        astra-gym train-endings --data data/crashes --scenarios drone
    """

    scenarios: tuple[str, ...]
    """Names of the scenarios to learn the ends of, some of the world's; those of all others stay as they are."""
    world: str = "small"
    """Name of a bundled world, or the folder of one."""
    data: Path = Path("data")
    """Folder with the Minari datasets <scenario>/train and <scenario>/val."""
    run: Path = Path("runs/endings")
    """Folder for what the heads see of the data, which takes longest: run again after an interruption, it goes on."""
    output: Path | None = None
    """Folder for the new bundle; None is the folder bundle of ``run``."""
    dreams: bool = False
    """Learn from dreams, too, of which some begin up to 16 blocks before an end and some go on: more ends are seen in
    dreams then, and fewer in true frames."""
    ending_dim: int = 128
    """Width of a scenario's network, which takes the place of the one that it may have."""
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
    learned, held_out = (
        [
            seen
            for name in args.scenarios
            for seen in look_at(bundle, name, args.data / name / split, args.run, args.dreams)
        ]
        for split in ("train", "val")
    )
    before = [judge(bundle.heads, seen) for seen in held_out]
    heads = with_endings(bundle.heads, args.scenarios, args.ending_dim)
    fit(heads, learned, args)
    for seen, was in zip(held_out, before, strict=True):
        frames = "dreams" if seen.dreamt else "true frames"
        print(f"{seen.scenario}, {frames}: held-out ends before, {was}; now, {judge(heads, seen)}")
    rewards = {seen.scenario: seen.ending_reward for seen in learned if not seen.dreamt}
    return write_bundle(heads, rewards, world_folder(args.world), _output(args))


def _output(args: EndingsArgs) -> Path:
    return args.output or args.run / "bundle"


def _check(args: EndingsArgs) -> None:
    known = scenarios_of(args.world)
    if not args.scenarios or any(name not in known for name in args.scenarios):
        raise ValueError(f"scenarios: got {list(args.scenarios)}, allowed are some of {known}")
    for name, least in (("ending_dim", 1), ("steps", 1), ("batch_size", 2)):
        if (number := getattr(args, name)) < least:
            raise ValueError(f"{name}: got {number}, allowed are whole numbers from {least}")
    check_empty(_output(args).absolute())
    for folder in (args.data / name / split for name in args.scenarios for split in ("train", "val")):
        open_storage(folder)  # which refuses what is no dataset before another one is looked at for long


def with_endings(heads: RewardHeads, scenarios: Sequence[str], ending_dim: int) -> RewardHeads:
    """The same heads; those of ``scenarios`` get a new network for endings that says nothing yet."""
    widths = (heads.config.ending_dims or {}) | dict.fromkeys(scenarios, ending_dim)
    extended = RewardHeads.from_config(heads.config, ending_dims=widths)
    anew = tuple(f"endings.{name}." for name in scenarios)
    kept = {name: tensor for name, tensor in heads.state_dict().items() if not name.startswith(anew)}
    extended.load_state_dict(kept, strict=False)
    return extended.eval().requires_grad_(False)


def judge(heads: RewardHeads, seen: SeenEpisodes) -> str:
    """How well ends are seen, in words, see :func:`astra_gym.evaluation.heads.judge_termination`."""
    _, logits = heads(seen.features, seen.code, [seen.scenario] * len(seen.features))
    figures = judge_termination([each.numpy() > 0 for each in logits.split(seen.lengths)], seen.ends)
    f1 = with_interval({"value": figures["f1"], "interval": figures["f1_interval"]}, 2)
    return f"{figures['hits']} of {figures['endings']} seen, {figures['false_alarms']} false alarms, F1 {f1}"


def fit(heads: RewardHeads, examples: Sequence[SeenEpisodes], args: EndingsArgs) -> None:
    """Let the networks for endings learn from ``examples``, a batch of each scenario in a step.

    Blocks shortly before an end are left out: to end there is neither right nor wrong. A batch has more ends than the
    data, and its loss weighs them less by as much, so that what is learned is how likely an end is.
    """
    lessons = {name: Lesson([seen for seen in examples if seen.scenario == name]) for name in args.scenarios}
    networks = torch.nn.ModuleList(heads.endings[name] for name in lessons)
    generator = torch.Generator().manual_seed(args.seed)
    rare = max(1, round(ENDING_SHARE * args.batch_size))
    networks.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(networks.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    for step in tqdm(range(args.steps), desc="endings", unit="step"):
        for group in optimizer.param_groups:
            group["lr"] = args.lr * learning_rate_factor(step, args.steps, 1, 1.0)
        loss = torch.zeros(())
        for name, lesson in lessons.items():
            parts = []
            for places, count in ((lesson.ends, rare), (lesson.others, args.batch_size - rare)):
                chosen = places[torch.randint(len(places), (count,), generator=generator)]
                _, logits = heads(lesson.features[chosen], lesson.code[chosen], [name] * count)
                target = torch.full_like(logits, float(places is lesson.ends))
                parts.append(len(places) * F.binary_cross_entropy_with_logits(logits, target))
            loss = loss + sum(parts) / (len(lesson.ends) + len(lesson.others))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    networks.requires_grad_(False).eval()


class Lesson:
    """All blocks of a scenario, true and dreamt, and the places of those that end an episode and of the others."""

    def __init__(self, examples: Sequence[SeenEpisodes]):
        self.features = torch.cat([seen.features for seen in examples])
        self.code = torch.cat([seen.code for seen in examples])
        to_end = torch.cat([seen.to_end for seen in examples])
        self.ends, self.others = (to_end == 0).nonzero().flatten(), (to_end > NEAR).nonzero().flatten()


def write_bundle(heads: RewardHeads, ending_rewards: dict[str, float], source: Path, output: Path) -> Path:
    """Copy the bundle ``source`` to ``output``, with ``heads`` in place of its own, as float16.

    Scenarios of ``ending_rewards`` that could not end before get these as the reward of a block that ends an episode.
    """
    unfinished = output.with_name(f".unfinished-{output.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(source, unfinished)
    shutil.rmtree(unfinished / "heads")
    heads.to(torch.float16).save_pretrained(unfinished / "heads")
    config = WorldConfig.load(unfinished)
    if new := {name: reward for name, reward in ending_rewards.items() if name not in config.termination_rewards}:
        config.termination_rewards |= new
        config.save(unfinished)
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.exists():
        output.rmdir()
    unfinished.rename(output)
    return output
