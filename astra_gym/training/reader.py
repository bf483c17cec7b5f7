"""A reader of actions from latent frames: what makes generated frames show the action as plainly as real ones do.

How a frame differs from the one before it by the action is a small part of a squared error, and the smaller the longer
ago the truth was. The reader learns from real frames alone which action leads from one to the next; generated frames
are pulled until it reads from them what it reads from the real ones in their place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

LEAST_DEVIATION = 0.02
"""Of a number of rows, where they hold about one; what deviates less is always the same and is not read."""


class ActionReader(nn.Module):
    """Actions, as the model is told them, from pairs of latent frames.

    Args:
        latent_channels: C.
        latent_size: h, w.
        deviations: for each scenario, the standard deviation of each number of its rows.
        width: channels of the hidden layers.
    """

    deviations: Tensor
    """float32 (scenarios, row_dim), infinite where nothing is read"""

    def __init__(self, latent_channels: int, latent_size: Sequence[int], deviations: Sequence[Tensor], width: int = 96):
        super().__init__()
        self.first = nn.Conv2d(2 * latent_channels, width, 3, padding=1)
        self.scenario = nn.Embedding(len(deviations), width)
        self.layers = nn.Sequential(
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width // 3, 1),
            nn.GELU(),
        )
        numbers = max(len(each) for each in deviations)
        self.last = nn.Linear(width // 3 * latent_size[0] * latent_size[1], numbers)
        table = torch.stack([F.pad(each, (0, numbers - len(each))) for each in deviations])
        self.register_buffer("deviations", table.where(table > LEAST_DEVIATION, torch.inf), persistent=False)

    def forward(self, previous: Tensor, latents: Tensor, scenario: Tensor) -> Tensor:
        """The frames before and those that the action led to, each ``(N, C, h, w)``, and the numbers of their scenarios
        ``(N,)``, to rows ``(N, row_dim)``, each number in its deviations."""
        seen = self.first(torch.cat([previous, latents], 1)) + self.scenario(scenario)[..., None, None]
        return self.last(self.layers(seen).flatten(1))

    def distance(self, read: Tensor, wanted: Tensor, scenario: Tensor) -> Tensor:
        """Mean squared difference, ``(N,)``, of those numbers that can be read, all in their deviations."""
        legible = self.deviations[scenario].isfinite().float()
        return ((read - wanted).square() * legible).sum(1) / legible.sum(1).clamp(min=1)


def reader_losses(
    reader: ActionReader,
    real: tuple[Tensor, Tensor],
    generated: tuple[Tensor, Tensor],
    rows: Tensor,
    scenario: Tensor,
    noise: Tensor,
) -> tuple[Tensor, Tensor]:
    """The reader's own loss on real frames, and how far what it reads from generated ones is from what it reads there.

    Args:
        reader: has gradients from the first loss alone; the frames generated have them from the second.
        real, generated: frames before and after, each ``(N, C, h, w)``, made by the same actions.
        rows: those actions, ``(N, row_dim)``.
        scenario: ``(N,)``.
        noise: normal, ``(N, 2, C, h, w)``; a tenth of it is added to both pairs, so that it reads what can be seen.
    """
    real, generated = ((before + 0.1 * noise[:, 0], after + 0.1 * noise[:, 1]) for before, after in (real, generated))
    wanted = reader(*real, scenario).float()
    fixed = {name: value.detach() for name, value in reader.named_parameters()}
    shown = functional_call(reader, fixed, (*generated, scenario)).float()
    rows = F.pad(rows, (0, wanted.shape[1] - rows.shape[1]))  # those of some scenarios are longer than all of these
    own = reader.distance(wanted, rows / reader.deviations[scenario], scenario)
    return own.mean(), reader.distance(shown, wanted.detach(), scenario).mean()
