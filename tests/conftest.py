"""Shared fixtures: a few short real episodes, and a world of all scenarios."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
with contextlib.suppress(ImportError):  # chooses how MuJoCo draws, which must come before a test imports mujoco
    import astra_gym.simulators.mujoco_view  # noqa: F401


@pytest.fixture(scope="session")
def episodes(tmp_path_factory) -> Path:
    """Folder with the Minari datasets train/ (3 episodes) and val/ (2 episodes) of 24 CarRacing blocks each."""
    from astra_gym.data.collect import CollectArgs, collect

    folder = tmp_path_factory.mktemp("data") / "drive"
    collect(CollectArgs(output=folder / "train", episodes=3, blocks=24, workers=2))
    collect(CollectArgs(output=folder / "val", episodes=2, blocks=24, first_seed=1_000_000, workers=2))
    return folder


@pytest.fixture(scope="session")
def joint_world(tmp_path_factory) -> Path:
    """Folder of a small random world of all scenarios, whose starts differ in length."""
    import numpy as np
    import torch

    from astra_gym.actions import MODALITIES
    from astra_gym.bundles import Bundle, Start, StartBank, WorldConfig
    from astra_gym.models.autoencoder import BlockAutoencoder
    from astra_gym.models.heads import RewardHeads
    from astra_gym.models.transformer import AstraTransformer

    torch.manual_seed(0)
    transformer = AstraTransformer(
        in_channels=4,
        num_attention_heads=2,
        attention_head_dim=24,
        num_layers=1,
        ffn_dim=32,
        freq_dim=32,
        modalities={name: modality.row_dim for name, modality in MODALITIES.items()},
        scenario_prompt=True,
    )
    for parameter in transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    starts = {
        name: [
            Start(
                torch.randn(2 + i, 4, 8, 8), torch.randn(2 + i, modality.row_dim), 0, np.zeros((0, modality.action_dim))
            )
            for _ in range(5)
        ]
        for i, (name, modality) in enumerate(MODALITIES.items())
    }
    bundle = Bundle(
        WorldConfig(num_inference_steps=1),
        transformer,
        BlockAutoencoder(latent_channels=4, encoder_channels=(8, 8), decoder_channels=(8, 8, 8)),
        RewardHeads(96, 25, 16, dict.fromkeys(MODALITIES, (0.0, 1.0))),
        {name: StartBank.from_starts(some) for name, some in starts.items()},
    )
    folder = tmp_path_factory.mktemp("world") / "joint"
    bundle.save(folder)
    return folder


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory) -> Iterator[Path]:
    """A Ray cluster of two workers on this machine, which find modules in the folder that comes."""
    ray = pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("modules")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        patch.syspath_prepend(folder)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # otherwise they hardly run on a machine that does something else
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
        yield folder
        ray.shutdown()
