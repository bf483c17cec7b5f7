"""The training loop that every stage shares: schedule, averaging, logs, validation, atomic checkpoints, resuming."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from astra_gym.files import replacing
from astra_gym.training.optim import MovingAverage, learning_rate_factor, make_optimizers
from astra_gym.training.parallel import Draws, average_gradients


@dataclass
class LoopConfig:
    """How long and how fast to train one stage."""

    steps: int
    """Optimizer steps in all."""
    lr: float
    """Peak rate of AdamW."""
    muon_lr: float = 0.0
    """Peak rate of Muon on convolutions and the transformer blocks' matrices; 0 leaves them to AdamW."""
    warmup: int = 100
    """Steps of linear warm-up."""
    decay_share: float = 0.4
    """Share of the steps over which the rate falls linearly to zero."""
    weight_decay: float = 0.01
    ema_decay: float = 0.998
    """Decay of the moving average of weights, which is what is validated and shipped."""
    clip_norm: float = 1.0
    """Longest gradient; a longer one is scaled down to it."""
    validate_every: int = 500
    checkpoint_every: int = 250
    seed: int | None = None
    """Of batches and noise; None takes the training's."""

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("warmup", 0), ("validate_every", 1), ("checkpoint_every", 1)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{name}: got {value}, allowed are whole numbers from {least}")
        if not 0 <= self.decay_share <= 1:
            raise ValueError(f"decay_share: got {self.decay_share}, must be from 0 to 1")


class Stage(Protocol):
    """One thing to train. Batches and noise come from ``draws`` alone, so that a step can be repeated exactly."""

    name: str
    bf16: bool
    """Whether it computes in bfloat16; the optimizer then does, too."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""

    def loss(self, step: int, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise at ``step`` and numbers to log."""

    def validate(self) -> dict[str, float]:
        """Numbers to log about the averaged weights, which are in ``model`` during the call."""


def save_atomically(state: dict, path: Path) -> None:
    """Write a checkpoint so that a kill at any moment leaves the old one or the new one, never a torn one."""
    with replacing(path) as unfinished:
        torch.save(state, unfinished)


def run_stage(stage: Stage, config: LoopConfig, folder: Path, device: torch.device, origin: str = "") -> None:
    """Train ``stage``, from its checkpoint in ``folder`` if there is one; its model ends with the averaged weights.

    What the checkpoint holds has been done with the settings of then; the steps that are left follow ``config``. Under
    ``accelerate launch`` every process takes its share of each batch; the first one validates, logs and saves.

    Args:
        stage: what to train.
        config: how long and how fast.
        folder: for the checkpoint and the logs.
        device: where the model is.
        origin: fingerprint of what earlier stages have made of what this one learns from.

    Raises:
        ValueError: if the checkpoint has another origin.
    """
    from torch.utils.tensorboard import SummaryWriter

    accelerator = Accelerator(cpu=device.type == "cpu")
    rank, count = accelerator.process_index, accelerator.num_processes
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f"{stage.name}.pt"
    model = stage.model
    optimizers = make_optimizers(model, config.lr, config.muon_lr, config.weight_decay, stage.bf16, accelerator)
    average = MovingAverage(model, config.ema_decay)
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        if state["origin"] != origin:
            raise ValueError(
                f"run: {checkpoint} was trained with another encoder than the present one; remove it, or name another "
                "folder"
            )
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            wanted = [{key: group[key] for key in ("peak_lr", "weight_decay")} for group in optimizer.param_groups]
            optimizer.load_state_dict(saved)
            for group, settings in zip(optimizer.param_groups, wanted, strict=True):
                group.update(settings)
        first = state["step"]

    def save(step: int) -> None:
        state = {
            "step": step,
            "origin": origin,
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        }
        save_atomically(state, checkpoint)

    accelerator.wait_for_everyone()  # every process has read the checkpoint before the first one replaces it
    writer = SummaryWriter(folder / "logs" / stage.name, purge_step=first) if rank == 0 else None
    sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=device))
    summed = 0
    bar = tqdm(
        range(first, config.steps), initial=first, total=config.steps, desc=stage.name, unit="step", disable=rank > 0
    )
    for step in bar:
        factor = learning_rate_factor(step, config.steps, config.warmup, config.decay_share)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
        generator = torch.Generator(device).manual_seed((config.seed or 0) * 10_000_019 + step)
        model.train()
        loss, numbers = stage.loss(step, Draws(generator, rank, count))
        loss.backward()
        average_gradients(model, accelerator)
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        average.update(model)

        for name, value in {"loss": loss.detach(), "gradient_norm": norm, **numbers}.items():
            sums[name] += value.detach()
        summed += 1
        done = step + 1
        if writer is None:
            continue
        if done % 50 == 0 or done == config.steps:
            means = {name: total.item() / summed for name, total in sums.items()}
            for name, mean in means.items():
                writer.add_scalar(f"train/{name}", mean, done)
            bar.set_postfix({name: f"{mean:.4f}" for name, mean in means.items()})
            sums.clear()
            summed = 0
        if done % config.validate_every == 0 or done == config.steps:
            current = average.swap(model)
            model.eval()
            results = stage.validate()
            model.load_state_dict(current)
            for name, number in results.items():
                writer.add_scalar(f"validation/{name}", number, done)
            tqdm.write(f"{stage.name} step {done}: " + ", ".join(f"{k} {v:.4f}" for k, v in results.items()))
        if done % config.checkpoint_every == 0 or done == config.steps:
            save(done)
    if writer is not None:
        writer.close()
    accelerator.wait_for_everyone()
    average.swap(model)
    model.eval()
