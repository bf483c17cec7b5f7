"""Furnished rooms for the Camera world: one seed, one room of large plain shapes in strong colours."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from astra_gym.simulators.mujoco_view import mujoco

FOVY = 77.0
"""The camera's field of view in degrees, also its width since frames are square."""
GOAL_DISTANCE = 1.3
"""Metres between the target panel and the goal view straight in front of it."""
PANEL = 0.55
"""Half the side of the target panel in metres."""
WALK_WAY = 0.65
"""Least gap between two pieces of furniture in metres, so that a camera passes."""

WALL_COLOURS = {
    "cream": (0.93, 0.86, 0.66),
    "sky": (0.55, 0.74, 0.90),
    "mint": (0.60, 0.84, 0.66),
    "lilac": (0.70, 0.62, 0.86),
    "slate": (0.42, 0.50, 0.60),
    "sand": (0.74, 0.64, 0.50),
    "teal": (0.30, 0.62, 0.62),
    "moss": (0.52, 0.60, 0.34),
    "chalk": (0.90, 0.91, 0.92),
}
FLOOR_COLOURS = ((0.50, 0.36, 0.25), (0.36, 0.38, 0.42), (0.66, 0.55, 0.42), (0.28, 0.34, 0.30), (0.70, 0.70, 0.68))
THING_COLOURS = (
    (0.12, 0.30, 0.80),
    (0.10, 0.58, 0.58),
    (0.12, 0.55, 0.22),
    (0.58, 0.80, 0.20),
    (0.95, 0.86, 0.20),
    (0.46, 0.28, 0.16),
    (0.60, 0.16, 0.16),
    (0.36, 0.22, 0.66),
    (0.10, 0.14, 0.36),
    (0.96, 0.96, 0.94),
    (0.16, 0.16, 0.18),
    (0.40, 0.80, 0.92),
)
"""Furniture and posters. Orange and magenta are the target's alone."""
ORANGE, MAGENTA = (1.0, 0.55, 0.05), (1.0, 0.05, 0.55)


@dataclass
class Solid:
    """A body that the camera cannot enter: "box" (half sizes), "cylinder" (radius, half height) or "sphere" (radius).

    It stands upright, turned by ``yaw`` about the vertical.
    """

    kind: str
    position: np.ndarray
    size: tuple[float, ...]
    yaw: float = 0.0

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Of ``points (N, 3)`` from the surface in metres, negative inside."""
        local = points - self.position
        if self.kind == "sphere":
            return np.sqrt((local**2).sum(1)) - self.size[0]
        if self.kind == "cylinder":
            beyond = np.stack(
                [np.hypot(local[:, 0], local[:, 1]) - self.size[0], np.abs(local[:, 2]) - self.size[1]], 1
            )
        else:
            cos, sin = np.cos(self.yaw), np.sin(self.yaw)
            x, y = cos * local[:, 0] + sin * local[:, 1], cos * local[:, 1] - sin * local[:, 0]
            beyond = np.abs(np.stack([x, y, local[:, 2]], 1)) - np.array(self.size)
        return np.sqrt((np.maximum(beyond, 0) ** 2).sum(1)) + np.minimum(beyond.max(1), 0)


@dataclass
class RoomScene:
    """A room, its corner at ``-size/2`` on the floor, in metres with z up."""

    size: np.ndarray
    """Along x, y and z."""
    spec: mujoco.MjSpec
    goal: np.ndarray = field(default_factory=lambda: np.eye(4))
    """The goal view's pose, camera to world."""
    panel: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    """Points spread evenly over the target panel."""
    solids: list[Solid] = field(default_factory=list)

    def clearance(self, points: np.ndarray) -> np.ndarray:
        """Distance of ``points (N, 3)`` to the nearest wall or solid in metres, negative inside one."""
        low = np.array([-self.size[0] / 2, -self.size[1] / 2, 0.0])
        nearest = np.minimum(points - low, low + self.size - points).min(1)
        for solid in self.solids:
            nearest = np.minimum(nearest, solid.distance(points))
        return nearest

    def is_free(self, point: np.ndarray, margin: float) -> bool:
        """Whether a ball of radius ``margin`` about ``point`` touches nothing."""
        return bool(self.clearance(point[None])[0] >= margin)

    def is_way_free(self, start: np.ndarray, end: np.ndarray, margin: float) -> bool:
        """Whether that ball can move straight from ``start`` to ``end``."""
        count = 2 + int(np.linalg.norm(end - start) / 0.1)
        return bool((self.clearance(np.linspace(start, end, count)) >= margin).all())

    def free_point(self, rng: np.random.Generator, margin: float, low: float = 0.5, high: float = 2.2) -> np.ndarray:
        """A random place for such a ball between two heights."""
        while True:
            point = rng.uniform([-0.5, -0.5, 0.0], [0.5, 0.5, 0.0]) * self.size
            point[2] = rng.uniform(low, high)
            if self.is_free(point, margin):
                return point

    def add(self, kind: str, position, size, colour, rotation: np.ndarray | None = None, **options) -> None:
        """Put a coloured "box", "cylinder" or "sphere" there; ``rotation`` has its axes as columns."""
        quaternion = np.array([1.0, 0.0, 0.0, 0.0])
        if rotation is not None:
            mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(rotation).ravel())
        self.spec.worldbody.add_geom(
            type=getattr(mujoco.mjtGeom, f"mjGEOM_{kind.upper()}"),
            pos=np.array(position, float),
            size=[*size, 0.0, 0.0][:3],
            quat=quaternion,
            rgba=[*np.clip(colour, 0, 1), 1.0],
            **options,
        )


