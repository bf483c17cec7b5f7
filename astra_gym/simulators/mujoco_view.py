"""Small clean pictures of a MuJoCo scene, and the geometry of the cameras that take them."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from ctypes.util import find_library
from typing import TYPE_CHECKING

import numpy as np

if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    # How to draw without a screen; only read when mujoco is first imported.
    only_software = not find_library("EGL") and find_library("OSMesa")
    os.environ.setdefault("MUJOCO_GL", "osmesa" if only_software else "egl")

try:
    import mujoco
except ModuleNotFoundError as error:
    raise ImportError('MuJoCo is missing: pip install ".[sims]" in the astra-gym checkout') from error
except (ImportError, AttributeError) as error:  # PyOpenGL raises either where the library is missing
    raise ImportError(
        f"MuJoCo cannot draw: OpenGL's libraries for MUJOCO_GL={os.environ.get('MUJOCO_GL')} do not load. "
        "On Debian: apt install libegl1 libgl1"
    ) from error

if TYPE_CHECKING:
    from mujoco import MjData, MjModel, MjvCamera


class MujocoView:
    """Renders square frames: drawn larger and averaged down, without shadows and reflections.

    Args:
        model: the scene; its rendering quality is set here. What is changed in it later is seen.
        size: side of a frame in pixels.
        oversample: how many times larger it is drawn, on each side.
        fog: whether the distance fades into the model's fog colour, which then is the sky's as well.
    """

    def __init__(self, model: MjModel, size: int = 64, oversample: int = 2, fog: bool = False):
        self.size, self.oversample = size, oversample
        side = size * oversample
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, side)
        model.vis.global_.offheight = max(model.vis.global_.offheight, side)
        self.option = mujoco.MjvOption()
        """What is drawn; change it to hide groups of geoms or sites."""
        self._renderer = mujoco.Renderer(model, side, side)
        _open_views.add(self)
        # Registered anew, so that it runs before what MuJoCo registers when it first draws: giving the display back.
        atexit.unregister(_close_views)
        atexit.register(_close_views)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = False
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_FOG] = fog

    def frame(self, data: MjData, camera: str | int | MjvCamera) -> np.ndarray:
        """What ``camera`` (its name, its number, or a free one) sees, ``uint8 (size, size, 3)``."""
        self._renderer.update_scene(data, camera, self.option)
        picture = self._renderer.render()
        blocks = picture.reshape(self.size, self.oversample, self.size, self.oversample, 3).astype(np.uint16)
        area = self.oversample**2
        return ((blocks.sum((1, 3), dtype=np.uint16) + area // 2) // area).astype(np.uint8)

    def depth(self, data: MjData, camera: str | int | MjvCamera) -> np.ndarray:
        """Distances in metres, along the line of sight of the picture's middle, ``float32 (size, size)``."""
        self._renderer.update_scene(data, camera, self.option)
        self._renderer.enable_depth_rendering()
        distances = self._renderer.render()
        self._renderer.disable_depth_rendering()
        return distances.reshape(self.size, self.oversample, self.size, self.oversample).mean((1, 3))

    def close(self) -> None:
        """Free the graphics memory; the view is of no use afterwards."""
        self._renderer.close()


_open_views: weakref.WeakSet[MujocoView] = weakref.WeakSet()


def _close_views() -> None:
    """Close those left open, which would otherwise complain at exit."""
    for view in list(_open_views):
        view.close()


def intrinsics(model: MjModel, camera: str, size: int) -> np.ndarray:
    """Pinhole matrix ``float64 (3, 3)`` of a frame of ``size`` pixels a side; pixel centres are at half-integers."""
    focal = size / 2 / np.tan(np.deg2rad(model.camera(camera).fovy[0]) / 2)
    return np.array([[focal, 0.0, size / 2], [0.0, focal, size / 2], [0.0, 0.0, 1.0]])
