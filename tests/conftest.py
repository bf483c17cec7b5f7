"""Shared fixtures: a few short real episodes."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


@pytest.fixture(scope="session")
def episodes(tmp_path_factory) -> Path:
    """Folder with the Minari datasets train/ (3 episodes) and val/ (2 episodes) of 24 CarRacing blocks each."""
    from astra_gym.data.collect import CollectArgs, collect

    folder = tmp_path_factory.mktemp("data") / "drive"
    collect(CollectArgs(output=folder / "train", episodes=3, blocks=24, workers=2))
    collect(CollectArgs(output=folder / "val", episodes=2, blocks=24, first_seed=1_000_000, workers=2))
    return folder
