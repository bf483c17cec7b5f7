"""Film an agent: ``astra-gym record AstraDrive-v0``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from PIL import Image
from tqdm import tqdm

from astra_gym.agents.canvas import contact_sheet, panel
from astra_gym.agents.policies import make_agent
from astra_gym.agents.rollout import Step, is_simulator, make_block_env, run_episode
from astra_gym.agents.settings import scenario_option
from astra_gym.files import replacing
from astra_gym.scenarios import frames_per_second


@dataclass
class RecordArgs:
    """Film an agent: a video of each episode, and a contact sheet."""

    env: tyro.conf.Positional[str] = "AstraDrive-v0"
    """Gymnasium id of an Astra environment or of one of its simulators (AstraSim/...)."""
    agent: str = "scripted"
    """Who acts: scripted, scripted:0.5 (at random half of the time), random, learned (the policy that comes with the
    package: by PPO for Drive, by imitation elsewhere), planner, or the path of a policy (.zip, .safetensors)
    or of a planner's settings (.json)."""
    episodes: int = 1
    """Number of episodes; each has its own seed."""
    blocks: int = 250
    """Longest episode, in blocks of frames."""
    seed: int = 0
    """Of the first episode; each further one takes the next."""
    output: Path = Path("videos")
    """Folder for videos and contact sheets; files of the same name are replaced."""
    side_by_side: bool = False
    """Show beside it what the true simulator makes of the same start and the same actions."""
    scale: int = 6
    """Pixels of the video for each pixel of a frame."""
    contact_sheet: bool = True
    """Also write a picture of frames at regular intervals."""
    moments: int = 24
    """Most frames on the contact sheet."""
    world: str = "small"
    """Name of a bundled world or path of a world's folder."""
    scenario: str | None = None
    """For AstraWorld-v0: which of the world's scenarios; None where it has only one."""
    device: str = "cpu"
    """Where the world runs, cpu or cuda."""
    num_inference_steps: int | None = None
    """Denoising steps a block; None takes the world's default."""

    def __post_init__(self) -> None:
        for name in ("episodes", "blocks", "scale", "moments"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, allowed are integers from 1")


@dataclass
class Film:
    """One world's part of a recording."""

    caption: str
    steps: list[Step] = field(default_factory=list)

    @property
    def total(self) -> float:
        """The episode's return."""
        return sum(step.reward for step in self.steps)

    def at(self, block: int) -> tuple[Step, float, bool]:
        """The block, the return up to it, and whether the film was over before it: then it stands still."""
        steps = self.steps[: block + 1]
        return steps[-1], sum(step.reward for step in steps), block >= len(self.steps)


def record(args: RecordArgs) -> list[Path]:
    """Record the episodes that ``args`` asks for and return the files written.

    Raises:
        ValueError: if the agent cannot act in the environment, or there is nothing to show side by side.
        ImportError: if the simulator is asked for and not installed.
    """
    options: dict[str, Any] = scenario_option(args.env, args.scenario)
    if args.num_inference_steps is not None:
        options["num_inference_steps"] = args.num_inference_steps
    if is_simulator(args.env):
        if args.side_by_side:
            raise ValueError(f"side_by_side: {args.env} is a simulator itself; name the environment that imitates it")
        for name, default in (("world", "small"), ("device", "cpu"), ("num_inference_steps", None)):
            if (value := getattr(args, name)) != default:
                raise ValueError(f"{name}: got {value!r}, but {args.env} is a simulator, allowed is {default!r}")
        options = {}
    env = make_block_env(args.env, args.blocks, args.world, args.device, **options)
    agent = make_agent(args.agent, env, args.seed)
    name = args.agent.replace(":", "-") if args.agent.startswith("scripted") else Path(args.agent).stem
    world = "-".join(filter(None, [args.env.rpartition(":")[2].replace("/", "-"), args.scenario]))
    files: list[Path] = []
    for seed in range(args.seed, args.seed + args.episodes):
        films = [Film("dream" if args.side_by_side else "")]
        for step in tqdm(run_episode(env, agent, seed), f"seed {seed}", args.blocks + 1, unit="block", leave=False):
            films[0].steps.append(step)
        if args.side_by_side:
            films.append(replay_in_simulator(env, films[0].steps))
        returns = ", ".join(f"{film.caption} return {film.total:.1f}".lstrip() for film in films)
        tqdm.write(f"seed {seed}: {len(films[0].steps) - 1} blocks, {returns}")
        stem = f"{world}-{name}-{seed}"
        files.append(write_video(args, env, films, args.output / f"{stem}.mp4"))
        if args.contact_sheet:
            files.append(write_contact_sheet(args, films, args.output / f"{stem}.png"))
    env.close()
    return files


def replay_in_simulator(env: gym.Env, steps: list[Step]) -> Film:
    """What the simulator of ``env`` makes of the episode: the same start and the same actions."""
    from astra_gym.simulators import replay_start

    start = env.unwrapped.start  # type: ignore[attr-defined]
    warm_up = 0 if start.sim_actions is None else len(start.sim_actions)
    sim = make_block_env(env.unwrapped.simulator_id, blocks=warm_up + len(steps))  # type: ignore[attr-defined]
    film = Film("simulator", [Step(replay_start(sim, start)[0], None)])
    for step in tqdm(steps[1:], "simulator", unit="block", leave=False):
        block, reward, terminated, truncated, _ = sim.step(step.action)
        film.steps.append(Step(block, step.action, float(reward), terminated, truncated))
        if terminated or truncated:
            break
    sim.close()
    return film


def write_video(args: RecordArgs, env: gym.Env, films: list[Film], path: Path) -> Path:
    """Write all frames of ``films`` at the environment's frame rate, as an mp4 at ``path``."""
    from moviepy import VideoClip

    fps = frames_per_second(env)
    modality = env.get_wrapper_attr("modality")
    per_block = len(films[0].steps[0].block)
    count = per_block * len(films[0].steps)

    def picture(seconds: float) -> np.ndarray:
        index = min(int(seconds * fps + 0.5), count - 1)
        block, frame = divmod(index, per_block)
        moments = [film.at(block) for film in films]
        bar.update(index - bar.n)
        return panel(
            [step.block[-1 if over else frame] for step, _, over in moments],
            [film.caption for film in films],
            [f"block {block}   return {total:.1f}{'   over' * over}" for _, total, over in moments],
            modality,
            moments[0][0].action,
            args.scale,
        )

    with (
        tqdm(total=count, desc=path.name, unit="frame", leave=False) as bar,
        replacing(path) as unfinished,
        VideoClip(picture, duration=count / fps) as clip,
    ):
        clip.write_videofile(str(unfinished), fps, codec="libx264", audio=False, threads=1, logger=None)
    return path


def write_contact_sheet(args: RecordArgs, films: list[Film], path: Path) -> Path:
    """Write the newest frames of at most ``args.moments`` blocks at regular intervals as a PNG at ``path``."""
    count = len(films[0].steps)
    blocks = range(0, count, -(-count // args.moments))
    rows = [[film.at(block)[0].block[-1] for block in blocks] for film in films]
    sheet = contact_sheet(rows, blocks, [film.caption for film in films], scale=max(1, args.scale // 3))
    with replacing(path) as unfinished:
        Image.fromarray(sheet).save(unfinished)
    return path
