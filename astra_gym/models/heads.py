"""Reward and termination, read from the features of a generated latent frame and the action that led to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astra_gym.models.base import ConfigMixin, ModelMixin, register_to_config


class EndingNetwork(nn.Module):
    """What else speaks for an end, for each scenario a number that is added to a logit: 0 until it learns."""

    def __init__(self, in_dim: int, hidden_dim: int, scenarios: int):
        super().__init__()
        self.hidden = nn.Linear(in_dim, hidden_dim)
        self.dropout = nn.Dropout(0.3)
        self.out = nn.Linear(hidden_dim, scenarios)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, seen: Tensor) -> Tensor:
        """``(..., in_dim)`` to ``(..., scenarios)``."""
        return self.out(self.dropout(F.silu(self.hidden(seen))))


class RewardHeads(ModelMixin, ConfigMixin):
    """A small network for the reward of a block and the logit of its ending the episode.

    Args:
        feature_dim: width of the transformer's features.
        action_dim: width of the action code.
        hidden_dim: width of the hidden layer.
        rewards: for each scenario, mean and standard deviation of the training data's rewards a block; the network
            predicts in these units.
        ending_dim: width of a second network, whose word on what ends an episode is added to the first one's; 0 for
            none. It begins as nothing, and can learn from rare endings without touching the rewards
            (:mod:`astra_gym.training.endings`).
    """

    @register_to_config
    def __init__(
        self,
        feature_dim: int,
        action_dim: int,
        hidden_dim: int = 256,
        rewards: dict[str, tuple[float, float]] | None = None,
        ending_dim: int = 0,
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
        self.endings = EndingNetwork(feature_dim + action_dim, ending_dim, len(rewards)) if ending_dim else None

    def forward(self, features: Tensor, code: Tensor, scenarios: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Reward in the scenario's standard units, and termination logit.

        Args:
            features: ``(B, ..., feature_dim)``.
            code: of the actions, ``(B, ..., action_dim)``.
            scenarios: of each of the B.
        """
        seen = torch.cat([features, code], -1)
        hidden = self.network(seen)
        index = self._index(scenarios, hidden).reshape(-1, *[1] * (hidden.ndim - 1)).expand(*hidden.shape[:-1], 1)
        ending = self.termination(hidden)
        if self.endings is not None:
            ending = ending + self.endings(seen)
        return self.reward(hidden).gather(-1, index).squeeze(-1), ending.gather(-1, index).squeeze(-1)

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
