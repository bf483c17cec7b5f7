"""Judge the scenarios of a world on the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from astra_gym import cluster

if TYPE_CHECKING:
    from astra_gym.evaluation.evaluate import EvaluateArgs


def judge_on_cluster(
    args: EvaluateArgs, scenarios_and_parts: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Judge each part of each scenario on a worker that loads the world and holds its batches.

    The cluster's processors are shared out evenly: where there are more of them than jobs, each has several threads.
    Figures are those of one process with as many threads on the same machine; others may round differently.

    Args:
        args: with the cluster's address. Its folders must be the same on all machines.
        scenarios_and_parts: names of a scenario and of one of its parts each.

    Yields:
        The scenario, the part and its figures, as they come.
    """
    if not scenarios_and_parts:
        return
    args = _absolute(args)
    with cluster.joined(str(args.ray)), tqdm(total=len(scenarios_and_parts), unit="part", desc="judge") as bar:
        total, largest = cluster.processors()
        threads = max(1, min(largest, total // len(scenarios_and_parts)))
        jobs = [(args, name, part, threads) for name, part in scenarios_and_parts]
        on_gpu = int(args.device.startswith("cuda"))
        for index, figures in cluster.spread(judge, jobs, num_cpus=threads, num_gpus=on_gpu):
            bar.set_postfix_str(": ".join(scenarios_and_parts[index]))
            bar.update()
            yield *scenarios_and_parts[index], figures


def judge(args: EvaluateArgs, name: str, part: str, threads: int) -> dict[str, Any]:
    """The figures of one part of one scenario, in this process, with ``threads`` threads."""
    import torch

    from astra_gym.bundles import load_bundle
    from astra_gym.data.episodes import read_episodes
    from astra_gym.evaluation.scenario import judge_scenario

    torch.set_num_threads(threads)
    bundle = load_bundle(args.world, device=args.device)
    episodes = list(islice(read_episodes(args.data / name / "val"), args.episodes))
    return judge_scenario(args, bundle, name, part, episodes)


def _absolute(args: EvaluateArgs) -> EvaluateArgs:
    """The same with folders that do not depend on the current one."""
    from astra_gym.bundles import bundled_worlds

    world = args.world if args.world in bundled_worlds() else str(Path(args.world).absolute())
    return replace(args, world=world, data=args.data.absolute(), output=args.output.absolute())
