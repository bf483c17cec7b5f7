"""Gymnasium environments inside a learned world. Import as ``astra_gym.envs``; torch is loaded when one is made."""

from astra_gym.envs.base import AstraEnv
from astra_gym.envs.camera import AstraCameraEnv
from astra_gym.envs.drive import AstraDriveEnv
from astra_gym.envs.drone import AstraDroneEnv
from astra_gym.envs.frame_by_frame import FrameByFrame
from astra_gym.envs.manipulation import AstraManipulationEnv
from astra_gym.envs.released_camera import AstraReleasedCameraEnv
from astra_gym.envs.released_drone import AstraReleasedDroneEnv
from astra_gym.envs.released_manipulation import AstraReleasedManipulationEnv
from astra_gym.envs.street import AstraStreetEnv
from astra_gym.envs.vector import AstraVectorEnv
from astra_gym.envs.world import AstraWorldEnv

__all__ = [
    "AstraCameraEnv",
    "AstraDriveEnv",
    "AstraDroneEnv",
    "AstraEnv",
    "AstraManipulationEnv",
    "AstraReleasedCameraEnv",
    "AstraReleasedDroneEnv",
    "AstraReleasedManipulationEnv",
    "AstraStreetEnv",
    "AstraVectorEnv",
    "AstraWorldEnv",
    "FrameByFrame",
]
