"""The critic tells blurred latent frames from real ones, and says which way is sharper."""

import pytest
import torch
import torch.nn.functional as F

from astra_gym.models.autoencoder import unit_rms
from astra_gym.training.critic import LatentCritic, critic_loss, towards_real
from astra_gym.training.optim import make_optimizers


@pytest.fixture(scope="module")
def bank() -> torch.Tensor:
    """Real latent frames of the bundled world, ``(N, C, h, w)``."""
    from astra_gym.bundles import load_bundle

    return load_bundle("small").starts["drive"].tensors["latents"].float().flatten(0, 1)


def blurred(latents: torch.Tensor) -> torch.Tensor:
    return unit_rms(F.avg_pool2d(latents, 3, stride=1, padding=1, count_include_pad=False))


@pytest.fixture(scope="module")
def critic(bank) -> LatentCritic:
    torch.manual_seed(0)
    model = LatentCritic(bank.shape[1], scenarios=2, width=32)
    (optimizer,) = make_optimizers(torch.nn.ModuleDict({"critic": model}), lr=2e-3, muon_lr=0.02)
    for _ in range(80):
        real = bank[torch.randint(len(bank) // 2, (32,))]
        loss = critic_loss(model, real, blurred(real), torch.zeros_like(real), torch.randn(32, 3, *bank.shape[1:]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def test_it_tells_real_frames_from_blurred_ones(bank, critic):
    unseen = bank[len(bank) // 2 :]
    none = torch.zeros_like(unseen)
    with torch.no_grad():
        real, false = critic(unseen, none), critic(blurred(unseen), none)
    assert real.shape == (len(unseen), 1, *bank.shape[2:])
    assert (real.mean((1, 2, 3)) > false.mean((1, 2, 3))).float().mean() > 0.95


def test_its_direction_leads_towards_real_frames(bank, critic):
    false, none = blurred(bank[-64:]), torch.zeros(64, *bank.shape[1:])
    direction = towards_real(critic, false, none)
    assert direction.square().mean().item() == pytest.approx(1.0, rel=1e-3)
    with torch.no_grad():
        assert critic(false + 0.1 * direction, none).mean() > critic(false, none).mean()
    towards_truth = bank[-64:] - false
    assert F.cosine_similarity(direction.flatten(), towards_truth.flatten(), dim=0) > 0.05


def test_it_is_not_moved_by_its_own_advice(bank, critic):
    for parameter in critic.parameters():
        parameter.grad = None
    towards_real(critic, bank[:4], bank[:4])
    assert all(parameter.grad is None for parameter in critic.parameters())
