"""The reader tells actions from true latent frames, and pulls generated ones alone towards what it reads there."""

import pytest
import torch
from torch import Tensor

from astra_gym.training.optim import make_optimizers
from astra_gym.training.reader import ActionReader, reader_losses

SCENARIO = 1
"""The number of the one that is read here; the first has shorter rows."""


@pytest.fixture(scope="module")
def pairs() -> dict[str, Tensor]:
    """Frames before and after, and the rows of the actions between them, of the drone's real starts."""
    from astra_gym.bundles import load_bundle

    bank = load_bundle("small").starts["drone"].tensors
    latents, rows = bank["latents"].float(), bank["rows"].float()
    parts = {"before": latents[:, :-1], "after": latents[:, 1:], "rows": rows[:, 1:]}
    return {name: part.flatten(0, 1) for name, part in parts.items()}


def learned(pairs: dict[str, Tensor]) -> int:
    """How many of the pairs are learned from: those of three quarters of the starts."""
    return len(pairs["rows"]) * 3 // 4


def losses(reader: ActionReader, pairs: dict[str, Tensor], generated: Tensor) -> tuple[Tensor, Tensor]:
    before, after = pairs["before"], pairs["after"]
    scenario, noise = torch.full((len(before),), SCENARIO), torch.randn(len(before), 2, *before.shape[1:])
    return reader_losses(reader, (before, after), (before, generated), pairs["rows"], scenario, noise)


def some(pairs: dict[str, Tensor], chosen: Tensor | slice) -> dict[str, Tensor]:
    return {name: part[chosen] for name, part in pairs.items()}


@pytest.fixture(scope="module")
def reader(pairs) -> ActionReader:
    torch.manual_seed(0)
    deviations = [torch.tensor([1.0, 0.0]), pairs["rows"].std(0)]
    model = ActionReader(pairs["after"].shape[1], pairs["after"].shape[2:], deviations, width=48)
    optimizers = make_optimizers(torch.nn.ModuleDict({"reader": model}), lr=8e-4, muon_lr=0.01)
    for _ in range(240):
        batch = some(pairs, torch.randint(learned(pairs), (64,)))
        own, _ = losses(model, batch, batch["after"])
        own.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return model


def test_it_reads_the_turns_of_unseen_starts(pairs, reader):
    unseen = some(pairs, slice(learned(pairs), None))
    scenario = torch.full((len(unseen["rows"]),), SCENARIO)
    with torch.no_grad():
        read = reader(unseen["before"], unseen["after"], scenario) * pairs["rows"].std(0)
    turns = torch.corrcoef(torch.stack([read[:, 3], unseen["rows"][:, 3]]))[0, 1]
    assert turns > 0.5


def test_frames_that_show_another_action_are_told_from_those_that_show_their_own(pairs, reader):
    batch = some(pairs, slice(0, 64))
    _, same = losses(reader, batch, batch["after"])
    _, other = losses(reader, batch, batch["after"].roll(17, 0))
    assert same == 0 and other > 0.1


def test_numbers_that_never_change_are_not_read(pairs, reader):
    known = pairs["rows"].shape[1] - 1  # the flag that says that the action is known
    assert reader.deviations[SCENARIO, known].isinf() and reader.deviations[0, 1:].isinf().all()
    scenario = torch.tensor([0, SCENARIO])
    wanted = torch.zeros(2, known + 1)
    off = wanted.clone()
    off[:, known] = 5.0
    assert (reader.distance(off, wanted, scenario) == 0).all()


def test_only_generated_frames_are_pulled_and_only_real_ones_teach(pairs, reader):
    batch = some(pairs, slice(0, 16))
    generated = batch["after"].roll(3, 0).requires_grad_()
    own, obedience = losses(reader, batch, generated)
    reader.zero_grad()
    obedience.backward(retain_graph=True)
    assert generated.grad.abs().max() > 0
    assert all(weight.grad is None for weight in reader.parameters())
    generated.grad = None
    own.backward()
    assert generated.grad is None
    assert all(weight.grad is not None for weight in reader.parameters())
