"""The Manipulation world of the released weights: an arm's end effector, seen from outside."""

from __future__ import annotations

from astra_gym.envs.released import ReleasedEnv
from astra_gym.released_actions import MANIPULATION


class AstraReleasedManipulationEnv(ReleasedEnv):
    """
    ## Description
    A robot arm, on the released Astra weights (modality "openx"). The weights do not come with this package:
    `astra-gym convert` makes the folder that `world` names, and with it `AstraManipulation-v0` is this environment.

    ```python
    import gymnasium as gym
    from astra_gym.rewards import GoalImage
    arguments = {"prompt": "a robot arm pushes a block", "image": "table.png", "reward_fn": GoalImage(goal)}
    env = gym.make("astra_gym:AstraManipulation-v0", world="astra", **arguments)
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    ```

    ## Action Space
    `Box((6,), float32)`: motion of the end effector in each latent frame, 0.2 s. The released model was told of no
    gripper.

    | Num | Action | Min | Max | Unit |
    |-----|--------|-----|-----|------|
    | 0, 1, 2 | dx, dy, dz | -0.05 | 0.05 | m |
    | 3, 4, 5 | roll, pitch, yaw | -0.25 | 0.25 | rad |

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
    - Truncation: after 50 steps; `gym.make(..., max_episode_steps=...)` changes it.

    ## Arguments
    See :class:`astra_gym.envs.released.ReleasedEnv`.

    ## Info
    - `"frame"`: frames generated since the beginning.
    - `"routing"`, only with `info_routing=True`: the weight of each action expert, zeros at reset.

    ## Version History
    - v0: first version
    """

    modality = MANIPULATION
