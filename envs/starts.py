"""Where an episode begins: a place of the bundle's bank, or a picture or video given to ``reset``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from astra_gym.actions import Modality
from astra_gym.media import load_image, load_video
from astra_gym.prompts import scenario_of

if TYPE_CHECKING:
    import torch

    from astra_gym.bundles import Start, StartBank
    from astra_gym.data.episode_starts import EpisodeStarts
    from astra_gym.world import World

OPTIONS = ("start", "image", "video", "actions", "prompt")
"""Keys of ``reset(options=...)``."""


@dataclass(frozen=True)
class Beginning:
    """What a world needs to begin an episode."""

    start: Start
    """What it remembers."""
    seed: int
    """Of everything that it draws later."""
    prompt: str | None
    """The scenario that it is told it is in, None for nothing."""


def start_bank(world: World, modality: Modality, episodes: str | Path | None) -> StartBank | EpisodeStarts:
    """What the beginnings of a scenario are drawn from: the bundle's bank, or the moments of a dataset in a folder.

    Raises:
        FileNotFoundError: if there is no dataset.
        ValueError: if it is of another scenario.
    """
    if episodes is None:
        return world.bundle.starts[modality.name]
    from astra_gym.data.episode_starts import load_episode_starts

    return load_episode_starts(episodes, world.bundle, modality)


@dataclass(frozen=True)
class ResetOptions:
    """What ``reset(options=...)`` asks of one scenario, checked."""

    start: Start | None
    """Where to begin, None for any place of the bank."""
    prompt: str | None
    """As for :class:`Beginning`."""


def read_options(
    world: World, bank: StartBank | EpisodeStarts, modality: Modality, options: Mapping[str, Any] | None
) -> ResetOptions:
    """What the options of a ``reset`` ask for; nothing is drawn or changed.

    Args:
        world: encodes pictures and videos.
        bank: of starts.
        modality: of the scenario.
        options: at most one of "start", "image" and "video", and "actions" only beside "video"; "prompt".

    Raises:
        ValueError: naming the option that is wrong.
    """
    if not isinstance(options or {}, Mapping):
        raise ValueError(f"options: got {options!r}, allowed is a dict")
    options = dict(options or {})
    start = _given_start(world, modality, bank, options)
    known = list(world.bundle.transformer.config.modalities)
    return ResetOptions(start, scenario_of(options.get("prompt", modality.name), known))


def draw_beginnings(
    bank: StartBank | EpisodeStarts, asked: ResetOptions, generators: Sequence[np.random.Generator]
) -> list[Beginning]:
    """Beginnings of several episodes of one scenario, one for each generator of random numbers."""
    drawn = [(int(rng.integers(len(bank))), int(rng.integers(2**31))) for rng in generators]
    return [Beginning(bank[place] if asked.start is None else asked.start, seed, asked.prompt) for place, seed in drawn]


def _given_start(
    world: World, modality: Modality, bank: StartBank | EpisodeStarts, options: Mapping[str, Any]
) -> Start | None:
    """The start that ``options`` ask for, None if they name no beginning."""
    if unknown := [key for key in options if key not in OPTIONS]:
        raise ValueError(f"options: got unknown key {unknown[0]!r}, allowed are {OPTIONS}")
    given = [key for key in ("start", "image", "video") if options.get(key) is not None]
    if len(given) > 1:
        raise ValueError(f"options: got {given}, allowed is one of them")
    if options.get("actions") is not None and given != ["video"]:
        raise ValueError("actions: allowed only together with the option 'video'")
    if given == ["image"]:
        return _image_start(world, modality, options["image"])
    if given == ["video"]:
        return _video_start(world, modality, options["video"], options.get("actions"))
    return bank[_bank_index(options["start"], len(bank))] if given else None


def _bank_index(start: Any, size: int) -> int:
    if not isinstance(start, (int, np.integer)) or isinstance(start, bool) or not 0 <= start < size:
        raise ValueError(f"start: got {start!r}, allowed are the integers 0 to {size - 1}")
    return int(start)


def _image_start(world: World, modality: Modality, source: Any) -> Start:
    """A world that stood still: the picture repeated for one block, the action unknown."""
    from astra_gym.bundles import Start

    config = world.bundle.config
    image = load_image(source, config.frame_size)
    latents = world.encode(np.stack([image] * config.frames_per_block))
    return Start(latents, _rows(modality, None, len(latents)))


def _video_start(world: World, modality: Modality, source: Any, actions: Any) -> Start:
    """The whole blocks of a video, as many as the world can remember, with the actions that led to them if known."""
    from astra_gym.bundles import Start

    config, memory = world.bundle.config, world.bundle.transformer.config
    per_block = config.frames_per_block
    video = load_video(source, config.frame_size, min_frames=per_block)
    rows = _rows(modality, actions, len(video) // per_block)[-memory.window - memory.summary_window :]
    return Start(world.encode(video[-per_block * len(rows) :]), rows)


def _rows(modality: Modality, actions: Any, blocks: int) -> torch.Tensor:
    """Model rows ``(blocks, row_dim)`` of the given actions; of unknown ones where ``actions`` is None."""
    from torch import from_numpy, zeros

    if actions is None:
        return zeros(blocks, modality.row_dim)
    expected = (blocks, modality.action_dim)
    if np.shape(actions) != expected:
        raise ValueError(f"actions: got shape {np.shape(actions)}, allowed is {expected}: one action for each block")
    try:
        return from_numpy(modality.rows(actions))
    except ValueError as error:
        raise ValueError(f"actions: {error}") from error
