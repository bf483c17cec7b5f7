"""Minari's storage of a dataset, if Minari is installed."""

from __future__ import annotations

import importlib
from pathlib import Path

from astra_gym.actions import MODALITIES
from astra_gym.scenarios import simulator_id


def require_minari(argument: str) -> None:
    """See that Minari is there, which writes and reads what ``argument`` names.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        importlib.import_module("minari")
    except ImportError as error:
        raise ImportError(f'{argument}: datasets need Minari ({error}); pip install "astra-gym[data]"') from error


def open_storage(path: Path, argument: str = "data"):
    """The Minari storage in a folder, which ``argument`` names.

    Raises:
        FileNotFoundError: if there is none.
        ImportError: if Minari is not installed.
    """
    require_minari(argument)
    from minari.dataset.minari_storage import MinariStorage

    if not (Path(path) / "metadata.json").exists():
        raise FileNotFoundError(
            f"{argument}: no Minari dataset in {path}; make one with `{_how_to_collect(Path(path))}`"
        )
    return MinariStorage.read(path)


def _how_to_collect(path: Path) -> str:
    """A command that makes a dataset at ``<scenario>/train`` or ``<scenario>/val``."""
    scenario = path.absolute().parent.name
    env = simulator_id(scenario) if scenario in MODALITIES else "ID"
    held_out = " --episodes 32 --first-seed 1000000" if path.name == "val" else ""
    return f"astra-gym collect --env {env} --output {path}{held_out}"
