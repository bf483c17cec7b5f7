"""Play an environment with the keyboard: ``astra-gym play AstraDrive-v0``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import tyro

import astra_gym  # noqa: F401  (registers the ids)
from astra_gym.envs.base import AstraEnv


@dataclass
class PlayArgs:
    """Play an environment with the keyboard."""

    env: tyro.conf.Positional[str] = "AstraDrive-v0"
    """Gymnasium id of an Astra environment or of one of its simulators (AstraSim/...)."""
    world: str = "small"
    """Name of a bundled world or path of a world's folder."""
    scenario: str | None = None
    """For AstraWorld-v0: which of the world's scenarios; None where it has only one."""
    device: str = "cpu"
    """Where the world runs, cpu or cuda."""
    num_inference_steps: int | None = None
    """Denoising steps a block; None takes the world's default."""
    seed: int = 0
    """Of the first episode; each new start takes the next."""
    start: int | None = None
    """Begin at this start of the world's bank instead of one chosen by the seed."""
    image: Path | None = None
    """Begin with this picture."""
    video: Path | None = None
    """Begin with the end of this video."""
    agent: str = "scripted"
    """Who drives when the autopilot is on: scripted, scripted:0.5 (at random half of the time), random, learned (the
    policy that comes with the package), planner, or the path of a policy (.zip, .safetensors) or of a planner's
    settings (.json)."""
    autopilot: bool = False
    """Begin with the autopilot on."""
    scale: int | None = None
    """Window pixels for each pixel of the picture; None makes the picture about 640 pixels high."""
    smooth: bool = False
    """Smooth the enlarged picture instead of showing its pixels."""
    fps: float | None = None
    """Frames shown a second; None takes the world's own rate (real time). Slower if the world cannot keep up."""
    clips: Path = Path("videos")
    """Folder for saved clips."""
    clip_seconds: float = 10.0
    """Length of a clip, in seconds of the world."""
    banner_seconds: float = 2.5
    """How long the end of an episode is announced before a new one begins."""
    blocks: int | None = None
    """Quit after so many blocks; None plays on."""

    def __post_init__(self) -> None:
        for name in ("scale", "fps", "clip_seconds", "blocks"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}: got {value}, allowed are numbers above 0")
        if len(self.reset_options() or {}) > 1:
            raise ValueError("start, image, video: only one of them can be given")

    def reset_options(self) -> dict[str, Any] | None:
        """Options for the first episode's ``reset``."""
        given = {"start": self.start, "image": self.image, "video": self.video}
        return {name: value for name, value in given.items() if value is not None} or None


def play(args: PlayArgs) -> None:
    """Make the environment that ``args`` asks for and play it until the player quits.

    Raises:
        ValueError: if the environment does not observe blocks of frames, or an argument is wrong for it.
        FileNotFoundError: if there is no such world.
    """
    from astra_gym.agents.player import Player
    from astra_gym.agents.policies import check_agent
    from astra_gym.agents.settings import scenario_option
    from astra_gym.simulators.own import creator_of

    check_agent(args.agent)
    creator = creator_of(args.env)
    options: dict[str, Any] = scenario_option(args.env, args.scenario)
    if isinstance(creator, type) and issubclass(creator, AstraEnv):
        options |= {"world": args.world, "device": args.device, "info_routing": True}
        options["num_inference_steps"] = args.num_inference_steps
    Player(gym.make(args.env, disable_env_checker=True, **options), args).run()
