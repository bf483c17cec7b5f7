"""Several processes that train as one: each takes its share of every batch, and gradients are averaged; Muon's
iterations are shared out, too.

``accelerate launch --multi_gpu --num_processes N scripts/train_world.py ...`` starts them, on CPUs as well (accelerate
starts several processes on CPUs only so, or by MPI). N processes with a batch of B give what one process gives with a
batch of N * B, up to rounding and to the means that a loss takes over part of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn


class Draws:
    """Random numbers for one process's share of a batch.

    Each process draws for the whole batch, in the same order, and keeps its own rows: a step is the same however many
    processes share it.

    Args:
        generator: in the same state in every process.
        rank, count: which of how many processes this is.
    """

    def __init__(self, generator: torch.Generator, rank: int = 0, count: int = 1):
        self.generator, self.rank, self.count = generator, rank, count
        self.device = generator.device

    def own(self, size: int) -> slice:
        """This process's ``size`` rows of the whole batch."""
        return slice(self.rank * size, (self.rank + 1) * size)

    def rand(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """Uniform in [0, 1), of ``shape``, whose first dimension is this process's share of the batch."""
        whole = (self.count * shape[0], *shape[1:])
        return torch.rand(whole, generator=self.generator, device=self.device, dtype=dtype)[self.own(shape[0])]

    def randn(self, shape: Sequence[int]) -> Tensor:
        """Normal numbers, likewise."""
        whole = (self.count * shape[0], *shape[1:])
        return torch.randn(whole, generator=self.generator, device=self.device)[self.own(shape[0])]

    def integer(self, below: int) -> int:
        """One integer from 0, the same in every process."""
        return int(torch.randint(below, (1,), generator=self.generator, device=self.device))


def average_gradients(model: nn.Module, accelerator: Accelerator) -> None:
    """Replace every gradient by its mean over the processes."""
    if accelerator.num_processes == 1:
        return
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in weights:  # a process whose share lacks a scenario has no gradient for its projector
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    for gradient, mean in zip(gradients, _reduced(gradients, accelerator, "mean"), strict=True):
        gradient.copy_(mean)


def map_in_shares(
    function: Callable[[Tensor], Tensor], tensors: Sequence[Tensor], accelerator: Accelerator | None
) -> list[Tensor]:
    """``function``, which keeps shapes, of every tensor. Each process works some of them out and gets the others' from
    those that did; all must come with the same tensors."""
    if accelerator is None or accelerator.num_processes == 1:
        return [function(tensor) for tensor in tensors]
    largest_first = sorted(range(len(tensors)), key=lambda i: -tensors[i].numel())
    own = set(largest_first[accelerator.process_index :: accelerator.num_processes])
    results = [function(tensor) if i in own else torch.zeros_like(tensor) for i, tensor in enumerate(tensors)]
    return _reduced(results, accelerator, "sum")


def _reduced(tensors: Sequence[Tensor], accelerator: Accelerator, reduction: str) -> list[Tensor]:
    """The "mean" or "sum" of each tensor over the processes, all of them in one exchange."""
    flat = accelerator.reduce(torch.cat([tensor.flatten() for tensor in tensors]), reduction)
    assert isinstance(flat, Tensor)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]
