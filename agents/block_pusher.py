"""A scripted pusher that looks at nothing but the picture, so it pushes in a dream as in the simulator."""

from __future__ import annotations

import numpy as np

from astra_gym.agents.squares import neighbours

METRES_PER_ACTION = 0.132
"""How far an action of 1 moves the gripper in a block."""
BLOCK_HEIGHT, FINGER_HEIGHT, TABLE_HEIGHT = 0.43, 0.405, 0.40
"""In metres: of the block's middle, of the fingers' lower end where the gripper pushes, of the goal's disc."""
LOOKS_AT, CAMERA_DISTANCE, CAMERA_ELEVATION = np.array([1.36, 0.75, 0.45]), 0.765, np.deg2rad(-45.5)
"""The middle of the camera's range; it also looks from up to 12 degrees beside."""
FOCAL = 0.5 / np.tan(np.deg2rad(22.5))
"""Of the camera, in sides of the picture."""
BEHIND, BESIDE = 0.07, 0.10
"""Distances in metres that the gripper keeps from the block's middle: before it pushes, and on the way round it."""
DESCENT = 4
"""Blocks at the beginning in which it goes down to the table."""
TOUCH = 0.045
"""Distance of gripper and block where they touch, in metres."""


def places_on_table(points: np.ndarray, height: float) -> np.ndarray:
    """Where the lines of sight through ``points (..., 2)`` of the picture meet the plane at ``height``.

    Args:
        points: column and row, from 0 to 1.
        height: in metres; the table's is 0.4.

    Returns:
        ``float (..., 2)``: metres along the table's axes, x to the right and y away from the viewer.
    """
    cos, sin = np.cos(CAMERA_ELEVATION), np.sin(CAMERA_ELEVATION)
    right, up = (points[..., 0] - 0.5) / FOCAL, (0.5 - points[..., 1]) / FOCAL
    away, rise = cos - sin * up, sin + cos * up
    camera = LOOKS_AT - CAMERA_DISTANCE * np.array([0.0, cos, sin])
    steps = (height - camera[2]) / np.minimum(rise, -0.05)
    return np.stack([camera[0] + steps * right, camera[1] + steps * away], -1)


