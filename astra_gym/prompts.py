"""Scenario prompts: words that tell a joint world which of its scenarios it is in."""

from __future__ import annotations

import re
from collections.abc import Sequence

WORDS: dict[str, frozenset[str]] = {
    "drive": frozenset(["drive", "driving", "car", "race", "racing", "road", "track", "steer", "street"]),
    "manipulation": frozenset(
        ["manipulation", "manipulate", "arm", "robot", "gripper", "push", "pushing", "block", "table", "fetch"]
    ),
    "drone": frozenset(["drone", "quadrotor", "fly", "flying", "flight", "gate", "gates", "uav"]),
    "camera": frozenset(["camera", "room", "walk", "indoor", "indoors", "interior", "view", "look"]),
}
"""Words of a text that speak for a scenario."""


def scenario_of(prompt: str, allowed: Sequence[str]) -> str | None:
    """The scenario that a prompt means: one of ``allowed`` by name, or a text that speaks of one; None for "".

    Raises:
        ValueError: if the prompt speaks of none of them, or of several alike.
    """
    if prompt in allowed:
        return prompt
    if isinstance(prompt, str) and not prompt.strip():
        return None
    words = re.findall(r"[a-z]+", prompt.lower()) if isinstance(prompt, str) else None
    if words is not None and len(words) == 1 and words[0] in allowed:
        return words[0]
    score = {name: sum(word in WORDS.get(name, ()) for word in words or ()) for name in allowed}
    best = sorted(score, key=lambda name: score[name], reverse=True)
    if words is None or not score[best[0]] or (len(best) > 1 and score[best[0]] == score[best[1]]):
        raise ValueError(f"prompt: got {prompt!r}, allowed are {list(allowed)}, a text that speaks of one, and ''")
    return best[0]
