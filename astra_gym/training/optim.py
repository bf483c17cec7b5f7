"""Optimizers, learning-rate schedule and the moving average of weights."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from astra_gym.precision import computes_in_bf16
from astra_gym.training.parallel import map_in_shares


class Muon(torch.optim.Muon):
    """torch's Muon for weights of any shape, in bfloat16 or float32.

    Convolutions are updated as matrices of output by input. torch's own iteration always computes in bfloat16, which
    takes a processor without it fifty times as long as float32. Processes of one ``accelerator`` share the work.
    """

    def __init__(
        self,
        weights: list[nn.Parameter],
        lr: float,
        weight_decay: float,
        bf16: bool,
        accelerator: Accelerator | None = None,
    ):
        self.weights, self.dtype = weights, torch.bfloat16 if bf16 else torch.float32
        self.accelerator = accelerator
        super().__init__(
            [nn.Parameter(weight.detach().flatten(1)) for weight in weights], lr=lr, weight_decay=weight_decay
        )

    @torch.no_grad()
    def step(self, closure=None):
        """One update; ``closure`` is not supported."""
        (group,) = self.param_groups
        matrices, directions = [], []
        for weight, matrix in zip(self.weights, group["params"], strict=True):
            if weight.grad is None:
                continue
            gradient = weight.grad.flatten(1)
            state = self.state[matrix]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            average = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
            matrices.append(matrix)
            directions.append(gradient.lerp(average, group["momentum"]))
        updates = map_in_shares(lambda one: _orthogonal(one, group, self.dtype), directions, self.accelerator)
        for matrix, update in zip(matrices, updates, strict=True):
            rows, columns = matrix.shape
            matrix.mul_(1 - group["lr"] * group["weight_decay"])
            matrix.add_(update, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for weight in self.weights:
            weight.grad = None


def _orthogonal(matrix: Tensor, group: dict[str, Any], dtype: torch.dtype) -> Tensor:
    """``matrix`` with singular values near 1: the Newton-Schulz iteration of Muon (Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon/)."""
    a, b, c = group["ns_coefficients"]
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).to(dtype)
    x = x / x.norm().clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.T).to(matrix.dtype)


FAST_RATE = 4.0
"""The rate of AdamW of critic and prior as a multiple of the others': they have to keep up with what Muon moves."""


def _is_hidden_matrix(name: str, weight: nn.Parameter) -> bool:
    if weight.ndim == 4:
        return min(weight.shape[0], weight[0].numel()) >= 16
    return weight.ndim == 2 and "blocks." in name and "scale_shift_table" not in name


def make_optimizers(
    model: nn.Module,
    lr: float,
    muon_lr: float = 0.0,
    weight_decay: float = 0.01,
    bf16: bool | None = None,
    accelerator: Accelerator | None = None,
):
    """AdamW, and Muon for convolutions and the transformer blocks' matrices where ``muon_lr`` is positive; parameters
    named ``critic.*`` or ``prior.*`` have AdamW at :data:`FAST_RATE` times its rate.

    Every parameter group carries its peak rate as ``peak_lr``. ``bf16`` is whether Muon computes in bfloat16, None for
    where the device is made for it. Processes of one ``accelerator`` share Muon's work.
    """
    muon: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    fast: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        if name.startswith(("critic.", "prior.")):
            fast.append(weight)
        elif muon_lr and _is_hidden_matrix(name, weight):
            muon.append(weight)
        else:
            (decayed if weight.ndim >= 2 else plain).append(weight)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    groups += [{"params": fast, "weight_decay": weight_decay, "lr": FAST_RATE * lr}] if fast else []
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)]
    if muon:
        optimizers.append(Muon(muon, muon_lr, weight_decay, computes_in_bf16(muon[0].device, bf16), accelerator))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def learning_rate_factor(step: int, total: int, warmup: int, decay_share: float) -> float:
    """Linear warm-up, a plateau, and a linear decay to zero over the last ``decay_share`` of ``total`` steps."""
    decay_steps = max(1, int(decay_share * total))
    return min(1.0, (step + 1) / max(1, warmup), (total - step) / decay_steps)


class MovingAverage:
    """Exponential moving average of a module's floating-point parameters; buffers are copied."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.values = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        parameters = dict(model.named_parameters())
        for name, value in model.state_dict().items():
            if name in parameters:
                self.values[name].lerp_(value, 1 - decay)
            else:
                self.values[name].copy_(value)

    def state_dict(self) -> dict:
        return {"updates": self.updates, "values": self.values}

    def load_state_dict(self, state: dict) -> None:
        self.updates = state["updates"]
        for name, value in state["values"].items():
            self.values[name].copy_(value)

    def swap(self, model: nn.Module) -> dict[str, Tensor]:
        """Put the averaged weights into ``model`` and return those that were there."""
        current = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.values)
        return current
