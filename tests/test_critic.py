"""The critic tells blurred latent frames from real ones, and says which way is sharper."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from astra_gym.models.autoencoder import unit_rms
from astra_gym.training.critic import LatentCritic, critic_loss, detail_loss, towards_real
from astra_gym.training.optim import FAST_RATE, make_optimizers


@pytest.fixture(scope="module")
def bank() -> Tensor:
    """Real latent frames of the bundled world, ``(N, C, h, w)``."""
    from astra_gym.bundles import load_bundle

    return load_bundle("small").starts["drive"].tensors["latents"].float().flatten(0, 1)


def blurred(latents: Tensor) -> Tensor:
    return unit_rms(F.avg_pool2d(latents, 3, stride=1, padding=1, count_include_pad=False))


def judged(critic: LatentCritic, real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    """Its loss, and how sure it is; the frames before are hidden and the scenario is the first."""
    hidden, scenario = torch.zeros_like(real), torch.zeros(len(real), dtype=torch.long)
    return critic_loss(critic, real, generated, hidden, scenario, torch.randn(len(real), 3, *real.shape[1:]))


def score(critic: LatentCritic, latents: Tensor, scenario: int = 0) -> Tensor:
    """Mean score of each frame ``(N,)``."""
    with torch.no_grad():
        scores = critic(latents, torch.zeros_like(latents), torch.full((len(latents),), scenario))
    assert scores.shape == (len(latents), 1, *latents.shape[2:])
    return scores.mean((1, 2, 3))


@pytest.fixture(scope="module")
def critic(bank) -> LatentCritic:
    torch.manual_seed(0)
    model = LatentCritic(bank.shape[1], scenarios=2, width=32)
    (optimizer,) = make_optimizers(torch.nn.ModuleDict({"critic": model}), lr=5e-4, muon_lr=0.02)
    for _ in range(80):
        real = bank[torch.randint(len(bank) // 2, (32,))]
        loss, _ = judged(model, real, blurred(real))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def test_it_tells_real_frames_from_blurred_ones_and_knows_that_it_can(bank, critic):
    unseen = bank[len(bank) // 2 :]
    assert (score(critic, unseen) > score(critic, blurred(unseen))).float().mean() > 0.95
    _, sure = judged(critic, unseen, blurred(unseen))
    assert 0.5 < sure <= 1
    _, sure = judged(critic, unseen, unseen.flip(0))
    assert sure < 0.1


def test_it_is_told_the_scenario(bank, critic):
    assert not torch.allclose(score(critic, bank[:8], 0), score(critic, bank[:8], 1))


def test_it_learns_faster_than_what_it_judges():
    model = torch.nn.ModuleDict({"critic": torch.nn.Linear(4, 4), "other": torch.nn.Linear(4, 4)})
    (optimizer,) = make_optimizers(model, lr=1e-3, muon_lr=0.02)
    rates = {id(weight): group["peak_lr"] for group in optimizer.param_groups for weight in group["params"]}
    assert {rates[id(weight)] for weight in model["other"].parameters()} == {1e-3}
    assert {rates[id(weight)] for weight in model["critic"].parameters()} == {FAST_RATE * 1e-3}


def test_its_direction_leads_towards_real_frames(bank, critic):
    false = blurred(bank[-64:])
    direction = towards_real(critic, false, torch.zeros_like(false), torch.zeros(64, dtype=torch.long))
    assert direction.square().mean().item() == pytest.approx(1.0, rel=1e-3)
    assert score(critic, false + 0.1 * direction).mean() > score(critic, false).mean()
    towards_truth = bank[-64:] - false
    assert F.cosine_similarity(direction.flatten(), towards_truth.flatten(), dim=0) > 0.05


def test_it_is_not_moved_by_its_own_advice(bank, critic):
    for parameter in critic.parameters():
        parameter.grad = None
    towards_real(critic, bank[:4], bank[:4], torch.zeros(4, dtype=torch.long))
    assert all(parameter.grad is None for parameter in critic.parameters())


def test_detail_is_missed_where_it_is_blurred_and_only_there(bank):
    scenario = torch.arange(64) % 2
    real, others = bank[:64], bank[64:128]
    missed = detail_loss(blurred(others).requires_grad_(), real, scenario)
    assert missed > 10 * detail_loss(others, real, scenario)
    assert detail_loss(real, real, scenario) == 0
    half = torch.where((scenario == 0)[:, None, None, None], blurred(others), others)
    assert detail_loss(half, real, scenario).item() == pytest.approx(missed.item() / 2, rel=0.2)


def test_more_detail_is_where_its_gradient_leads(bank):
    false = blurred(bank[-64:]).requires_grad_()
    scenario = torch.zeros(64, dtype=torch.long)
    loss = detail_loss(false, bank[-64:], scenario)
    (gradient,) = torch.autograd.grad(loss, false)
    step = false.detach() - 0.1 * gradient / gradient.square().mean().sqrt()
    assert detail_loss(step, bank[-64:], scenario) < loss
