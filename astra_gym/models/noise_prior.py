"""Which noise may make the next latent frame: what a world draws from, so that it chooses among futures.

It sees the action. What a model may hear from its noise it need not learn from the action: noise that is drawn without
regard to it says that all goes on as before, and the world obeys by half. Lest it take for the action's doing what
recorded actions merely foretell (who brakes is about to see a bend), let it learn from those who act by chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astra_gym.models.base import ConfigMixin, ModelMixin, register_to_config

NARROWEST, WIDEST = -4.0, 2.0
"""Logarithms of deviations."""


def log_density(noise: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Logarithm of the density ``(...)`` of ``noise (..., C)`` under normal numbers of ``mean, deviation (..., C)``."""
    each = -0.5 * ((noise - mean) / deviation).square() - deviation.log() - 0.5 * math.log(2 * math.pi)
    return each.sum(-1)


def mixture_log_density(noise: Tensor, weights: Tensor, means: Tensor, deviations: Tensor) -> Tensor:
    """Logarithm of the density ``(N,)`` of ``noise (N, C)`` under a mixture as :class:`NoisePrior` returns it."""
    return torch.logsumexp(weights + log_density(noise[:, None], means, deviations), 1)


class NoisePrior(ModelMixin, ConfigMixin):
    """A mixture of normal distributions of the noise that a frame is made from, one number for each latent channel.

    It is learned with the noise that an encoder made of true frames, see :mod:`astra_gym.training.coupling`.

    Args:
        latent_channels: C.
        latent_size: h and w.
        feature_dim: width of the transformer's features.
        action_dim: width of the action code; 0 for a prior that does not see the action.
        hidden_dim: width of the hidden layers.
        components: of the mixture, K.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int,
        latent_size: Sequence[int],
        feature_dim: int,
        action_dim: int = 0,
        hidden_dim: int = 384,
        components: int = 64,
    ):
        super().__init__()
        width = hidden_dim // 4
        self.first = nn.Conv2d(latent_channels, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(feature_dim)
        places = math.prod((side + 1) // 2 for side in latent_size)
        self.action = nn.Linear(action_dim, hidden_dim, bias=False) if action_dim else None
        if self.action is not None:
            nn.init.zeros_(self.action.weight)
        self.network = nn.Sequential(
            nn.Linear(width * places + feature_dim, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, components * (1 + 2 * latent_channels)),
        )

    def forward(self, features: Tensor, previous: Tensor, code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The distribution for the next frame.

        Args:
            features: of the frame before it, ``(N, feature_dim)``.
            previous: latents of the frame before it, ``(N, C, h, w)``.
            code: of the action that leads to it, ``(N, action_dim)``.

        Returns:
            Logarithms of the components' weights ``(N, K)``, their means and deviations ``(N, K, C)``.
        """
        components, channels = self.config.components, self.config.latent_channels
        seen = F.silu(self.second(F.silu(self.first(previous)))).flatten(1)
        enter, *layers = self.network
        hidden = enter(torch.cat([seen, self.norm(features)], 1))
        if self.action is not None:
            hidden = hidden + self.action(code)
        for layer in layers:
            hidden = layer(hidden)
        weights, means, deviations = hidden.float().split([components, components * channels, components * channels], 1)
        shape = (-1, components, channels)
        return weights.log_softmax(1), means.view(shape), deviations.view(shape).clamp(NARROWEST, WIDEST).exp()

    def sample(
        self,
        features: Tensor,
        previous: Tensor,
        code: Tensor,
        uniform: Tensor,
        normal: Tensor,
        temperature: Tensor | None = None,
    ) -> Tensor:
        """Draw noise, as Ha and Schmidhuber (2018, arXiv 1803.10122) draw what comes next.

        Args:
            features: of the frame before, ``(N, feature_dim)``.
            previous: latents of the frame before, ``(N, C, h, w)``.
            code: of the action that leads to the next, ``(N, action_dim)``.
            uniform: numbers in [0, 1) that choose a component, ``(N,)``.
            normal: numbers ``(N, C)`` that choose within it.
            temperature: ``(N,)``, above 0: the lower, the more often the likeliest component, and the closer to its
                mean (variance times temperature); 1 where it is left out.

        Returns:
            ``(N, C)``.
        """
        weights, means, deviations = self(features, previous, code)
        if temperature is not None:
            weights = (weights / temperature[:, None]).log_softmax(1)
            normal = temperature[:, None].sqrt() * normal
        passed = weights.exp().cumsum(1)[:, :-1] <= uniform[:, None]
        chosen = passed.sum(1)[:, None, None].expand(-1, 1, means.shape[2])
        mean, deviation = (each.gather(1, chosen)[:, 0] for each in (means, deviations))
        return mean + deviation * normal
