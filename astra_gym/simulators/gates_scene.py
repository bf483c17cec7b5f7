"""A course of gates, drawn at random: where the gates stand, what is around them, and the MuJoCo model of it all."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from astra_gym.simulators import quadrotor

FIELD = 14.0
"""Half the side of the square field, in m."""
OPENING = 1.4
"""Inner side of a gate, in m."""
BAR = 0.3
"""Width of a gate's bars, in m."""
CAMERA_TILT = 0.12
"""How far the camera looks below the horizon, in rad."""
SIGNAL_HUE = 0.03

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Gate:
    """A square frame that stands upright."""

    centre: np.ndarray
    """``float64 (3,)`` in m, z is up."""
    yaw: float
    """Direction of the way through it, in rad counter-clockwise from x."""

    @property
    def normal(self) -> np.ndarray:
        """Unit vector of the way through, ``float64 (3,)``."""
        return np.array([np.cos(self.yaw), np.sin(self.yaw), 0.0])

    def crossed(self, before: np.ndarray, after: np.ndarray) -> bool:
        """Whether the straight way between two points ``(3,)`` goes through the opening, from either side."""
        start, end = (before - self.centre) @ self.normal, (after - self.centre) @ self.normal
        if start * end > 0 or start == end:
            return False
        offset = before + (after - before) * (start / (start - end)) - self.centre
        sideways = -np.sin(self.yaw) * offset[0] + np.cos(self.yaw) * offset[1]
        return bool(max(abs(sideways), abs(offset[2])) < OPENING / 2)

    def touches(self, point: np.ndarray, radius: float) -> bool:
        """Whether a sphere about ``point`` ``(3,)`` touches the bars."""
        offset = point - self.centre
        sideways = abs(-np.sin(self.yaw) * offset[0] + np.cos(self.yaw) * offset[1])
        ring = max(sideways, abs(offset[2])) - (OPENING + BAR) / 2
        return bool(max(abs(offset @ self.normal), abs(ring)) < BAR / 2 + radius)


@dataclass(frozen=True)
class Course:
    """A closed course of gates."""

    gates: tuple[Gate, ...]
    """In the order in which they are to be passed, over and over."""
    start: np.ndarray
    """Where the drone begins, ``float64 (3,)`` in m."""
    start_yaw: float
    xml: str
    """The MuJoCo model, to be drawn with fog. Geoms ``gate3_0`` to ``gate3_3`` are the bars of gate 3; the camera
    ``eye`` is on the mocap body ``gimbal``; materials are ``signal`` and ``dull``."""


def draw_course(rng: np.random.Generator) -> Course:
    """Draw a course, its surroundings, colours and light."""
    path, gates = _draw_gates(rng)
    first = gates[0]
    start = first.centre - rng.uniform(3.0, 4.5) * first.normal + rng.uniform(-0.7, 0.7, 3)
    start[2] = np.clip(start[2], 1.0, 2.6)
    if any(gate.touches(start, quadrotor.RADIUS) for gate in gates):
        start = first.centre - 2.0 * first.normal
    towards = first.centre - start
    start_yaw = float(np.arctan2(towards[1], towards[0]) + rng.normal(0, 0.25))
    return Course(gates, start, start_yaw, _model_xml(rng, np.concatenate([path, start[None, :2]]), gates))


def _draw_gates(rng: np.random.Generator) -> tuple[np.ndarray, tuple[Gate, ...]]:
    """A winding closed path ``(points, 2)`` on the map and the gates along it, 4 to 6 m apart."""
    angle = np.linspace(0, 2 * np.pi, 721)
    two, three = rng.uniform(0.05, 0.2), rng.uniform(0.1, 0.2)
    radius = 1 + two * np.cos(2 * angle + rng.uniform(0, 7)) + three * np.cos(3 * angle + rng.uniform(0, 7))
    radius *= rng.uniform(7.0, 8.0)
    path = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    if rng.random() < 0.5:
        path = path[::-1]
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    count = round(length[-1] / 5)
    places = length[-1] * (np.arange(count) + rng.uniform(-0.08, 0.08, count) + 0.1) / count
    gates, height = [], rng.uniform(1.3, 2.3)
    for place in places:
        here, ahead = (np.array([np.interp(at, length, path[:, i]) for i in range(2)]) for at in (place, place + 0.2))
        height = float(np.clip(height + rng.uniform(-0.7, 0.7), 1.2, 2.4))
        yaw = float(np.arctan2(*(ahead - here)[::-1]) + rng.normal(0, 0.08))
        gates.append(Gate(np.array([*here, height]), yaw))
    return path[:-1], tuple(gates)


