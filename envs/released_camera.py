"""The Camera world of the released weights: a free camera in any scene that a picture shows."""

from __future__ import annotations

from astra_gym.envs.released import ReleasedEnv
from astra_gym.released_actions import CAMERA


class AstraReleasedCameraEnv(ReleasedEnv):
    """
    ## Description
    A camera that flies through what a picture or a video shows, on the released Astra weights (modality "sekai"). The
    weights do not come with this package: `astra-gym convert` makes the folder that `world` names, and with it
    `AstraCamera-v0` is this environment.

    ```python
    import gymnasium as gym
    from astra_gym.rewards import GoalImage
    arguments = {"prompt": "a garden", "image": "garden.png", "reward_fn": GoalImage(goal)}
    env = gym.make("astra_gym:AstraCamera-v0", world="astra", **arguments)
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    ```

    ## Action Space
    `Box(-0.5, 0.5, (6,), float32)`: velocities and turning rates, along the camera's own axes.

    | Num | Action | Unit |
    |-----|--------|------|
    | 0 | right | scene units/s |
    | 1 | up | scene units/s |
    | 2 | forward | scene units/s |
    | 3 | turn left | rad/s |
    | 4 | look up | rad/s |
    | 5 | roll | rad/s |

    A scene has no known scale; the presets of the released model move at 0.15 units/s and turn at 0.15 rad/s.
    An action is held for the whole step. Values out of bounds are clipped. A wrong shape or a number that is not finite
    raises a `ValueError`. `gymnasium.wrappers.RescaleAction` normalises the space for learning.

    ## Observation Space
    `obs_type` chooses one of three views of the newest step; the video has 20 frames a second. After a picture, the
    first observation repeats it.

    | obs_type | Space | Content |
    |----------|-------|---------|
    | `"block"` (default) | `Box(0, 255, (4 * latents_per_step, height, width, 3), uint8)` | its frames, oldest first |
    | `"frame"` | `Box(0, 255, (height, width, 3), uint8)` | its newest frame |
    | `"latent"` | `Box(-16, 16, (latents_per_step, 16, height / 8, width / 8), float32)` | its latent frames |

    ## Rewards
    Those of `reward_fn(frames, latents, info)`, which must be given, since the released weights have no reward head:
    `astra_gym.rewards.GoalImage`, `astra_gym.rewards.CameraPath`, or a callable of your own.

    ## Starting State
    `reset(options={"image": ...})` or `{"video": ...}`, an array or a path; or what the environment was made with as
    `image=` or `video=`. It is scaled and cropped to `height` x `width`. "prompt" replaces the environment's prompt;
    with "video" may come "actions", one for each of its latent frames after the first (4 video frames).

    ## Episode End
    - Termination: never.
    - Truncation: after 100 steps; `gym.make(..., max_episode_steps=...)` changes it.

    ## Arguments
    See :class:`astra_gym.envs.released.ReleasedEnv`.

    ## Info
    - `"frame"`: frames generated since the beginning.
    - `"routing"`, only with `info_routing=True`: the weight of each action expert, zeros at reset.

    ## Version History
    - v0: first version
    """

    modality = CAMERA
