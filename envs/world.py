"""World: whatever a world of one's own was trained for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from astra_gym.envs.base import AstraEnv
from astra_gym.envs.released import is_released
from astra_gym.envs.vector import AstraVectorEnv


class AstraWorldEnv(AstraEnv):
    """
    ## Description
    A world that was learned from an environment of your own: any that Gymnasium can make, whose action is a bounded
    `Box` and that renders or observes pictures. `docs/tutorial.md` in the repository shows the way there. No physics
    engine runs here: a video world model makes the next block of video from its own past and the action. The ground
    truth is the environment that it was learned from, in blocks of frames
    (:func:`astra_gym.simulators.own.make_simulator`); its id is `env.unwrapped.simulator_id`.

    ```python
    import gymnasium as gym
    env = gym.make("astra_gym:AstraWorld-v0", world="runs/pendulum/bundle")
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    ```

    ## Action Space
    The learned environment's `Box`, as `float32`. One step holds the action for a block of 4 frames of that
    environment: 4 of its own steps. Values out of bounds are clipped. A wrong shape or a number that is not finite
    raises a `ValueError`.

    ## Observation Space
    `obs_type` chooses one of three views of the newest block:

    | obs_type | Space | Content |
    |----------|-------|---------|
    | `"block"` (default) | `Box(0, 255, (4, 64, 64, 3), uint8)` | its 4 RGB frames, oldest first |
    | `"frame"` | `Box(0, 255, (64, 64, 3), uint8)` | its newest RGB frame |
    | `"latent"` | `Box(-16, 16, (C, 8, 8), float32)` | the latent frame that the model works on |

    The picture is the largest centred square of the environment's own, scaled to 64x64.

    ## Rewards
    The sum of the environment's rewards over the 4 frames, as a head of the model reads it from the generated frames
    and the action.

    ## Starting State
    A moment of a held-out episode, in the midst of a stretch whose reward is at least average.
    `reset(seed=...)` draws it; `reset(options=...)` can name another beginning, with at most one of:

    - `"start"`: place in the world's bank of such moments, an integer from 0.
    - `"image"`: a picture, `uint8 (H, W, 3)` or the path of a file. The world stood still in it for one block.
    - `"video"`: at least 4 frames at the environment's own rate, oldest first, `uint8 (T, H, W, 3)` or the path of a
      file. With it may come `"actions"`, the action that led to each block, `float (T // 4, A)`.

    ## Episode End
    - Termination: the model judges that a block ends the episode, if episodes of the training data were ended by the
      environment at all.
    - Truncation: after 250 steps; `gym.make(..., max_episode_steps=...)` changes it, -1 is no limit. Choose what the
      environment's own limit is, divided by 4.

    ## Arguments
    ```python
    gym.make("AstraWorld-v0", world="small", scenario=None, render_mode=None, obs_type="block", device="cpu",
             dtype=None, num_inference_steps=None, guidance_scale=None, temperature=None, info_routing=False,
             compiled=False, starts=None)
    ```

    - `world`: folder of a world (`astra-gym train --output`), or name of a bundled one.
    - `scenario`: which of the world's scenarios, the name of its folder of data; None where the world has only one.
    - All others are those of :class:`astra_gym.envs.AstraDriveEnv`.

    `gym.make_vec("astra_gym:AstraWorld-v0", num_envs=32, world=...)` makes an
    :class:`astra_gym.envs.AstraVectorEnv`: many worlds that are stepped by one forward pass.

    ## Info
    - `"start"`: place in the bank where the episode began, -1 for a picture or a video.
    - `"routing"`, only with `info_routing=True`: the weight of each action expert in this step, `float32 (experts,)`,
      sum 1; zeros at reset.

    ## Keys
    Each moves one number of the action to its least or greatest value: left and right (or A and D) the first, down and
    up (S and W) the second, Q and E the third. Further numbers have none.

    ## Version History
    - v0: first version
    """

    def __init__(self, world: str | Path = "small", scenario: str | None = None, **arguments: Any):
        from astra_gym.bundles import WorldConfig, world_folder

        scenario = _chosen(world, scenario)
        config = WorldConfig.load(world_folder(world))
        self.modality = config.modality(scenario)
        self.simulator_id = config.simulator_id(scenario)
        super().__init__(world, **arguments)


def own_worlds(world: str | Path = "small", scenario: str | None = None, **arguments: Any) -> AstraVectorEnv:
    """What ``make_vec`` calls for ``AstraWorld-v0``."""
    return AstraVectorEnv(_chosen(world, scenario), world=world, **arguments)


def _chosen(world: str | Path, scenario: str | None) -> str:
    """The scenario that is meant.

    Raises:
        ValueError: if the world lacks it, or none is named and the world has several.
        FileNotFoundError: if there is no such world.
    """
    from astra_gym.bundles import scenarios_of

    if is_released(world):
        raise ValueError(f"world: {str(world)!r} is a released model; make AstraCamera-v0 or another of its ids")
    scenarios = scenarios_of(world)
    if scenario is None and len(scenarios) == 1:
        return scenarios[0]
    if scenario not in scenarios:
        raise ValueError(f"scenario: got {scenario!r}, the world {str(world)!r} has {scenarios}; name one of them")
    return scenario
