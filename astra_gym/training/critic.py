"""A critic of generated latent frames: what keeps a world that takes one denoising step sharp.

From pure noise, the squared error alone asks for the mean of all that may come, which is blurred, and the more so the
longer the world goes on from its own frames. The critic learns to tell generated latent frames from real ones at every
place; the transformer is moved a little way towards what the critic takes for real. Beside it, a loss without an
adversary asks for as much detail as real frames have.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LatentCritic(nn.Module):
    """How real a latent frame of a scenario looks after the one before it: a number for each place.

    Args:
        latent_channels: C.
        scenarios: how many scenarios there are.
        width: channels of the hidden layers.
    """

    def __init__(self, latent_channels: int, scenarios: int, width: int = 128):
        super().__init__()
        self.first = nn.Conv2d(2 * latent_channels, width, 3, padding=1)
        self.scenario = nn.Embedding(scenarios, width)
        self.layers = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 1, 1),
        )

    def forward(self, latents: Tensor, previous: Tensor, scenario: Tensor) -> Tensor:
        """Latent frames and those before them, each ``(N, C, h, w)``, and the numbers of their scenarios ``(N,)``, to
        scores ``(N, 1, h, w)``: real above 0."""
        seen = self.first(torch.cat([latents, previous], 1))
        return self.layers(seen + self.scenario(scenario)[..., None, None])


def critic_loss(
    critic: LatentCritic,
    real: Tensor,
    generated: Tensor,
    previous: Tensor,
    scenario: Tensor,
    noise: Tensor,
    smoothness: float = 0.005,
) -> tuple[Tensor, Tensor]:
    """Hinge loss of the critic, which must not change fast between a real frame and the same with a little noise; and
    how well it can tell real from generated on average: from 0, not at all, to 1, by the whole margin.

    ``noise (N, 3, C, h, w)`` is normal; two parts of it also blur the border between real and generated.
    """
    real, generated = real + 0.1 * noise[:, 0], generated.detach() + 0.1 * noise[:, 1]
    shown = torch.cat([real, generated, real + 0.1 * noise[:, 2]])
    scores = critic(shown, previous.repeat(3, 1, 1, 1), scenario.repeat(3)).float()
    of_real, of_generated, of_neighbour = scores.chunk(3)
    steepness = (of_neighbour - of_real).square().mean() / 0.1**2
    loss = F.relu(1 - of_real).mean() + F.relu(1 + of_generated).mean() + smoothness * steepness
    return loss, ((of_real - of_generated).detach().mean() / 2).clamp(0, 1)


def towards_real(critic: LatentCritic, generated: Tensor, previous: Tensor, scenario: Tensor) -> Tensor:
    """The direction in which generated frames ``(N, C, h, w)`` score better, with unit root-mean-square over all."""
    leaf = generated.detach().requires_grad_()
    with torch.enable_grad():
        scores = critic(leaf, previous, scenario).float()
        (direction,) = torch.autograd.grad(scores.mean(), leaf)
    direction = direction.float()
    return direction * direction.square().mean().add(1e-20).rsqrt()


def detail_loss(generated: Tensor, real: Tensor, scenario: Tensor) -> Tensor:
    """How far generated frames ``(N, C, h, w)`` are from having as much detail as real ones, whichever it is.

    Detail is the energy of what differs from place to place, in each channel, over all frames of a scenario ``(N,)``;
    the loss is the squared logarithm of its ratio, a mean over channels and scenarios. Under ``accelerate launch`` each
    process compares its own share of the batch.
    """
    losses = []
    for number in scenario.unique():
        of_generated, of_real = (_detail(latents[scenario == number]) for latents in (generated, real))
        losses.append((of_generated / of_real).log().square().mean())
    return torch.stack(losses).mean()


def _detail(latents: Tensor) -> Tensor:
    smooth = F.avg_pool2d(latents, 3, stride=1, padding=1, count_include_pad=False)
    return (latents - smooth).square().mean((0, 2, 3)) + 1e-4
