"""Put several datasets into one, for instance an agent's own true episodes beside those that a world learned from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from astra_gym.data.collect import check_empty
from astra_gym.data.storage import open_storage


@dataclass
class JoinArgs:
    """Put several collected datasets of one scenario into a new one.

    A round of refreshing a world: an agent that was trained in the dream goes where the world's data do not, so collect
    its own true episodes, let the world go on learning with them, and let the agent go on in that world.

        astra-gym collect --policy runs/agent/policy.zip --output data/drive/own --episodes 60 --first-seed 500000
        astra-gym join --inputs data/drive/train data/drive/own --output data/refreshed/drive/train
        cp -r data/drive/val data/refreshed/drive/val
        astra-gym train --data data/refreshed --scenarios drive --init-from WORLD --stages world bundle
            --run runs/refreshed --output runs/refreshed/bundle --world.steps 1000
        astra-gym train-agent AstraDrive-v0 --world runs/refreshed/bundle --output runs/agent --resume --timesteps MORE

    WORLD is the folder of the world; one of several scenarios needs the data of all of them in data/refreshed.
    """

    inputs: tuple[Path, ...]
    """Folders of datasets, with the same observations and actions."""
    output: Path
    """Folder of the new dataset; must not hold one yet."""


def join(args: JoinArgs) -> Path:
    """Write the new dataset and return its folder; an interruption leaves nothing in it.

    Raises:
        FileExistsError: if there is a dataset already, or anything else.
        FileNotFoundError: if one of the inputs holds none.
        ValueError: if they do not fit together.
    """
    import minari
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    output = args.output.absolute()
    check_empty(output)
    storages = [open_storage(path) for path in args.inputs]
    if not storages:
        raise ValueError("inputs: got none, allowed are one or more folders")
    first = storages[0]
    for path, storage in zip(args.inputs, storages, strict=True):
        if (storage.observation_space, storage.action_space) != (first.observation_space, first.action_space):
            raise ValueError(f"inputs: {path} has other observations or actions than {args.inputs[0]}")
    temporary = output.with_name(output.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    joined = MinariStorage.new(
        temporary,
        observation_space=first.observation_space,
        action_space=first.action_space,
        env_spec=minari.MinariDataset(first).env_spec,
        jpeg_encoding=False,
    )
    total = sum(storage.total_episodes for storage in storages)
    with tqdm(total=total, unit="episode", desc="join") as bar:
        for storage in storages:
            for seed, episode in _episodes(storage):
                joined.update_episodes([EpisodeBuffer(seed=seed, **episode)])
                bar.update()
    known = joined.metadata  # sizes and spaces; the rest is the first dataset's
    joined.update_metadata({key: value for key, value in first.metadata.items() if key not in known})
    os.replace(temporary, output)
    return args.output


def _episodes(storage: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    indices = range(storage.total_episodes)
    seeds = [metadata.get("seed", -1) for metadata in storage.get_episode_metadata(indices)]
    keys = ("observations", "actions", "rewards", "terminations", "truncations")
    for seed, episode in zip(seeds, storage.get_episodes(indices), strict=True):
        yield seed, {key: episode[key] for key in keys}
