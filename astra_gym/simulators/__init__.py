"""Ground-truth simulators: what the worlds are trained on and judged against, never what they run on.

Every simulator has the interface of the Astra environment that imitates it (one step is one block of frames), so the
two can be swapped for each other. They need the extra ``pip install ".[sims]"``.
"""

from astra_gym.simulators.blocks import BlockFrames, resize_frame
from astra_gym.simulators.replay import replay_start

__all__ = ["BlockFrames", "replay_start", "resize_frame"]
