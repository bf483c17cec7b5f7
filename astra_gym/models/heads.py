"""Reward and termination, read from the features of a generated latent frame and the action that led to it."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


class RewardHeads(ModelMixin, ConfigMixin):
    """A small network for the reward of a block and the logit of its ending the episode.

    Args:
        feature_dim: width of the transformer's features.
        action_dim: width of the action code.
        hidden_dim: width of the hidden layer.
        reward_mean, reward_std: of the training data's rewards a block; the network predicts in these units.
    """

    @register_to_config
    def __init__(
        self,
        feature_dim: int,
        action_dim: int,
        hidden_dim: int = 256,
        reward_mean: float = 0.0,
        reward_std: float = 1.0,
    ):
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(feature_dim + action_dim, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, hidden_dim), nn.SiLU()
        )
        self.reward = nn.Linear(hidden_dim, 1)
        self.termination = nn.Linear(hidden_dim, 1)

    def forward(self, features: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``(..., feature_dim)`` and action codes to reward in standard units and termination logit."""
        hidden = self.network(torch.cat([features, code], -1))
        return self.reward(hidden).squeeze(-1), self.termination(hidden).squeeze(-1)

    def reward_units(self, standard: Tensor) -> Tensor:
        """Predicted standard units to the environment's reward."""
        return standard * self.config.reward_std + self.config.reward_mean
