"""Drive: a car on a winding track."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from astra_gym.actions import DRIVE
from astra_gym.envs.base import AstraEnv
from astra_gym.envs.released import is_released


class AstraDriveEnv(AstraEnv):
    """
    ## Description
    A car seen from above on a winding road through grass, as in Gymnasium's CarRacing. No physics engine runs here: a
    video world model, trained on episodes of CarRacing-v3, makes the next block of video from its own past and the
    action. What it has learned is what happens, including its mistakes. The ground truth is `AstraSim/Drive-v0`, which
    has the same interface and can take this environment's place.

    ```python
    import gymnasium as gym
    env = gym.make("astra_gym:AstraDrive-v0")
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    ```

    ## Action Space
    `Box([-1, 0, 0], [1, 1, 1], (3,), float32)`. One step holds the action for a block of 4 frames at
    50 frames/s: 0.08 s.

    | Num | Action | Min | Max | Unit |
    |-----|--------|-----|-----|------|
    | 0 | steering | -1 (left) | 1 (right) | of full lock, 0.4 rad at the front wheels |
    | 1 | gas | 0 | 1 | of full engine power |
    | 2 | brake | 0 | 1 | of full braking force; from 0.9 on the wheels lock |

    Values out of bounds are clipped. A wrong shape or a number that is not finite raises a `ValueError`.

    ## Observation Space
    `obs_type` chooses one of three views of the newest block:

    | obs_type | Space | Content |
    |----------|-------|---------|
    | `"block"` (default) | `Box(0, 255, (4, 64, 64, 3), uint8)` | its 4 RGB frames, oldest first |
    | `"frame"` | `Box(0, 255, (64, 64, 3), uint8)` | its newest RGB frame |
    | `"latent"` | `Box(-16, 16, (C, 8, 8), float32)` | the latent frame that the model works on |

    A latent's channels have unit variance over real frames; values out of bounds, which are rare, are clipped.
    The picture is the square above CarRacing's instrument panel; the car stays at the same place and points upwards.

    ## Rewards
    CarRacing's reward of the block, as a head of the model reads it from the generated frames and the action: about
    -0.1 a frame, and a bonus of 1000/N for each of the track's N tiles that the car visits first. It is an estimate, so
    it is not exactly a multiple of these. Going off the field costs 100.

    ## Starting State
    A real beginning of a CarRacing episode, one of the bank that comes with the world. `reset(seed=...)` draws it;
    `reset(options=...)` can name another beginning, with at most one of:

    - `"start"`: place in the bank, an integer from 0.
    - `"image"`: a picture, `uint8 (H, W, 3)` or the path of a file. The world stood still in it for one block.
    - `"video"`: at least 4 frames at 50 frames/s, oldest first, `uint8 (T, H, W, 3)` or the path of a file. The oldest
      frames that make no whole block are dropped, as are those beyond the world's memory. With it may come `"actions"`,
      the action that led to each block, `float (T // 4, 3)`; they are unknown if left out.

    Pictures are cropped to their central square and scaled to 64x64.

    ## Episode End
    - Termination: the model judges that the car has left the field.
    - Truncation: after 250 steps (20 s); `gym.make(..., max_episode_steps=...)` changes it, -1 is no limit. A finished
      lap ends nothing, since nothing in the picture tells where a lap ends.

    ## Arguments
    ```python
    gym.make("AstraDrive-v0", world="small", render_mode=None, obs_type="block", device="cpu", dtype=None,
             num_inference_steps=None, guidance_scale=None, temperature=None, info_routing=False,
             compiled=False, starts=None)
    ```

    - `world`: name of a bundled world, or the folder of one. The folder of a converted released model makes
      :class:`astra_gym.envs.street.AstraStreetEnv`, a drive through real streets with actions and arguments of its own.
    - `render_mode`: `"rgb_array"` renders the newest frame, `"rgb_array_list"` the 4 frames of the newest block,
      `"human"` opens a window that shows every frame at 50 frames/s.
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
    `gym.make_vec("astra_gym:AstraDrive-v0", num_envs=32)` makes an :class:`astra_gym.envs.AstraVectorEnv`: many worlds
    that are stepped by one forward pass.
    `env.unwrapped.get_state()` and `set_state()` take and restore a snapshot of everything but the wrappers.
    `RecordVideo` and `gymnasium.utils.play` take one picture a step (12 a second, the block's newest frame); put
    `astra_gym.envs.FrameByFrame` beneath them to see all 50 frames of a second.

    ## Info
    - `"start"`: place in the bank where the episode began, -1 for a picture or a video.
    - `"routing"`, only with `info_routing=True`: the weight of each action expert in this step, `float32 (experts,)`,
      sum 1; zeros at reset.

    ## Keys
    | Keys | Action |
    |------|--------|
    | left or A | steer -1 |
    | right or D | steer 1 |
    | up or W | gas 1 |
    | down or S | brake 0.8 |

    Opposite keys cancel, no key lets the car roll.

    ## Version History
    - v0: first version
    """

    modality = DRIVE
    simulator_id = "AstraSim/Drive-v0"

    def __new__(cls, world: str | Path = "small", **arguments: Any) -> Any:
        """With the released weights, driving is another world: :class:`~astra_gym.envs.street.AstraStreetEnv`."""
        if is_released(world):
            from astra_gym.envs.street import AstraStreetEnv

            return AstraStreetEnv(world, **arguments)
        return super().__new__(cls)