@dataclass
class _Wall:
    """An inner face of the room: its foot's middle, the axis along it and the axis into the room."""

    foot: np.ndarray
    along: np.ndarray
    inward: np.ndarray
    length: float
    colour: np.ndarray

    def place(self, along: float, height: float, inward: float = 0.0) -> np.ndarray:
        return self.foot + along * self.along + inward * self.inward + np.array([0.0, 0.0, height])

    @property
    def axes(self) -> np.ndarray:
        """Rotation ``(3, 3)`` whose columns point along the wall, up, and into the room."""
        return np.stack([self.along, [0.0, 0.0, 1.0], self.inward], 1)


def build_room(rng: np.random.Generator) -> RoomScene:
    """Draw a room with furniture, posters and one target panel; the camera is called "eye", its body "camera"."""
    spec = mujoco.MjSpec()
    spec.visual.map.znear, spec.visual.map.zfar = 0.02, 4.0
    spec.stat.extent, spec.stat.center = 4.0, np.array([0.0, 0.0, 1.4])
    size = np.array([rng.uniform(4.5, 5.6), rng.uniform(4.5, 5.6), rng.uniform(2.6, 3.0)])
    scene = RoomScene(size, spec)
    spec.worldbody.add_body(name="camera", mocap=True).add_camera(name="eye", fovy=FOVY)
    _add_light(spec, rng)
    _add_shell(scene, rng)
    walls = _add_walls(scene, rng)
    target_wall = int(rng.integers(4))
    for number, wall in enumerate(walls):
        target_slot = int(rng.integers(2)) if number == target_wall else -1
        for slot, centre in enumerate((-wall.length / 4, wall.length / 4)):
            if slot == target_slot:
                _add_target(scene, wall, centre + rng.uniform(-0.3, 0.3), rng.uniform(1.1, 1.6))
            elif rng.random() < 0.8:
                _add_poster(scene, wall, centre, rng)
    _add_furniture(scene, rng)
    return scene


def _add_light(spec: mujoco.MjSpec, rng: np.random.Generator) -> None:
    """A strong light from above and a weak one from below on the other side, as if from the floor; no highlights."""
    spec.visual.headlight.ambient = np.full(3, rng.uniform(0.52, 0.64))
    spec.visual.headlight.diffuse = np.zeros(3)
    spec.visual.headlight.specular = np.zeros(3)
    azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.4)
    across = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    for direction, strength in ((across - [0, 0, height], rng.uniform(0.35, 0.45)), ([0, 0, 0.6] - across, 0.25)):
        spec.worldbody.add_light(
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
            dir=direction / np.linalg.norm(direction),
            diffuse=np.full(3, strength),
            ambient=np.zeros(3),
            specular=np.zeros(3),
            castshadow=False,
        )


