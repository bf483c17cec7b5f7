"""Reward and termination, read from the features of a generated latent frame and the action that led to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astra_gym.models.base import ConfigMixin, ModelMixin, register_to_config


class EndingNetwork(nn.Module):
    """What else speaks for an end, as a number that is added to a logit: 0 until it learns."""

    def __init__(self, in_dim: int, hidden_dim: int):
        super().__init__()
        self.hidden = nn.Linear(in_dim, hidden_dim)
        self.dropout = nn.Dropout(0.3)
        self.out = nn.Linear(hidden_dim, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, seen: Tensor) -> Tensor:
        """``(..., in_dim)`` to ``(...)``."""
        return self.out(self.dropout(F.silu(self.hidden(seen)))).squeeze(-1)


class RewardHeads(ModelMixin, ConfigMixin):
    """A small network for the reward of a block and the logit of its ending the episode.

    Args:
        feature_dim: width of the transformer's features.
        action_dim: width of the action code.
        hidden_dim: width of the hidden layer.
        rewards: for each scenario, mean and standard deviation of the training data's rewards a block; the network
            predicts in these units.
        ending_dims: for the scenarios that have a second network of their own, whose word on what ends an episode is
            added to the first one's, its width. It learns from endings alone (:mod:`astra_gym.training.endings`).
    """

    @register_to_config
    def __init__(
        self,
        feature_dim: int,
        action_dim: int,
        hidden_dim: int = 256,
        rewards: dict[str, tuple[float, float]] | None = None,
        ending_dims: dict[str, int] | None = None,
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
        self.endings = nn.ModuleDict(
            {name: EndingNetwork(feature_dim + action_dim, width) for name, width in (ending_dims or {}).items()}
        )

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
        reward, ending = (layer(hidden).gather(-1, index).squeeze(-1) for layer in (self.reward, self.termination))
        for name, network in self.endings.items():
            if own := [i for i, scenario in enumerate(scenarios) if scenario == name]:
                places = torch.tensor(own, device=seen.device)
                ending = ending.index_add(0, places, network(seen[places]))
        return reward, ending

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
