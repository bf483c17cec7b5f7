"""Gymnasium environments inside a learned world. Import as ``astra_gym.envs``; torch is loaded when one is made."""

from astra_gym.envs.base import AstraEnv
from astra_gym.envs.drive import AstraDriveEnv
from astra_gym.envs.frame_by_frame import FrameByFrame

__all__ = ["AstraDriveEnv", "AstraEnv", "FrameByFrame"]
