"""One drive that can change over between an Astra environment and the simulator that it imitates."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from astra_gym.simulators.own import make_simulator
from astra_gym.simulators.replay import replay_start

HISTORY_BLOCKS = 8
"""Blocks of the simulator's video from which the dream goes on."""


class PlayError(Exception):
    """What the player asked for is not possible; the message says why, in words to show."""


@dataclass
class Moment:
    """What a reset, a step or a change of worlds led to."""

    block: np.ndarray
    """``uint8 (K, H, W, 3)``, oldest frame first."""
    action: np.ndarray | None = None
    """The action that led to the block, ``float32 (action_dim,)``; None after a reset or a change of worlds."""
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    info: dict[str, Any] = field(default_factory=dict)
    in_simulator: bool = False
    begins: bool = False
    """Whether an episode begins here."""
    message: str = ""
    """What to tell the player."""


class Twin:
    """An environment and its simulator as one drive: where it began and every action since.

    Into the simulator: it is put where the episode began and replays the actions since, so the drive goes on from the
    moment that they truly lead to. Back into the dream: it goes on from the simulator's last frames. The drive's
    beginning and actions are kept through both, so one can change over as often as one likes.

    Not safe for use by several threads at once.

    Args:
        env: environment whose observation is a block of frames, with a ``modality`` and perhaps a ``simulator_id``.
        seed: of the first episode; each new one takes the next.
        options: of the first episode's reset, for instance ``{"video": path}``.

    Raises:
        ValueError: if the environment does not observe blocks of frames.
    """

    def __init__(self, env: gym.Env, seed: int = 0, options: dict[str, Any] | None = None):
        shape = env.observation_space.shape or ()
        if len(shape) != 4:
            raise ValueError(f"env: got observations of shape {shape}, allowed are blocks of frames (K, H, W, 3)")
        self.env = env
        self.modality = env.get_wrapper_attr("modality")
        self.simulator_id: str | None = getattr(env.unwrapped, "simulator_id", None)
        self.in_simulator = False
        self.actions: list[np.ndarray] = []
        self.rewards: list[float] = []
        self._simulator: gym.Env | None = None
        self._simulated: list[float] | None = None  # rewards of the actions that the simulator has taken in this drive
        self._start: Any = None
        self._seed, self._options = seed, options
        self._recent: deque[tuple[np.ndarray, np.ndarray | None]] = deque(maxlen=HISTORY_BLOCKS)

    def new_start(self) -> Moment:
        """Begin a new episode in the current world, at another start."""
        self._seed, self._options = self._seed + 1, None
        return self.restart()

    def restart(self) -> Moment:
        """Begin the same episode again in the current world."""
        block, info = self.env.reset(seed=self._seed, options=self._options)
        self._start = getattr(self.env.unwrapped, "start", None)
        self.actions, self.rewards, self._simulated = [], [], None
        message = ""
        if self.in_simulator:
            try:
                block, info = self._reset_simulator()
            except PlayError as error:
                self.in_simulator, message = False, f"Back in the dream: {error}"
        return Moment(block, info=info, in_simulator=self.in_simulator, begins=True, message=message)

    def step(self, action: np.ndarray) -> Moment:
        """Take one step in the current world."""
        moment = self._step_simulator(action) if self.in_simulator else self._moment(action, self.env.step(action))
        self.actions.append(action)
        self.rewards.append(moment.reward)
        return moment

    def swap(self) -> Moment:
        """Go on with the drive in the other world.

        Raises:
            PlayError: if that is not possible; the current world is as it was, and the drive can go on in it.
        """
        return self._to_dream() if self.in_simulator else self._to_simulator()

    def close(self) -> None:
        """Close both worlds."""
        self.env.close()
        if self._simulator is not None:
            self._simulator.close()

    def _to_simulator(self) -> Moment:
        if self._simulated is None:
            block, info = self._reset_simulator()
            moment = Moment(block, info=info)
        else:
            moment = Moment(self._recent[-1][0])
        missing = self.actions[len(self._simulated or []) :]
        for action in missing:
            moment = self._step_simulator(action)
            if moment.terminated:
                self._simulated = None
                raise PlayError("in the simulator this drive has ended already.")
        self.in_simulator = True
        returns = f"return {sum(self._simulated or []):.1f} here, {sum(self.rewards):.1f} in play"
        message = f"Replayed {len(missing)} blocks: {returns}."
        return Moment(moment.block, truncated=moment.truncated, info=moment.info, in_simulator=True, message=message)

    def _to_dream(self) -> Moment:
        known = [(block, action) for block, action in self._recent if action is not None]
        blocks = [block for block, _ in known or self._recent]
        options: dict[str, Any] = {"video": np.concatenate(blocks)}
        if known:
            options["actions"] = np.stack([action for _, action in known])
        block, info = self.env.reset(seed=self._seed, options=options)
        self.in_simulator = False
        return Moment(block, info=info, message=f"The dream goes on from the simulator's last {len(blocks)} blocks.")

    def _step_simulator(self, action: np.ndarray) -> Moment:
        assert self._simulator is not None and self._simulated is not None
        moment = self._moment(action, self._simulator.step(action))
        moment.in_simulator = True
        self._simulated.append(moment.reward)
        self._recent.append((moment.block, action))
        return moment

    @staticmethod
    def _moment(action: np.ndarray, step: tuple) -> Moment:
        block, reward, terminated, truncated, info = step
        return Moment(block, action, float(reward), bool(terminated), bool(truncated), info)

    def _reset_simulator(self) -> tuple[np.ndarray, dict[str, Any]]:
        """Put the simulator where the episode began."""
        if self.simulator_id is None:
            raise PlayError("this environment is a simulator already.")
        try:
            if self._simulator is None:
                self._simulator = make_simulator(self.simulator_id)
            block, info = replay_start(self._simulator, self._start)
        except (ImportError, gym.error.Error) as error:
            raise PlayError(f"no simulator: {error}") from error
        except ValueError as error:
            raise PlayError(f"this episode has no counterpart there. {error}") from error
        self._simulated = []
        self._recent.clear()
        known = self._start.sim_actions is not None and len(self._start.sim_actions) > 0
        self._recent.append((block, self._start.sim_actions[-1] if known else None))
        return block, info
