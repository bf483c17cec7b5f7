"""The Drone world of the released weights: a flying camera that stays level."""

from __future__ import annotations

from astra_gym.envs.released import ReleasedEnv
from astra_gym.released_actions import DRONE


class AstraReleasedDroneEnv(ReleasedEnv):
    """
    ## Description
    A drone whose camera looks forward and stays level, on the released Astra weights, which saw drones as modality
    "sekai". The weights do not come with this package: `astra-gym convert` makes the folder that `world` names, and
    with it `AstraDrone-v0` is this environment.

    ```python
    import gymnasium as gym
    from astra_gym.rewards import GoalImage
    arguments = {"prompt": "a valley", "image": "valley.png", "reward_fn": GoalImage(goal)}
    env = gym.make("astra_gym:AstraDrone-v0", world="astra", **arguments)
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    ```

    ## Action Space
    `Box([-5, -5, -5, -0.5], [5, 5, 5, 0.5], (4,), float32)`, along the drone's own axes.

    | Num | Action | Unit |
    |-----|--------|------|
    | 0 | forward | m/s |
    | 1 | left | m/s |
    | 2 | up | m/s |
    | 3 | turn left | rad/s |

    A scene has no known scale: 10 m are taken as one of its units, so 1.5 m/s is the speed of the released presets.
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
    - Truncation: after 25 steps; `gym.make(..., max_episode_steps=...)` changes it.

    ## Arguments
    See :class:`astra_gym.envs.released.ReleasedEnv`.

    ## Info
    - `"frame"`: frames generated since the beginning.
    - `"routing"`, only with `info_routing=True`: the weight of each action expert, zeros at reset.

    ## Version History
    - v0: first version
    """

    modality = DRONE