def _add_shell(scene: RoomScene, rng: np.random.Generator) -> None:
    """Floor with a rug, ceiling with a bright lamp."""
    width, depth, height = scene.size
    half = (width / 2, depth / 2, 0.1)
    scene.add("box", (0, 0, -0.1), half, _vary(FLOOR_COLOURS[rng.integers(len(FLOOR_COLOURS))], rng))
    scene.add("box", (0, 0, height + 0.1), half, np.full(3, rng.uniform(0.85, 1.0)))
    middle = rng.uniform(-0.5, 0.5, 2)
    outer, inner = _two_colours(rng)
    rug = rng.uniform(0.8, 1.3, 2)
    if rng.random() < 0.5:
        scene.add("cylinder", (*middle, 0), (rug[0], 0.01), outer)
        scene.add("cylinder", (*middle, 0), (0.5 * rug[0], 0.02), inner)
    else:
        scene.add("box", (*middle, 0), (*rug, 0.01), outer)
        scene.add("box", (*middle, 0), (*0.5 * rug, 0.02), inner)
    scene.add("box", (*rng.uniform(-0.8, 0.8, 2), height), (*rng.uniform(0.3, 0.8, 2), 0.02), (0.98, 0.93, 0.60))


def _add_walls(scene: RoomScene, rng: np.random.Generator) -> list[_Wall]:
    width, depth, height = scene.size
    names = rng.choice(list(WALL_COLOURS), 4, replace=False)
    walls = []
    for name, turn, length, distance in zip(
        names, range(4), (width, depth) * 2, (depth / 2, width / 2) * 2, strict=True
    ):
        inward = np.array([[0, 1, 0], [-1, 0, 0], [0, -1, 0], [1, 0, 0]][turn], float)
        along = np.cross([0.0, 0.0, 1.0], inward)
        wall = _Wall(-distance * inward, along, inward, length, _vary(WALL_COLOURS[name], rng))
        scene.add("box", wall.place(0, height / 2, -0.1), (length / 2, height / 2, 0.1), wall.colour, wall.axes)
        walls.append(wall)
    return walls


def _add_target(scene: RoomScene, wall: _Wall, along: float, height: float) -> None:
    """The glowing panel and the goal view in front of it."""
    for colour, half, depth in ((MAGENTA, PANEL, 0.02), (ORANGE, 0.55 * PANEL, 0.03)):
        name = f"glow {half}"
        # A quarter of the colour is lit by the room, the rest glows: about the same colour in every light.
        dim = 0.25 * np.array(colour)
        scene.spec.add_material(name=name, rgba=[*dim, 1.0], emission=3.2, specular=0.0)
        scene.add("box", wall.place(along, height), (half, half, depth), dim, wall.axes, material=name)
    scene.goal[:3, :3] = wall.axes  # x along the wall as seen from the room, y up, looking along -z onto the wall
    scene.goal[:3, 3] = wall.place(along, height, GOAL_DISTANCE)
    steps = np.linspace(-0.9 * PANEL, 0.9 * PANEL, 5)
    scene.panel = np.stack([wall.place(along + x, height + y, 0.03) for x in steps for y in steps])