class TableView:
    """Block, goal and gripper in one frame, as places on the table in metres; None for what is hidden.

    Args:
        frame: ``uint8 (size, size, 3)``.
    """

    def __init__(self, frame: np.ndarray):
        self._colours = colours = frame.astype(np.int16)
        red, green, blue = np.moveaxis(colours, -1, 0)
        self._brightest, self._spread = colours.max(-1), colours.max(-1) - colours.min(-1)
        size = len(frame)
        rows, columns = np.mgrid[:size, :size]
        self._points = (np.stack([columns, rows], -1) + 0.5) / size
        greenness = green - np.maximum(red, blue)
        self._goal = greenness > 50
        self._block = (self._spread > 108) & (greenness < 20)
        self.goal_seen = float(self._goal.mean())
        """Share of the picture that is the goal's."""
        self.block_seen = float(self._block.mean())
        """Share of the picture that is the block's."""

    @property
    def goal(self) -> np.ndarray | None:
        return self._middle(self._goal, TABLE_HEIGHT)

    @property
    def block(self) -> np.ndarray | None:
        return self._middle(self._block, BLOCK_HEIGHT)

    @property
    def gripper(self) -> np.ndarray | None:
        """The black fingers at the lower end of the arm's lowest limb, or where they are hidden that end."""
        end = self._end_of_limb()
        if end is None:
            return None
        black = (self._brightest < 50) & (self._spread < 16)
        places = places_on_table(self._points, FINGER_HEIGHT)
        fingers = black & (np.hypot(*np.moveaxis(places - end, -1, 0)) < 0.05)
        return self._middle(fingers, FINGER_HEIGHT, 2) if fingers.sum() >= 2 else end

    def _end_of_limb(self) -> np.ndarray | None:
        """Where the lowest piece of the arm ends that is bright and grey, unlike table and floor."""
        upper, lower = np.split(self._colours, [len(self._colours) * 3 // 8])
        table = np.median(lower.reshape(-1, 3), 0)
        floor = np.median(np.concatenate([upper[:, :2], upper[:, -2:]], 1).reshape(-1, 3), 0)
        limbs = (self._spread < 18) & (self._brightest > 80)
        for other in (table, floor):
            limbs &= np.abs(self._colours - other).max(-1) > 10
        limbs &= neighbours(limbs) >= 6
        rows = np.flatnonzero(limbs.sum(1) >= 2)
        if not len(rows):
            return None
        size, lowest = len(limbs), rows[-1]
        last = limbs[max(lowest - 2, 0) : lowest + 1]
        columns, ends = np.nonzero(last)[1], np.flatnonzero(last[-1])
        columns = columns[np.abs(columns - ends[len(ends) // 2]) < size * 6 / 64]
        return places_on_table(np.array([columns.mean() + 0.5, lowest + 1.5]) / size, FINGER_HEIGHT)

    def _middle(self, mask: np.ndarray, height: float, least: int = 4) -> np.ndarray | None:
        if mask.sum() < least:
            return None
        return places_on_table(self._points[mask].mean(0), height)


class BlockPusher:
    """Go round the block to the side away from the goal, push it towards the goal, and rest when it is there.

    What the arm hides is remembered: the goal stays, the gripper moves as it was told, and a pushed block stays before
    the gripper. From which side the camera looks shows in how the gripper moves. The gripper stays low, so it never
    reaches over the block.

    Args:
        speed: length of the longest action, from above 0 to 1; the skill.
    """

    def __init__(self, speed: float = 0.3):
        if not 0 < speed <= 1:
            raise ValueError(f"speed: got {speed}, allowed are numbers above 0 up to 1")
        self.speed = speed
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Forget the episode. The pusher makes no random choice: the seed is not used."""
        self._gripper = np.array([1.36, 0.75])
        self._block: np.ndarray | None = None
        self._goal: np.ndarray | None = None
        self._most_seen = {"block": 0.0, "goal": 0.0}
        self._pushing = False
        self._blocks = 0
        self._told = np.zeros(2)
        """The gripper's last motion as told, metres along the table's axes."""
        self._axes = 0.0
        """How far the table's axes are turned in the picture, in rad counter-clockwise: the camera's angle."""
        self._seen = False
        """Whether the last picture showed the gripper."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The next action, ``float32 (4,)`` dx, dy, dz, gripper, from a block ``uint8 (K, size, size, 3)``."""
        self._look(TableView(observation[-1]))
        if self._block is None or self._goal is None:  # behind the arm: move it aside
            motion = np.array([-self.speed if self._blocks % 12 < 6 else self.speed, 0.0])
        else:
            motion = _turned(self._push(self._block, self._goal), -self._axes) / METRES_PER_ACTION
            motion *= min(1.0, self.speed / max(float(np.linalg.norm(motion)), 1e-6))
        # First down to the table, which then holds it.
        action = np.array([*motion, -0.25 if self._blocks < DESCENT else 0.0, 0.0], np.float32)
        self._blocks += 1
        self.correct(action)
        return action

    def correct(self, action: np.ndarray) -> None:
        """Hear that another action was done than ``act`` gave."""
        # While the gripper presses on the table it moves less.
        self._told = action[:2] * (0.6 if self._blocks <= DESCENT else 1.0) * METRES_PER_ACTION

    def _look(self, view: TableView) -> None:
        """Correct what is remembered by what is seen."""
        before = self._gripper
        self._gripper = before + _turned(self._told, self._axes)
        seen = view.gripper
        if seen is not None:
            if self._seen and np.linalg.norm(seen - before) > 0.02 and np.linalg.norm(self._told) > 0.02:
                turn = np.angle(complex(*(seen - before)) * np.conj(complex(*self._told)))
                self._axes += np.clip(0.2 * (turn - self._axes), -0.1, 0.1)
                self._axes = float(np.clip(self._axes, -0.21, 0.21))
            self._gripper = seen
        self._seen = seen is not None
        if self._in_sight("goal", view.goal_seen) and view.goal is not None:
            self._goal = view.goal
        if self._in_sight("block", view.block_seen) and view.block is not None:
            self._block = view.block
        elif self._pushing and self._block is not None and self._goal is not None:
            ahead = self._goal - self._block
            ahead /= max(float(np.linalg.norm(ahead)), 1e-6)
            self._block = self._block + max(TOUCH - float((self._block - self._gripper) @ ahead), 0.0) * ahead

    def _in_sight(self, thing: str, seen: float) -> bool:
        """Whether about as much of it is seen as ever; a little less counts with time, since worlds change."""
        self._most_seen[thing] = max(0.99 * self._most_seen[thing], seen)
        return seen > 0.7 * self._most_seen[thing]

    def _push(self, block: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """The way for the gripper to go, ``(2,)`` in metres."""
        distance = float(np.linalg.norm(goal - block))
        if distance < 0.02:
            self._pushing = False
            return np.zeros(2)
        ahead = (goal - block) / distance
        side = np.array([-ahead[1], ahead[0]])
        offset = self._gripper - block
        along, beside = float(offset @ ahead), float(offset @ side)
        tolerance = 0.035 if self._pushing else 0.02
        self._pushing = abs(beside) < tolerance and -0.11 < along < -0.02
        if self._pushing:
            return (distance + max(-along - TOUCH, 0.0)) * ahead - beside * side
        # Round the block: at most 0.7 rad of the circle at a time, straight to the place behind once that is near.
        angle = np.arctan2(beside, along)
        left_to_go = (np.pi - angle + np.pi) % (2 * np.pi) - np.pi
        if abs(left_to_go) < 0.5:
            return -BEHIND * ahead - offset
        angle += np.clip(left_to_go, -0.7, 0.7)
        return BESIDE * (np.cos(angle) * ahead + np.sin(angle) * side) - offset


def _turned(vector: np.ndarray, angle: float) -> np.ndarray:
    """``vector (2,)``, turned counter-clockwise by ``angle`` in rad."""
    turned = complex(*vector) * np.exp(1j * angle)
    return np.array([turned.real, turned.imag])
