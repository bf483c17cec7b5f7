"""Reward and termination, read from the features of a generated latent frame and the action that led to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from astra_gym.models.base import ConfigMixin, ModelMixin, register_to_config


class RewardHeads(ModelMixin, ConfigMixin):
    """A small network for the reward of a block and the logit of its ending the episode.

    Args:
        feature_dim: width of the transformer's features.
        action_dim: width of the action code.
        hidden_dim: width of the hidden layer.
        rewards: for each scenario, mean and standard deviation of the training data's rewards a block; the network
            predicts in these units.
    """

    @register_to_config
    def __init__(
        self,
        feature_dim: int,
        action_dim: int,
        hidden_dim: int = 256,
        rewards: dict[str, tuple[float, float]] | None = None,
    ):
        super().__init__()
        if not rewards:
            raise ValueError("rewards: name at least one scenario, as {name: (mean, standard deviation)}")
        self.scenarios = {name: i for i, name in enumerate(sorted(rewards))}  # a saved config does not keep their order
        self.network = nn.Sequential(
            nn.Linear(feature_dim + action_dim, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, hidden_dim), nn.SiLU()
        )
        self.reward = nn.Linear(hidden_dim, len(rewards))
        self.termination = nn.Linear(hidden_dim, len(rewards))

    def forward(self, features: Tensor, code: Tensor, scenarios: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Reward in the scenario's standard units, and termination logit.

        Args:
            features: ``(B, ..., feature_dim)``.
            code: of the actions, ``(B, ..., action_dim)``.
            scenarios: of each of the B.
        """
        hidden = self.network(torch.cat([features, code], -1))
        index = self._index(scenarios, hidden).reshape(-1, *[1] * (hidden.ndim - 1)).expand(*hidden.shape[:-1], 1)
        return self.reward(hidden).gather(-1, index).squeeze(-1), self.termination(hidden).gather(-1, index).squeeze(-1)

    def reward_scale(self, scenarios: Sequence[str], like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scenarios' rewards, each ``(B, 1, ...)``, as many axes as ``like``."""
        scale = torch.tensor([self.config.rewards[name] for name in scenarios], device=like.device)
        mean, std = scale.reshape(len(scale), 2, *[1] * (like.ndim - 1)).unbind(1)
        return mean, std

    def reward_units(self, standard: Tensor, scenarios: Sequence[str]) -> Tensor:
        """Predicted standard units ``(B, ...)`` to the environments' rewards."""
        mean, std = self.reward_scale(scenarios, standard)
        return standard.float() * std + mean

    def _index(self, scenarios: Sequence[str], like: Tensor) -> Tensor:
        return torch.tensor([self.scenarios[name] for name in scenarios], device=like.device)
