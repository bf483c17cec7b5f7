"""Manipulation: a robot arm that pushes a block over a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from astra_gym.actions import MANIPULATION
from astra_gym.envs.base import AstraEnv
from astra_gym.envs.released import is_released


class AstraManipulationEnv(AstraEnv):
    """
    ## Description
    A robot arm, seen from close by, that pushes a block over a table to the goal, a green disc. No physics engine runs
    here: a video world model, trained on episodes of FetchPush-v4, makes the next block of video from its own past and
    the action. What it has learned is what happens, including its mistakes. The ground truth is
    `AstraSim/Manipulation-v0`, which has the same interface and can take this environment's place.

    ```python
    import gymnasium as gym
    env = gym.make("astra_gym:AstraManipulation-v0")
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    ```

    ## Action Space
    `Box(-1, 1, (4,), float32)`: motion of the gripper along the table's axes, in FetchPush's units. One step holds the
    action for a block of 4 frames at 25 frames/s: 0.16 s.

    | Num | Action | Min | Max | Unit |
    |-----|--------|-----|-----|------|
    | 0 | dx | -1 (left) | 1 (right) | 5 cm a frame |
    | 1 | dy | -1 (towards the viewer) | 1 (away) | 5 cm a frame |
    | 2 | dz | -1 (down) | 1 (up) | 5 cm a frame |
    | 3 | gripper | -1 | 1 | none: FetchPush keeps it closed |

    The unit is that of the arm's target; the arm itself makes about two thirds of the way, 13 cm a step for an action
    of 1. Most actions that the world learned from are below 0.5. Values out of bounds are clipped. A wrong shape or a
    number that is not finite raises a `ValueError`.

    ## Observation Space
    `obs_type` chooses one of three views of the newest block:

    | obs_type | Space | Content |
    |----------|-------|---------|
    | `"block"` (default) | `Box(0, 255, (4, 64, 64, 3), uint8)` | its 4 RGB frames, oldest first |
    | `"frame"` | `Box(0, 255, (64, 64, 3), uint8)` | its newest RGB frame |
    | `"latent"` | `Box(-16, 16, (C, 8, 8), float32)` | the latent frame that the model works on |

    A latent's channels have unit variance over real frames; values out of bounds, which are rare, are clipped.
    The camera stands beside the table, with the robot to its left, and does not move.

    ## Rewards
    FetchPush's dense reward, as a head of the model reads it from the generated frames and the action: minus the
    distance in metres of the block's centre from the goal, summed over the 4 frames. It is an estimate.

    ## Starting State
    A real beginning of a FetchPush episode, one of the bank that comes with the world. `reset(seed=...)` draws it;
    `reset(options=...)` can name another beginning, with at most one of:

    - `"start"`: place in the bank, an integer from 0.
    - `"image"`: a picture, `uint8 (H, W, 3)` or the path of a file. The world stood still in it for one block.
    - `"video"`: at least 4 frames at 25 frames/s, oldest first, `uint8 (T, H, W, 3)` or the path of a file. The oldest
      frames that make no whole block are dropped, as are those beyond the world's memory. With it may come `"actions"`,
      the action that led to each block, `float (T // 4, 4)`; they are unknown if left out.

    Pictures are cropped to their central square and scaled to 64x64.

    ## Episode End
    - Termination: never; no episode that the model learned from ends by itself.
    - Truncation: after 50 steps (8 s); `gym.make(..., max_episode_steps=...)` changes it, -1 is no limit.

    ## Arguments
    ```python
    gym.make("AstraManipulation-v0", world="small", render_mode=None, obs_type="block", device="cpu", dtype=None,
             num_inference_steps=None, guidance_scale=None, temperature=None, info_routing=False,
             compiled=False, starts=None)
    ```

    - `world`: name of a bundled world, or the folder of one. The folder of a converted released model makes
      :class:`astra_gym.envs.released_manipulation.AstraReleasedManipulationEnv`, an arm in any scene that a picture
      shows, with actions and arguments of its own.
    - `render_mode`: `"rgb_array"` renders the newest frame, `"rgb_array_list"` the 4 frames of the newest block,
      `"human"` opens a window that shows every frame at 25 frames/s.
    - `obs_type`: `"block"`, `"frame"` or `"latent"`, see above.
    - `device`: torch device of the model.
    - `dtype`: number type of the model; None takes what is best on the device. `"int8"` is float32 with the
      transformer's large products in 8-bit integers, which is faster on processors without bfloat16.
    - `num_inference_steps`: denoising steps a block; None is what the world was trained for.
    - `guidance_scale`: above 1 exaggerates what the action does, at twice the cost; None is the world's default.
    - `temperature`: of what is left to chance, above 0: lower is truer on average, higher more varied; None is the
      world's default.
    - `info_routing`: adds the router's weights to `info`.
    - `compiled`: PyTorch's compiler makes the model's passes, which takes a minute first.
    - `starts`: folder of collected episodes (`astra-gym collect`), any moment of which may be where an episode begins;
      None is the world's bank. Needs the extra `[data]`.

    The same seed and the same actions give the same bytes on the same machine, also in another process.
    `env.unwrapped.get_state()` and `set_state()` take and restore a snapshot of everything but the wrappers.
    `RecordVideo` and `gymnasium.utils.play` take one picture a step (6 a second, the block's newest frame); put
    `astra_gym.envs.FrameByFrame` beneath them to see all 25 frames of a second.

    ## Info
    - `"start"`: place in the bank where the episode began, -1 for a picture or a video.
    - `"routing"`, only with `info_routing=True`: the weight of each action expert in this step, `float32 (experts,)`,
      sum 1; zeros at reset.

    ## Keys
    | Keys | Action |
    |------|--------|
    | left or A, right or D | dx -0.4, 0.4 |
    | up or W, down or S | dy 0.4, -0.4 |
    | E, Q | dz 0.4, -0.4 |

    Opposite keys cancel, no key stands still.

    ## Version History
    - v0: first version
    """

    modality = MANIPULATION
    simulator_id = "AstraSim/Manipulation-v0"

    def __new__(cls, world: str | Path = "small", **arguments: Any) -> Any:
        """The released weights have a manipulation of their own.

        It is :class:`~astra_gym.envs.released_manipulation.AstraReleasedManipulationEnv`.
        """
        if is_released(world):
            from astra_gym.envs.released_manipulation import AstraReleasedManipulationEnv

            return AstraReleasedManipulationEnv(world, **arguments)
        return super().__new__(cls)
