"""Mixture of action experts: a projector per modality, a router, and experts that speak to every transformer block.

The way of an action: ``ActionEncoder`` turns a row into a code and routes it; in each block ``ActionExperts`` turns
code and routing into the vector that the block's tokens receive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RoutedActions(NamedTuple):
    """Actions after projector and router."""

    code: Tensor
    """(..., code_dim): the action in the space that all modalities share."""
    weights: Tensor
    """(..., experts): the weight of each expert, zero outside the top k, summing to one."""
    probabilities: Tensor
    """(..., experts): the router's softmax before the choice of the top k."""


class ActionEncoder(nn.Module):
    """Projector per modality and the router over experts.

    Args:
        modalities: row length of each modality, in the order of their fixed experts.
        code_dim: width of the shared action space.
        hidden_dim: width of the projectors' hidden layer; None makes them one linear layer, as in the released model.
        num_experts: experts to route to.
        top_k: experts that an action may use.
        routing: "learned", or "fixed": modality i uses expert i, as the released weights do.
    """

    def __init__(
        self,
        modalities: dict[str, int],
        code_dim: int,
        hidden_dim: int | None,
        num_experts: int,
        top_k: int,
        routing: str,
    ):
        super().__init__()
        if routing not in ("learned", "fixed"):
            raise ValueError(f"routing: got {routing!r}, allowed are 'learned' and 'fixed'")
        self.row_dims = dict(modalities)
        self.fixed = {name: i for i, name in enumerate(modalities)} if routing == "fixed" else None
        self.top_k, self.num_experts = top_k, num_experts
        self.projectors = nn.ModuleDict(
            {
                name: nn.Linear(row_dim, code_dim)
                if hidden_dim is None
                else nn.Sequential(nn.Linear(row_dim, hidden_dim), nn.SiLU(), nn.Linear(hidden_dim, code_dim))
                for name, row_dim in modalities.items()
            }
        )
        self.router = nn.Linear(code_dim, num_experts)

    def forward(self, rows: Tensor, modality: str | Sequence[str]) -> RoutedActions:
        """Project and route rows ``(..., row_dim)`` of one modality.

        With a sequence of names, one for each ``rows[i]``, modalities may be mixed; shorter rows are padded at the end.
        """
        names = [modality] if isinstance(modality, str) else modality
        if unknown := [name for name in names if name not in self.projectors]:
            raise ValueError(f"modality: got {unknown[0]!r}, this model knows {list(self.projectors)}")
        if len(set(names)) == 1:
            code = self.projectors[names[0]](rows[..., : self.row_dims[names[0]]])
        else:
            code = self._project_mixed(rows, names)
        if self.fixed is not None:
            expert = torch.tensor([self.fixed[name] for name in names], device=code.device)
            expert = expert.reshape(-1, *[1] * (code.ndim - 2)).expand(code.shape[:-1])
            weights = F.one_hot(expert, self.num_experts).to(code.dtype)
            return RoutedActions(code, weights, weights)
        probabilities = self.router(code).float().softmax(-1)
        top, index = probabilities.topk(self.top_k, -1)
        weights = torch.zeros_like(probabilities).scatter(-1, index, top / top.sum(-1, keepdim=True))
        return RoutedActions(code, weights.to(code.dtype), probabilities)

    def _project_mixed(self, rows: Tensor, names: Sequence[str]) -> Tensor:
        places: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            places.setdefault(name, []).append(i)
        codes = [self.projectors[name](rows[index, ..., : self.row_dims[name]]) for name, index in places.items()]
        order = torch.tensor([i for index in places.values() for i in index], device=rows.device)
        return torch.cat(codes)[order.argsort()]


class ActionExperts(nn.Module):
    """One block's experts, each a linear map from the action code to the transformer's width."""

    def __init__(self, num_experts: int, code_dim: int, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_experts, dim, code_dim) * code_dim**-0.5)
        self.bias = nn.Parameter(torch.zeros(num_experts, dim))

    def forward(self, actions: RoutedActions) -> Tensor:
        """The weighted sum of the experts' outputs, ``(..., dim)``."""
        outputs = torch.einsum("...c,edc->...ed", actions.code, self.weight) + self.bias
        return torch.einsum("...e,...ed->...d", actions.weights, outputs)


@torch.no_grad()
def join_experts(layers: Sequence[ActionExperts]) -> Callable[[RoutedActions], Tensor]:
    """For inference: copies of several layers of experts as one, whose output is all of theirs, side by side."""
    experts, dim, code_dim = layers[0].weight.shape
    joined = ActionExperts(experts, code_dim, dim * len(layers))
    joined.weight = nn.Parameter(torch.cat([layer.weight for layer in layers], 1), False)
    joined.bias = nn.Parameter(torch.cat([layer.bias for layer in layers], 1), False)
    return joined.forward


def load_balancing_loss(actions: RoutedActions) -> Tensor:
    """Switch Transformer's auxiliary loss (arXiv 2101.03961, eq. 4); 1 when all experts are used alike."""
    weights, probabilities = actions.weights.flatten(0, -2).float(), actions.probabilities.flatten(0, -2)
    return weights.shape[-1] * (weights.mean(0) * probabilities.mean(0)).sum()


def specialisation_loss(actions: RoutedActions) -> Tensor:
    """Mean entropy of the router's choice, in units of that of no choice at all: 0 when it is always sure."""
    probabilities = actions.probabilities
    entropy = -(probabilities * probabilities.clamp(min=1e-9).log()).sum(-1).mean()
    return entropy / math.log(max(2, probabilities.shape[-1]))  # one expert is never a choice
