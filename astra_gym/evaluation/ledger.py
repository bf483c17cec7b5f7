"""Long measurements in a JSON file, one by one, so that an interruption loses only the one under way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from astra_gym.files import write_json


def digest(file: Path) -> str:
    """First 12 hexadecimal digits of the SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def policy_key(name: str, scenario: str) -> str:
    """A policy's name, with a digest of its content if it is a file: another training is another policy. A planner in
    the simulator has the weights of the world that it imagines behind it."""
    if name == "learned":
        from astra_gym.agents.learned import shipped_agent

        return f"{name}@{digest(shipped_agent(scenario))}"
    key = f"{name}@{digest(Path(name))}" if Path(name).is_file() else name
    if name == "planner" or name.endswith(".json"):
        from astra_gym.agents.planner import PlannerConfig
        from astra_gym.bundles import fingerprint, load_bundle

        config = PlannerConfig() if name == "planner" else PlannerConfig.load(Path(name))
        key += f" in {fingerprint(load_bundle(config.world or 'small'))}"
    return key


class Ledger:
    """Rows of numbers by name; what the file holds is not measured again.

    Args:
        path: of the JSON file, which may exist.
        settings: under which the numbers are measured.

    Raises:
        ValueError: if the file holds numbers of other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self.path = path
        self._content: dict[str, Any] = {"settings": settings, "measured": {}}
        if path.exists():
            self._content = json.loads(path.read_text())
            if (found := self._content["settings"]) != settings:
                raise ValueError(
                    f"output: {path} was measured with {found}, not {settings}; delete it or name another folder"
                )

    def __contains__(self, name: str) -> bool:
        return name in self._content["measured"]

    def measured(self, name: str, measure: Callable[[], np.ndarray]) -> np.ndarray:
        """The numbers called ``name``, from the file or else by ``measure()``, after which they are in it."""
        rows = self._content["measured"]
        if name not in rows:
            rows[name] = np.asarray(measure(), np.float64).tolist()
            write_json(self.path, self._content)
        return np.array(rows[name])
