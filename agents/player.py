"""The window in which an environment is played."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pygame

from astra_gym.agents import hud
from astra_gym.agents.clip import ClipBuffer, clip_path, save_clip
from astra_gym.agents.keyboard import Keyboard
from astra_gym.agents.pacing import FramePacer
from astra_gym.agents.twin import Moment, PlayError, Twin
from astra_gym.scenarios import frames_per_second

if TYPE_CHECKING:
    from astra_gym.agents.play import PlayArgs
    from astra_gym.agents.policies import Agent

COMMANDS = {
    "r": ("restart", "same start again"),
    "n": ("new_start", "new start"),
    "p": ("pause", "pause"),
    "space": ("pause", "pause"),
    "c": ("save_clip", "save the last seconds as a clip"),
    "t": ("toggle_autopilot", "autopilot on and off"),
    "tab": ("swap", "dream to simulator and back"),
    "h": ("toggle_help", "this help"),
    "escape": ("quit", "quit"),
}
"""Keys (pygame's names) to the Player's method and what it does."""

MESSAGE_SECONDS = 5.0


class Player:
    """A window in which an environment is played in real time.

    While the frames of one block are shown, evenly in time, a background thread computes the next: one step is in
    flight, with the action sampled from the keys (or the autopilot) when it starts. Resets, changes of worlds and the
    loading of the autopilot go through the same thread, so that the window always responds. :meth:`tick` does a
    moment's work without blocking; :meth:`run` calls it until the end.

    Args:
        env: environment that observes blocks of frames, with a ``modality``.
        args: window, pace, first start and the rest; ``env``, ``world`` and the like are not looked at.
        clock: steady seconds.
    """

    def __init__(self, env: gym.Env, args: PlayArgs, clock: Callable[[], float] = time.perf_counter):
        self.args, self._clock = args, clock
        self.twin = Twin(env, args.seed, args.reset_options())
        frames, height, width, _ = env.observation_space.shape or ()
        world_fps = frames_per_second(env)
        self.keyboard = Keyboard(self.twin.modality, frames / world_fps)
        self.pacer = FramePacer(args.fps or world_fps, frames)
        self.clip = ClipBuffer(args.clip_seconds, world_fps)
        self.title = env.spec.id if env.spec else type(env.unwrapped).__name__

        self.running, self.paused, self.showing_help, self.autopilot = True, False, False, False
        self.rewards: list[float] = []
        self.blocks = 0
        self.message = ""
        self._message_until = self._ended_until = 0.0
        self._moment: Moment | None = None
        self._ready: Moment | None = None
        self._frames: deque[np.ndarray] = deque()
        self._routing: np.ndarray | None = None
        self._agent: Agent | None = None

        self._worker = ThreadPoolExecutor(1, thread_name_prefix="astra-play")
        self._clip_writer = ThreadPoolExecutor(1, thread_name_prefix="astra-clip")
        self._clip_jobs: list[Future[Path]] = []
        self._job: Future[Any] | None = None
        self._job_done: Callable[[Any], None] = self._arrive
        self._requests: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()

        pygame.display.init()
        scale = args.scale or max(1, 640 // height)
        self.picture = pygame.Rect(0, 0, width * scale, height * scale)
        size = (self.picture.width + hud.WIDTH, max(self.picture.height, hud.HEIGHT))
        self.picture.centery = size[1] // 2
        self.screen = pygame.display.set_mode(size)
        pygame.display.set_caption(f"astra-gym: {self.title}")
        self._hud = hud.Hud(self._help_lines())
        self._image: pygame.Surface | None = None
        self._dirty = True

        self._ask(self.twin.restart, self._arrive)
        if args.autopilot:
            self.toggle_autopilot()

    # The loop ---------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Play until the player quits or ``args.blocks`` blocks were shown, then close everything."""
        try:
            while self.running:
                self.tick()
                time.sleep(0.002)
        finally:
            self.close()

    def tick(self) -> None:
        """React to events, take in what the background thread has finished, and show the next frame if it is due."""
        now = self._clock()
        for event in pygame.event.get():
            self._handle(event)
        self._collect_job()
        self._collect_clips()
        if self._job is None and self._requests:
            task, self._job_done = self._requests.popleft()
            self._job = self._worker.submit(task)
        if not (self.paused or self.showing_help):
            self._advance(now)
        if self.message and now > self._message_until:
            self.say("")
        if self._dirty:
            self._draw()

    def close(self) -> None:
        """Wait for the threads' unfinished work, then close the worlds and the window."""
        self.running = False
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._clip_writer.shutdown(wait=True)
        self.twin.close()
        pygame.display.quit()

    def _handle(self, event: pygame.event.Event) -> None:
        if event.type == pygame.QUIT:
            self.quit()
        elif event.type == pygame.KEYDOWN:
            key = pygame.key.name(event.key)
            if key in COMMANDS:
                getattr(self, COMMANDS[key][0])()
                self._dirty = True
            self.keyboard.press(key)
        elif event.type == pygame.KEYUP:
            self.keyboard.release(pygame.key.name(event.key))
        elif event.type == pygame.WINDOWFOCUSLOST:
            self.keyboard.release_all()
        elif event.type == pygame.WINDOWEXPOSED:
            self._dirty = True

    # Commands ---------------------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Begin the same episode again."""
        self._ask(self.twin.restart, self._arrive)

    def new_start(self) -> None:
        """Begin a new episode."""
        self._ask(self.twin.new_start, self._arrive)

    def swap(self) -> None:
        """Go on in the other world, the simulator or the dream."""
        self.say(
            "Changing worlds ..." if self.twin.in_simulator else "Replaying the drive in the simulator ...", math.inf
        )
        self._ask(self.twin.swap, self._arrive)

    def pause(self) -> None:
        """Stop or go on."""
        self.paused = not self.paused
        self.pacer.pause()

    def toggle_help(self) -> None:
        """Show or hide the keys; play waits meanwhile."""
        self.showing_help = not self.showing_help
        self.pacer.pause()

    def toggle_autopilot(self) -> None:
        """Hand the wheel to the agent, or take it back where the agent held it."""
        if self.autopilot:
            self.autopilot = False
            self.keyboard.action = self._shown_action()
        elif self._agent is None:
            self.say(f"Loading the agent {self.args.agent} ...", math.inf)
            self._ask(self._load_agent, self._engage)
        else:
            self._engage(self._agent)

    def save_clip(self) -> None:
        """Save the last seconds in the background."""
        if frames := list(self.clip.frames):
            self.say(f"Saving {len(frames) / self.clip.fps:.1f} seconds ...")
            self._clip_jobs.append(self._clip_writer.submit(self._write_clip, frames))

    def quit(self) -> None:
        """End :meth:`run`."""
        self.running = False

    def say(self, message: str, seconds: float = MESSAGE_SECONDS) -> None:
        """Show a message for a while, or until the next."""
        self.message, self._message_until, self._dirty = message, self._clock() + seconds, True

    # Background work --------------------------------------------------------------------------------------------------

    def _ask(self, task: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Have the background thread do ``task`` once it is free, unless it waits to be done already."""
        if (task, done) not in self._requests:
            self._requests.append((task, done))

    def _collect_job(self) -> None:
        if self._job is None or not self._job.done():
            return
        job, self._job = self._job, None
        try:
            result = job.result()
        except PlayError as error:
            self.say(f"Not possible: {error}")
        else:
            self._job_done(result)

    def _collect_clips(self) -> None:
        for job in [job for job in self._clip_jobs if job.done()]:
            self._clip_jobs.remove(job)
            error = job.exception()
            self.say(f"The clip could not be saved: {error}" if error else f"Saved {job.result()}")

    def _step(self, block: np.ndarray, action: np.ndarray | None) -> tuple[Moment, float]:
        """In the background: one step, with the agent's action if there is none, and the seconds that it took."""
        began = time.perf_counter()
        if action is None:
            assert self._agent is not None
            action = self._agent.act(block)
        moment = self.twin.step(action)
        return moment, time.perf_counter() - began

    def _stepped(self, result: tuple[Moment, float]) -> None:
        self._ready = result[0]
        self.pacer.computed(result[1])

    def _arrive(self, moment: Moment) -> None:
        """A reset or a change of worlds is done: what was to be shown from before is dropped."""
        self._frames.clear()
        self._ready = moment
        self.paused = self.showing_help = False
        if moment.begins:
            self.keyboard.rest()
        if self._agent is not None:
            self._agent.reset(self.args.seed)
        self.say(moment.message)

    def _load_agent(self) -> Agent:
        try:
            from astra_gym.agents.policies import make_agent

            return make_agent(self.args.agent, self.twin.env, self.args.seed)
        except (ImportError, OSError, ValueError, gym.error.Error) as error:
            raise PlayError(str(error)) from error

    def _engage(self, agent: Agent) -> None:
        self._agent, self.autopilot = agent, True
        agent.reset(self.args.seed)
        self.say("")

    def _write_clip(self, frames: list[np.ndarray]) -> Path:
        return save_clip(frames, self.clip.fps, clip_path(self.args.clips, self.title))

    # Showing ----------------------------------------------------------------------------------------------------------

    def _advance(self, now: float) -> None:
        """Show the next frame when it is due; after a block's last, go on to the next block."""
        if self._frames:
            if self.pacer.due(now):
                self._show(self._frames.popleft(), now)
        elif self._ready is not None and self._job is None:
            self._present(self._ready)
        elif self.ended and self._job is None and now > self._ended_until:
            self.new_start()

    def _present(self, moment: Moment) -> None:
        """Begin to show a block and, unless the episode ends with it, to compute the next."""
        self._moment, self._ready = moment, None
        self._frames.extend(moment.block)
        self._routing = moment.info.get("routing", None)
        if moment.begins:
            self.rewards = []
        if moment.action is not None:
            self.rewards.append(moment.reward)
            self.blocks += 1
        if not self.ended:
            action = None if self.autopilot else self.keyboard.sample()
            self._job_done = self._stepped
            self._job = self._worker.submit(self._step, moment.block, action)

    def _show(self, frame: np.ndarray, now: float) -> None:
        self.pacer.show(now)
        self.clip.add(frame)
        height, width = frame.shape[:2]
        image = pygame.image.frombuffer(frame.tobytes(), (width, height), "RGB")
        enlarge = pygame.transform.smoothscale if self.args.smooth else pygame.transform.scale
        self._image = enlarge(image, self.picture.size)
        self._dirty = True
        if not self._frames:
            self._ended_until = now + self.args.banner_seconds
            if self.args.blocks is not None and self.blocks >= self.args.blocks:
                self.quit()

    @property
    def ended(self) -> bool:
        """Whether the episode ends with the block that is shown."""
        return self._moment is not None and (self._moment.terminated or self._moment.truncated)

    @property
    def in_simulator(self) -> bool:
        """Whether the block that is shown comes from a simulator."""
        return self.twin.simulator_id is None or (self._moment is not None and self._moment.in_simulator)

    def _shown_action(self) -> np.ndarray:
        if self._moment is None or self._moment.action is None:
            return np.zeros(self.twin.modality.action_dim, np.float32)
        return np.asarray(self._moment.action, np.float32)

    def hud_state(self) -> hud.HudState:
        """What the panel shows now."""
        modality = self.twin.modality
        return hud.HudState(
            title=self.title,
            labels=[label.split(" (")[0] for label in modality.labels],
            low=np.array(modality.low),
            high=np.array(modality.high),
            action=self._shown_action(),
            rewards=self.rewards,
            routing=self._routing,
            fps=self.pacer.fps,
            in_simulator=self.in_simulator,
            autopilot=self.autopilot,
            paused=self.paused,
            message=self.message,
        )

    def _draw(self) -> None:
        self._dirty = False
        self.screen.fill(hud.BACKGROUND)
        if self._image is not None:
            self.screen.blit(self._image, self.picture)
        panel = pygame.Rect(self.picture.right, 0, hud.WIDTH, self.screen.get_height())
        self._hud.draw(self.screen, panel, self.hud_state())
        if self.ended and not self._frames and self._moment is not None:
            title = "The episode is over" if self._moment.terminated else "Time is up"
            self._hud.banner(self.screen, self.picture, title, f"Return {sum(self.rewards):.1f}. A new start follows.")
        if self.showing_help:
            self._hud.help(self.screen, self.picture)
        pygame.display.flip()

    def _help_lines(self) -> list[tuple[str, str]]:
        labels = [label.split(" (")[0] for label in self.twin.modality.labels]
        lines = []
        for keys, effect in self.twin.modality.key_bindings.items():
            meaning = ", ".join(f"{label} {value:+g}" for label, value in zip(labels, effect, strict=True) if value)
            lines.append((" / ".join(keys), meaning))
        commands: dict[str, list[str]] = {}
        for key, (_, meaning) in COMMANDS.items():
            commands.setdefault(meaning, []).append(key)
        return lines + [(" / ".join(keys), meaning) for meaning, keys in commands.items()]
