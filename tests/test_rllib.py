"""RLlib builds the environments by their ids and learns in them."""

import numpy as np
import pytest

pytest.importorskip("ray")
ppo = pytest.importorskip("ray.rllib.algorithms.ppo")

from ray.rllib.connectors.env_to_module import FlattenObservations  # noqa: E402
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig  # noqa: E402


def environment_class(runner) -> str:
    return type(runner.env.unwrapped).__name__


@pytest.mark.parametrize(
    ("vectorize", "runners", "expected"),
    [("sync", 0, "SyncVectorEnv"), ("vector_entry_point", 1, "AstraVectorEnv")],
    ids=["single environments here", "a batch of worlds on a worker"],
)
def test_ppo_learns_by_id(two_workers, vectorize, runners, expected):
    config = (
        ppo.PPOConfig()
        .environment("astra_gym:AstraDrive-v0", env_config={"obs_type": "latent"})
        .env_runners(
            num_env_runners=runners,
            num_envs_per_env_runner=2,
            rollout_fragment_length=4,
            gym_env_vectorize_mode=vectorize,
            env_to_module_connector=lambda env, spaces, device: FlattenObservations(),
        )
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[16]))
        .training(train_batch_size_per_learner=8, minibatch_size=4, num_epochs=1)
    )
    algorithm = config.build_algo()
    try:
        results = algorithm.train()
        classes = algorithm.env_runner_group.foreach_env_runner(environment_class, local_env_runner=not runners)
    finally:
        algorithm.stop()
    assert classes == [expected]
    assert results["env_runners"]["num_env_steps_sampled"] == 8
    assert np.isfinite(results["learners"]["default_policy"]["total_loss"])
