"""Drone: a quadrotor in a course of gates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from astra_gym.actions import DRONE
from astra_gym.envs.base import AstraEnv
from astra_gym.envs.released import is_released


class AstraDroneEnv(AstraEnv):
    """
    ## Description
    A quadrotor, seen by its own forward camera, in a winding course of gates; the next gate to pass is orange-red, the
    others are of a dull colour. No physics engine runs here: a video world model, trained on flights in a MuJoCo
    simulator, makes the next block of video from its own past and the action. What it has learned is what happens,
    including its mistakes. The ground truth is `AstraSim/Drone-v0`, which has the same interface and can take this
    environment's place.

    ```python
    import gymnasium as gym
    env = gym.make("astra_gym:AstraDrone-v0")
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    ```

    ## Action Space
    `Box([-1, -1, -1, -1.5], [2, 1, 1, 1.5], (4,), float32)`: the velocities that the drone's flight controller is asked
    for, in the drone's own level frame. One step holds the action for a block of 4 frames at 20 frames/s: 0.2 s.

    | Num | Action | Min | Max | Unit |
    |-----|--------|-----|-----|------|
    | 0 | forward | -1 | 2 | m/s |
    | 1 | left | -1 | 1 | m/s |
    | 2 | up | -1 | 1 | m/s |
    | 3 | turn left | -1.5 | 1.5 | rad/s |

    The simulated drone reaches a velocity after about a quarter of a second. Most turns that the world learned from are
    slower than 0.8 rad/s. Values out of bounds are clipped. A wrong shape or a number that is not finite raises a
    `ValueError`. `gymnasium.wrappers.RescaleAction` normalises the space for learning.

    ## Observation Space
    `obs_type` chooses one of three views of the newest block:

    | obs_type | Space | Content |
    |----------|-------|---------|
    | `"block"` (default) | `Box(0, 255, (4, 64, 64, 3), uint8)` | its 4 RGB frames, oldest first |
    | `"frame"` | `Box(0, 255, (64, 64, 3), uint8)` | its newest RGB frame |
    | `"latent"` | `Box(-16, 16, (C, 8, 8), float32)` | the latent frame that the model works on |

    A latent's channels have unit variance over real frames; values out of bounds, which are rare, are clipped.
    The camera turns with the drone but stays level, and looks 7 degrees below the horizon; the picture is 85 degrees
    wide and high.

    ## Rewards
    The simulator's reward of the block, as a head of the model reads it from the generated frames and the action: the
    progress towards the next gate's centre in metres, 5 for passing through it, and -10 for a crash. It is an estimate.

    ## Starting State
    A real beginning of a flight in the simulator, one of the bank that comes with the world. `reset(seed=...)` draws
    it; `reset(options=...)` can name another beginning, with at most one of:

    - `"start"`: place in the bank, an integer from 0.
    - `"image"`: a picture, `uint8 (H, W, 3)` or the path of a file. The world stood still in it for one block.
    - `"video"`: at least 4 frames at 20 frames/s, oldest first, `uint8 (T, H, W, 3)` or the path of a file. The oldest
      frames that make no whole block are dropped, as are those beyond the world's memory. With it may come `"actions"`,
      the action that led to each block, `float (T // 4, 4)`; they are unknown if left out.

    Pictures are cropped to their central square and scaled to 64x64.

    ## Episode End
    - Termination: the model judges that the drone has crashed: it touched a gate, an obstacle or the ground, climbed
      above 5 m or left the tiled field.
    - Truncation: after 150 steps (30 s); `gym.make(..., max_episode_steps=...)` changes it, -1 is no limit. The course
      is closed, so it has no end.

    ## Arguments
    ```python
    gym.make("AstraDrone-v0", world="small", render_mode=None, obs_type="block", device="cpu", dtype=None,
             num_inference_steps=None, guidance_scale=None, temperature=None, info_routing=False,
             compiled=False, starts=None)
    ```

    - `world`: name of a bundled world, or the folder of one. The folder of a converted released model makes
      :class:`astra_gym.envs.released_drone.AstraReleasedDroneEnv`, a drone in any scene that a picture shows, with
      actions and arguments of its own.
    - `render_mode`: `"rgb_array"` renders the newest frame, `"rgb_array_list"` the 4 frames of the newest block,
      `"human"` opens a window that shows every frame at 20 frames/s.
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
    `RecordVideo` and `gymnasium.utils.play` take one picture a step (5 a second, the block's newest frame); put
    `astra_gym.envs.FrameByFrame` beneath them to see all 20 frames of a second.

    ## Info
    - `"start"`: place in the bank where the episode began, -1 for a picture or a video.
    - `"routing"`, only with `info_routing=True`: the weight of each action expert in this step, `float32 (experts,)`,
      sum 1; zeros at reset.

    ## Keys
    | Keys | Action |
    |------|--------|
    | up or W, down or S | forward 1.5, -1 |
    | A, D | left 1, -1 |
    | E, Q | up 1, -1 |
    | left, right | turn left 1, -1 |

    Keys that are held together add up, no key hovers.

    ## Version History
    - v0: first version
    """

    modality = DRONE
    simulator_id = "AstraSim/Drone-v0"

    def __new__(cls, world: str | Path = "small", **arguments: Any) -> Any:
        """The released weights have a drone of their own.

        It is :class:`~astra_gym.envs.released_drone.AstraReleasedDroneEnv`.
        """
        if is_released(world):
            from astra_gym.envs.released_drone import AstraReleasedDroneEnv

            return AstraReleasedDroneEnv(world, **arguments)
        return super().__new__(cls)
