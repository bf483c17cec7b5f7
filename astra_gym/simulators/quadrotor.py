"""A quadrotor for MuJoCo: its body, and the flight controller that makes it follow velocities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mujoco import MjData

MASS = 0.5
GRAVITY = 9.81
INERTIA = (3e-3, 3e-3, 5e-3)
"""About the body's axes forward, left and up, in kg m^2."""
ARM = 0.1
"""Distance of the motors from the body's centre along both axes, in m."""
DRAG_TORQUE = 0.03
"""Torque about the vertical that a motor makes for each newton of its thrust, in m."""
MAX_THRUST = 3.5
"""Of one motor, in N; hovering takes 1.23."""
RADIUS = 0.17
"""Of the sphere that touches things, in m."""

_MOTORS = ((ARM, ARM, 1.0), (-ARM, ARM, -1.0), (-ARM, -ARM, 1.0), (ARM, -ARM, -1.0))
"""Place of each motor and the sign of its torque about the vertical."""


def body_xml() -> tuple[str, str]:
    """The drone's ``<body>`` with a free joint, and its ``<actuator>`` of four motors, each driven by its thrust in N.

    Its geom, a sphere, is invisible: the camera sits inside.
    """
    sites = "".join(f'<site name="motor{i}" pos="{x} {y} 0"/>' for i, (x, y, _) in enumerate(_MOTORS))
    motors = "".join(
        f'<motor site="motor{i}" gear="0 0 1 0 0 {spin * DRAG_TORQUE}" ctrlrange="0 {MAX_THRUST}"/>'
        for i, (_, _, spin) in enumerate(_MOTORS)
    )
    inertia = " ".join(map(str, INERTIA))
    body = (
        f'<body name="drone"><freejoint/><inertial pos="0 0 0" mass="{MASS}" diaginertia="{inertia}"/>'
        f'<geom name="drone" type="sphere" size="{RADIUS}" rgba="0 0 0 0"/>{sites}</body>'
    )
    return body, f"<actuator>{motors}</actuator>"


def heading(data: MjData) -> float:
    """Direction of the drone's nose on the map, in radians counter-clockwise from x. The drone is the first joint."""
    w, x, y, z = data.qpos[3:7].tolist()
    return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


@dataclass(frozen=True)
class FlightController:
    """Velocity controller, then thrust vector, then attitude controller, then mixer."""

    velocity_gain: float = 4.0
    """1/s"""
    max_acceleration: float = 6.0
    """Horizontal and vertical, in m/s^2."""
    tilt_gain: float = 225.0
    """1/s^2"""
    tilt_damping: float = 24.0
    """1/s"""
    turn_gain: float = 8.0
    """1/s"""

    def control(self, data: MjData, command: tuple[float, float, float, float]) -> None:
        """Set the motors' thrusts in ``data.ctrl``; call it before every step of physics.

        Args:
            data: state of the model, in which the drone is the first joint and has the only actuators.
            command: velocities forward, left and up in m/s, and the rate of turning left in rad/s, in the drone's
                level frame.
        """
        forward, left, up, turn = command
        w, x, y, z = data.qpos[3:7].tolist()
        vx, vy, vz, roll_rate, pitch_rate, yaw_rate = data.qvel[:6].tolist()
        nose_x, nose_y = 1 - 2 * (y * y + z * z), 2 * (w * z + x * y)
        level = math.hypot(nose_x, nose_y) or 1.0
        cos, sin = nose_x / level, nose_y / level

        # Acceleration wanted: towards the velocity wanted, which turns with the drone.
        goal_x, goal_y = cos * forward - sin * left, sin * forward + cos * left
        ax = self.velocity_gain * (goal_x - vx) - turn * goal_y
        ay = self.velocity_gain * (goal_y - vy) + turn * goal_x
        az = self.velocity_gain * (up - vz)
        shrink = min(1.0, self.max_acceleration / (math.hypot(ax, ay) or 1.0))
        ax, ay = ax * shrink, ay * shrink
        az = min(max(az, -self.max_acceleration), self.max_acceleration) + GRAVITY

        # Thrust along the body's vertical axis; tilt that axis towards the thrust wanted.
        up_x, up_y, up_z = 2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)
        norm = math.sqrt(ax * ax + ay * ay + az * az)
        thrust = MASS * max(ax * up_x + ay * up_y + az * up_z, 0.0)
        tilt_x, tilt_y, tilt_z = (
            (up_y * az - up_z * ay) / norm,
            (up_z * ax - up_x * az) / norm,
            (up_x * ay - up_y * ax) / norm,
        )
        roll_error = nose_x * tilt_x + nose_y * tilt_y + 2 * (x * z - w * y) * tilt_z
        pitch_error = 2 * (x * y - w * z) * tilt_x + (1 - 2 * (x * x + z * z)) * tilt_y + 2 * (y * z + w * x) * tilt_z
        roll = INERTIA[0] * (self.tilt_gain * roll_error - self.tilt_damping * roll_rate)
        pitch = INERTIA[1] * (self.tilt_gain * pitch_error - self.tilt_damping * pitch_rate)
        yaw = INERTIA[2] * self.turn_gain * (turn - yaw_rate)

        data.ctrl[:] = [
            thrust / 4 + (roll * py - pitch * px) / (4 * ARM**2) + yaw * spin / (4 * DRAG_TORQUE)
            for px, py, spin in _MOTORS
        ]
