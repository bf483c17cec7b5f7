"""Camera: a camera that flies freely through a furnished room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from astra_gym.actions import CAMERA
from astra_gym.envs.base import AstraEnv
from astra_gym.envs.released import is_released


class AstraCameraEnv(AstraEnv):
    """
    ## Description
    A camera that moves and turns freely in a room with coloured walls, posters and plain furniture. One wall carries
    the target, a glowing magenta square with an orange middle. No renderer runs here: a video world model, trained on
    flights through rooms drawn by MuJoCo, makes the next block of video from its own past and the action. What it has
    learned is what happens, including its mistakes. The ground truth is `AstraSim/Camera-v0`, which has the same
    interface and can take this environment's place.

    ```python
    import gymnasium as gym
    env = gym.make("astra_gym:AstraCamera-v0")
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    ```

    ## Action Space
    `Box([-1, -1, -1, -1.2, -1.2, -0.6], [1, 1, 1, 1.2, 1.2, 0.6], (6,), float32)`: velocities and turning rates along
    the camera's own axes. One step holds the action for a block of 4 frames at 20 frames/s: 0.2 s.

    | Num | Action | Min | Max | Unit |
    |-----|--------|-----|-----|------|
    | 0 | right | -1 | 1 | m/s |
    | 1 | up | -1 | 1 | m/s |
    | 2 | forward | -1 | 1 | m/s |
    | 3 | turn left | -1.2 | 1.2 | rad/s |
    | 4 | look up | -1.2 | 1.2 | rad/s |
    | 5 | roll | -0.6 (clockwise) | 0.6 (anticlockwise) | rad/s |

    The model reads the action as the released Astra weights do: as the relative pose that it makes in one block.
    In the flights that it learned from, a ball of 0.25 m about the camera slides along walls and furniture, and the
    camera neither looks up or down by more than 60 degrees nor leans by more than 30.
    Values out of bounds are clipped. A wrong shape or a number that is not finite raises a `ValueError`.
    `gymnasium.wrappers.RescaleAction` normalises the space for learning.

    ## Observation Space
    `obs_type` chooses one of three views of the newest block:

    | obs_type | Space | Content |
    |----------|-------|---------|
    | `"block"` (default) | `Box(0, 255, (4, 64, 64, 3), uint8)` | its 4 RGB frames, oldest first |
    | `"frame"` | `Box(0, 255, (64, 64, 3), uint8)` | its newest RGB frame |
    | `"latent"` | `Box(-16, 16, (C, 8, 8), float32)` | the latent frame that the model works on |

    A latent's channels have unit variance over real frames; values out of bounds, which are rare, are clipped.
    The picture is 77 degrees wide and high.

    ## Rewards
    How close the camera is to the goal view, 1.3 m straight in front of the target, as a head of the model reads it
    from the generated frames: an estimate of the simulator's reward, which sums over the block's 4 frames

    `seen * exp(-(angle / 30 deg)^2) / (1 + (distance / 1.2 m)^2)`,

    the share of the target that is within the picture and not hidden, the angle between the line of sight and the
    target's middle, and the distance from the goal view. It is 4 a step at the goal view and 0 out of the target's
    sight.

    ## Starting State
    A real beginning of a flight, one of the bank that comes with the world. `reset(seed=...)` draws it;
    `reset(options=...)` can name another beginning, with at most one of:

    - `"start"`: place in the bank, an integer from 0.
    - `"image"`: a picture, `uint8 (H, W, 3)` or the path of a file. The world stood still in it for one block.
    - `"video"`: at least 4 frames at 20 frames/s, oldest first, `uint8 (T, H, W, 3)` or the path of a file. The oldest
      frames that make no whole block are dropped, as are those beyond the world's memory. With it may come `"actions"`,
      the action that led to each block, `float (T // 4, 6)`; they are unknown if left out.

    Pictures are cropped to their central square and scaled to 64x64.

    ## Episode End
    - Termination: never; no flight that the model learned from ends by itself.
    - Truncation: after 100 steps (20 s); `gym.make(..., max_episode_steps=...)` changes it, -1 is no limit.

    ## Arguments
    ```python
    gym.make("AstraCamera-v0", world="small", render_mode=None, obs_type="block", device="cpu", dtype=None,
             num_inference_steps=None, guidance_scale=None, temperature=None, info_routing=False,
             compiled=False, starts=None)
    ```

    - `world`: name of a bundled world, or the folder of one. The folder of a converted released model makes
      :class:`astra_gym.envs.released_camera.AstraReleasedCameraEnv`, a camera in any scene that a picture shows, with
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
    | W, S | forward, backward 1 |
    | A, D | left, right 1 |
    | E, Q | up, down 1 |
    | left, right | turn left, right 1 |
    | up, down | look up, down 0.8 |

    Opposite keys cancel, no key stands still.

    ## Version History
    - v0: first version
    """

    modality = CAMERA
    simulator_id = "AstraSim/Camera-v0"

    def __new__(cls, world: str | Path = "small", **arguments: Any) -> Any:
        """The released weights have a camera of their own.

        It is :class:`~astra_gym.envs.released_camera.AstraReleasedCameraEnv`.
        """
        if is_released(world):
            from astra_gym.envs.released_camera import AstraReleasedCameraEnv

            return AstraReleasedCameraEnv(world, **arguments)
        return super().__new__(cls)