def _model_xml(rng: np.random.Generator, clear: np.ndarray, gates: tuple[Gate, ...]) -> str:
    ground_hue = rng.uniform(0.1, 0.8)
    saturation, value = rng.uniform(0.25, 0.45), rng.uniform(0.5, 0.7)
    tiles = (
        _rgb(ground_hue, saturation, value),
        _rgb(ground_hue + rng.uniform(-0.06, 0.06), saturation, value - rng.uniform(0.07, 0.13)),
    )
    outside = _rgb(ground_hue + rng.uniform(0.25, 0.75), rng.uniform(0.2, 0.4), rng.uniform(0.5, 0.7))
    sky_hue = rng.uniform(0.52, 0.68) if rng.random() < 0.7 else rng.uniform(0.0, 1.0)
    sky = _rgb(sky_hue, rng.uniform(0.1, 0.3), rng.uniform(0.65, 0.8))
    dull = _rgb(rng.uniform(0, 1), 0.12, rng.uniform(0.35, 0.5))
    light = rng.uniform(0.35, 0.5)
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.1)
    beam = (-np.cos(azimuth) * np.cos(elevation), -np.sin(azimuth) * np.cos(elevation), -np.sin(elevation))
    tile = rng.uniform(3.0, 4.5)
    body, motors = quadrotor.body_xml()
    return f"""
<mujoco>
  <compiler angle="radian" autolimits="true"/>
  <option timestep="0.005" gravity="0 0 -{quadrotor.GRAVITY}"/>
  <statistic extent="10" center="0 0 1"/>
  <visual>
    <headlight active="0"/>
    <map znear="0.004" zfar="12" fogstart="0.6" fogend="3.5"/>
    <quality numslices="16" numstacks="10" numquads="1"/>
    <rgba fog="{_text(sky)} 1"/>
  </visual>
  <asset>
    <texture type="skybox" builtin="flat" rgb1="{_text(sky)}" width="8" height="48"/>
    <texture name="tiles" type="2d" builtin="checker" rgb1="{_text(tiles[0])}" rgb2="{_text(tiles[1])}" width="256"
      height="256"/>
    <material name="tiles" texture="tiles" texuniform="true" texrepeat="{1 / tile} {1 / tile}" specular="0"/>
    <material name="signal" rgba="{_text(_rgb(SIGNAL_HUE, 0.8, 0.95))} 1" emission="0.2" specular="0"/>
    <material name="dull" rgba="{_text(dull)} 1" specular="0"/>
  </asset>
  <worldbody>
    <light directional="true" dir="{_text(beam)}" diffuse="{light} {light} {light}" specular="0 0 0"
      ambient="{0.9 - light} {0.9 - light} {0.9 - light}"/>
    <geom name="outside" type="plane" size="90 90 30" pos="0 0 -0.2" rgba="{_text(outside)} 1"/>
    <geom name="field" type="plane" size="{FIELD} {FIELD} 1" material="tiles"/>
    {"".join(_landmarks(rng, clear))}
    {"".join(_bars(i, gate) for i, gate in enumerate(gates))}
    <body name="gimbal" mocap="true">
      <camera name="eye" fovy="85" xyaxes="0 -1 0 {np.sin(CAMERA_TILT)} 0 {np.cos(CAMERA_TILT)}"/>
    </body>
    {body}
  </worldbody>
  {motors}
</mujoco>"""


def _bars(number: int, gate: Gate) -> str:
    middle, half = (OPENING + BAR) / 2, BAR / 2
    boxes = (
        (0.0, middle, middle + half, half),
        (0.0, -middle, middle + half, half),
        (middle, 0.0, half, middle - half),
        (-middle, 0.0, half, middle - half),
    )
    sideways = np.array([-np.sin(gate.yaw), np.cos(gate.yaw), 0.0])
    return "".join(
        f'<geom name="gate{number}_{bar}" type="box" material="dull" euler="0 0 {gate.yaw}"'
        f' pos="{_text(gate.centre + y * sideways + (0, 0, z))}" size="{half} {width} {height}"/>'
        for bar, (y, z, width, height) in enumerate(boxes)
    )


def _landmarks(rng: np.random.Generator, clear: np.ndarray) -> list[str]:
    """Large things: towers, blocks and hills around the field, and some pillars and blocks on it.

    Those on the field keep away from the points ``clear`` ``(n, 2)``.
    """
    things = []
    count = int(rng.integers(9, 14))
    for angle in 2 * np.pi * (np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count:
        distance, height = rng.uniform(21, 27), rng.uniform(3, 9)
        shape = rng.choice(["box", "cylinder", "ellipsoid"], p=[0.4, 0.2, 0.4])
        if shape == "ellipsoid":
            size = (rng.uniform(3.5, 6), rng.uniform(3.5, 6), height)
        else:
            size = (rng.uniform(1.5, 3.5), rng.uniform(1.5, 3.5), height)
        things.append(_thing(rng, shape, (distance * np.cos(angle), distance * np.sin(angle)), size))
    for _ in range(12):
        place, width = rng.uniform(1 - FIELD, FIELD - 1, 2), rng.uniform(0.5, 1.1)
        if np.linalg.norm(clear - place, axis=1).min() > width * 1.4 + 2.0 and len(things) < count + 6:
            size = (width, width * rng.uniform(0.7, 1.3), rng.uniform(0.8, 2.5))
            things.append(_thing(rng, rng.choice(["box", "cylinder"]), place, size))
    return things


def _thing(rng: np.random.Generator, shape: str, place: np.ndarray | tuple, size: tuple[float, float, float]) -> str:
    """A geom that stands on the ground (a hill: half sunk), of half-sizes ``size``, in any colour but the signal's."""
    colour = _rgb(SIGNAL_HUE + rng.uniform(0.12, 0.88), rng.uniform(0.2, 0.5), rng.uniform(0.5, 0.8))
    height = 0.0 if shape == "ellipsoid" else size[2]
    numbers = (size[0], size[2]) if shape == "cylinder" else size
    return (
        f'<geom type="{shape}" pos="{place[0]} {place[1]} {height}" size="{_text(numbers)}"'
        f' euler="0 0 {rng.uniform(0, np.pi)}" rgba="{_text(colour)} 1"/>'
    )


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    return colorsys.hsv_to_rgb(hue % 1.0, saturation, value)


def _text(numbers) -> str:
    return " ".join(f"{number:.5g}" for number in numbers)