def _add_poster(scene: RoomScene, wall: _Wall, along: float, rng: np.random.Generator) -> None:
    """A flat picture of two or three colours: halves, quarters, a disc, a square, or a door."""
    ground, patch = _two_colours(rng, wall.colour)
    w, h = rng.uniform(0.55, min(0.9, wall.length / 4 - 0.15)), rng.uniform(0.5, 0.8)
    height = rng.uniform(h + 0.4, scene.size[2] - h - 0.2)
    style = rng.choice(["halves", "quarters", "disc", "square", "door"])
    if style == "door":
        w, h, height = rng.uniform(0.4, 0.55), 1.0, 1.0
    scene.add("box", wall.place(along, height), (w, h, 0.02), ground, wall.axes)

    def add_patch(x: float, y: float, half_width: float, half_height: float) -> None:
        scene.add("box", wall.place(along + x, height + y), (half_width, half_height, 0.03), patch, wall.axes)

    if style == "halves":
        add_patch(-w / 2, 0, w / 2, h)
    elif style == "quarters":
        add_patch(-w / 2, h / 2, w / 2, h / 2)
        add_patch(w / 2, -h / 2, w / 2, h / 2)
    elif style == "disc":
        scene.add("cylinder", wall.place(along, height), (0.7 * min(w, h), 0.03), patch, wall.axes)
    else:
        add_patch(0, 0.35 * h if style == "door" else 0, 0.55 * w, 0.4 * h if style == "door" else 0.55 * h)


def _add_furniture(scene: RoomScene, rng: np.random.Generator) -> None:
    """5 to 9 things on free floor, none in the way of the goal view."""
    wanted = int(rng.integers(5, 10))
    feet: list[tuple[np.ndarray, float]] = []
    goal, aside, back = scene.goal[:2, 3], scene.goal[:2, 0], scene.goal[:2, 2]
    for _ in range(400):
        if len(feet) == wanted:
            return
        radius = rng.uniform(0.28, 0.5)
        place = rng.uniform(-0.5, 0.5, 2) * (scene.size[:2] - 2 * radius)
        away = place - goal
        blocks_goal = abs(away @ aside) < PANEL + radius + 0.2 and away @ back < radius + 0.6
        if blocks_goal or any(np.linalg.norm(place - foot) < radius + other + WALK_WAY for foot, other in feet):
            continue
        feet.append((place, radius))
        _add_thing(scene, place, radius, rng)


def _add_thing(scene: RoomScene, place: np.ndarray, radius: float, rng: np.random.Generator) -> None:
    """A crate with a lid, a drum with a ball, a column with a band, or a ball on a block, within a circle's radius."""
    first, second = _two_colours(rng)
    yaw = rng.uniform(0, np.pi)

    def stack(kind: str, reach: float, bottom: float, top: float, colour, solid: bool = True) -> None:
        half = (top - bottom) / 2
        size = {"box": (reach / np.sqrt(2),) * 2 + (half,), "cylinder": (reach, half), "sphere": (half,)}[kind]
        position = np.array([*place, (bottom + top) / 2])
        rotation = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        scene.add(kind, position, size, colour, rotation)
        if solid:
            scene.solids.append(Solid(kind, position, size, yaw))

    style = rng.choice(["crate", "drum", "column", "ball"], p=[0.4, 0.2, 0.2, 0.2])
    kind = str(rng.choice(["box", "cylinder"]))
    height = rng.uniform(0.5, 1.2)
    if style == "crate":
        stack("box", radius, 0, height, first)
        stack("box", 0.75 * radius, height, height + rng.uniform(0.2, 0.5), second)
    elif style == "drum":
        stack("cylinder", radius, 0, height, first)
        stack("sphere", radius, height, height + 1.4 * radius, second)
    elif style == "column":
        stack(kind, 0.8 * radius, 0, scene.size[2], first)
        stack(kind, 0.9 * radius, height, height + 0.6, second)
    else:
        stack(kind, 0.7 * radius, 0, 0.5 * height, first)
        stack("sphere", radius, 0.5 * height, 0.5 * height + 2 * radius, second)


def _vary(colour, rng: np.random.Generator) -> np.ndarray:
    return np.clip(np.array(colour) + rng.uniform(-0.05, 0.05, 3), 0, 1)


def _two_colours(rng: np.random.Generator, besides: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Two colours of furniture that differ clearly, also from ``besides``."""
    others = [] if besides is None else [besides]
    for number in rng.permutation(len(THING_COLOURS)):
        colour = 0.1 + 0.8 * _vary(THING_COLOURS[number], rng)
        if all(np.linalg.norm(colour - other) > 0.4 for other in others):
            others.append(colour)
        if len(others) == 2 + (besides is not None):
            break
    return others[-2], others[-1]
