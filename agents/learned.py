"""Learned policies as small files of weights; those that come with the package are in ``pretrained/``.

A .zip of Stable-Baselines3 is made to go on learning from, and holds Python objects. A file written here holds what
acts and nothing else: the weights of PPO's policy in half precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from gymnasium import spaces
from safetensors import SafetensorError, safe_open
from stable_baselines3.common.policies import ActorCriticCnnPolicy

from astra_gym.agents.features import FEATURES, features_name
from astra_gym.agents.sb3 import algorithm_of, load_model
from astra_gym.files import replacing, save_tensors

SHIPPED = Path(__file__).parent / "pretrained"
"""Folder of the policies that come with the package, ``<scenario>.safetensors``."""


@dataclass
class ExportAgentArgs:
    """Write what acts of a policy that PPO has learned (.zip) as a small file of weights (.safetensors)."""

    policy: tyro.conf.Positional[Path] = Path("runs/agent/policy.zip")
    """The .zip of train-agent."""
    output: Path | None = None
    """File to write, which --agent takes; None writes it beside the policy."""


def export_agent(args: ExportAgentArgs) -> Path:
    """Write the file that ``args`` asks for and return it.

    Raises:
        ValueError: if the policy is not one of PPO on frames, or the file is not to end in .safetensors.
        FileNotFoundError: if there is no policy.
    """
    output = args.policy.with_suffix(".safetensors") if args.output is None else args.output
    if output.suffix != ".safetensors":
        raise ValueError(f"output: got {str(output)!r}, allowed are names that end in .safetensors")
    if not args.policy.is_file():
        raise FileNotFoundError(f"policy: there is no file {str(args.policy)!r}")
    if (algorithm := algorithm_of(args.policy)) != "ppo":
        raise ValueError(f"policy: {str(args.policy)!r} is of {algorithm}, allowed is ppo")
    model = load_model(args.policy)
    if (features := features_name(model.policy.features_extractor)) is None:
        raise ValueError(
            f"policy: {str(args.policy)!r} does not look with one of {list(FEATURES)}, as train-agent's do"
        )
    # Actor and critic see by the same network, which is listed for each of them again.
    values = model.policy.state_dict().items()
    weights = {name: value.half() for name, value in values if not name.startswith(("pi_", "vf_"))}
    with replacing(output) as unfinished:
        metadata = {"algorithm": algorithm, "timesteps": str(model.num_timesteps), "features": features}
        save_tensors(weights, unfinished, metadata)
    return output


def load_policy(path: Path, observations: spaces.Space, actions: spaces.Space) -> ActorCriticCnnPolicy:
    """The policy in a file that :func:`export_agent` wrote.

    Args:
        path: the file.
        observations, actions: spaces of an environment wrapped by :func:`astra_gym.agents.sb3.wrap_for_sb3`.

    Raises:
        ValueError: if it is no such file, or was learned with other spaces.
    """
    assert isinstance(observations, spaces.Box) and isinstance(actions, spaces.Box)
    try:
        with safe_open(path, "pt") as file:
            features = FEATURES[(file.metadata() or {}).get("features", "coarse")]
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        shared = {name: value for name, value in weights.items() if name.startswith("features_extractor.")}
        listed_again = {f"{who}_{name}": value for name, value in shared.items() for who in ("pi", "vf")}
        policy = ActorCriticCnnPolicy(observations, actions, lambda _: 0.0, features_extractor_class=features)
        policy.load_state_dict(weights | listed_again)
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise ValueError(
            f"agent: {str(path)!r} is no policy for observations {observations.shape} and {actions.shape[0]} controls "
            f"({' '.join(str(error).split())})"
        ) from error
    return policy.eval()


def shipped_agent(scenario: str) -> Path:
    """The file of the policy that comes with the package for a scenario.

    Raises:
        ValueError: if none does.
    """
    path = SHIPPED / f"{scenario}.safetensors"
    if not path.is_file():
        there = sorted(file.stem for file in SHIPPED.glob("*.safetensors"))
        raise ValueError(f"agent: none was learned for {scenario!r}, 'learned' can act in {', '.join(there)}")
    return path
