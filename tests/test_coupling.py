"""Noise that tells of the frame it is to be made into, and the prior that a world draws it from."""

import dataclasses

import pytest
import torch

from astra_gym.bundles import load_bundle
from astra_gym.models.noise_prior import NoisePrior, log_density, mixture_log_density
from astra_gym.training.coupling import NoiseEncoder, nats_and_surprise
from astra_gym.training.parallel import Draws
from astra_gym.training.rollout import RollOut
from astra_gym.training.world import WorldModel
from astra_gym.world import World


def small_prior(action_dim: int = 3) -> NoisePrior:
    torch.manual_seed(0)
    return NoisePrior(4, (5, 7), feature_dim=6, action_dim=action_dim, hidden_dim=16, components=3)


def seen(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(count, 6), torch.randn(count, 4, 5, 7), torch.randn(count, 3)


def test_densities_are_those_of_torch():
    noise, mean, deviation = torch.randn(5, 4), torch.randn(5, 4), torch.rand(5, 4) + 0.1
    expected = torch.distributions.Normal(mean, deviation).log_prob(noise).sum(1)
    torch.testing.assert_close(log_density(noise, mean, deviation), expected)
    prior, given = small_prior(), seen(5)
    weights, means, deviations = prior(*given)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=weights),
        torch.distributions.Independent(torch.distributions.Normal(means, deviations), 1),
    )
    torch.testing.assert_close(mixture_log_density(noise, weights, means, deviations), mixture.log_prob(noise))


def test_samples_have_the_mean_and_spread_of_the_mixture():
    prior, one = small_prior(), seen(1)
    prior.network[-1].bias.data.normal_(std=2.0)
    given = [each.expand(40_000, *each.shape[1:]) for each in one]
    with torch.no_grad():
        noise = prior.sample(*given, torch.rand(40_000), torch.randn(40_000, 4))
        weights, means, deviations = prior(*one)
    share = weights.exp()[..., None]
    mean = (share * means).sum(1)
    variance = (share * (deviations.square() + means.square())).sum(1) - mean.square()
    torch.testing.assert_close(noise.mean(0, keepdim=True), mean, atol=0.1, rtol=0.05)
    torch.testing.assert_close(noise.var(0, keepdim=True), variance, atol=0.2, rtol=0.1)


def test_a_lower_temperature_chooses_the_likeliest_component_and_stays_at_its_mean():
    prior, one = small_prior(), seen(1)
    prior.network[-1].bias.data.normal_(std=2.0)
    given = [each.expand(2_000, *each.shape[1:]) for each in one]
    chance, normal = torch.rand(2_000), torch.randn(2_000, 4)
    with torch.no_grad():
        weights, means, _ = prior(*one)
        cold = prior.sample(*given, chance, normal, torch.full([2_000], 1e-6))
        as_it_is = prior.sample(*given, chance, normal, torch.ones(2_000))
        torch.testing.assert_close(as_it_is, prior.sample(*given, chance, normal))
    likeliest = means[0, weights[0].argmax()].expand_as(cold)
    torch.testing.assert_close(cold, likeliest, atol=0.05, rtol=0.01)
    assert as_it_is.var(0).mean() > 0.1


def test_a_prior_is_saved_and_loaded(tmp_path):
    prior, given = small_prior(), seen(2)
    prior.save_pretrained(tmp_path)
    again = NoisePrior.from_pretrained(tmp_path)
    torch.testing.assert_close(again(*given), prior(*given))


def test_a_nat_costs_what_each_frame_says():
    prior, given, numbers, density = small_prior(), seen(5), torch.randn(5, 4), torch.randn(5)
    told = density - mixture_log_density(numbers, *prior(*given))
    price = torch.tensor([1.0, 0.0, 2.0, 0.0, 0.0])
    found = nats_and_surprise(prior, numbers, density, given, price)
    torch.testing.assert_close(found["nats"], told.mean())
    torch.testing.assert_close(found["cost"], (told[0] + 2 * told[2]) / 5)


def test_a_prior_learns_what_follows_from_the_action_where_it_may_see_it():
    """Noise is as the action says, which frame and features before do not tell."""
    surprise = {}
    for action_dim in (0, 3):
        prior, given = small_prior(action_dim), seen(64)
        optimizer = torch.optim.Adam(prior.parameters(), lr=0.02)
        for _ in range(100):
            code = torch.randn(64, 3)
            noise = code[:, :1] + 0.1 * torch.randn(64, 4)
            loss = -mixture_log_density(noise, *prior(given[0], given[1], code)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        surprise[action_dim] = loss.item()
    assert surprise[3] < surprise[0] - 1


def test_a_prior_that_has_yet_to_learn_of_actions_is_the_one_that_does_not_see_them():
    blind, given = small_prior(action_dim=0), seen(2)
    seeing = small_prior()
    seeing.load_state_dict(blind.state_dict(), strict=False)
    torch.testing.assert_close(seeing(*given), blind(*given))


@pytest.mark.parametrize("latent_size", [(8, 8), (5, 7)])
def test_an_encoder_can_learn_to_tell_two_futures_apart(latent_size):
    """From the same frame before, one number of its noise comes to say which of two frames follows."""
    torch.manual_seed(0)
    encoder = NoiseEncoder(4, latent_size, scenarios=2, width=16)
    before = torch.randn(1, 4, *latent_size).expand(32, -1, -1, -1)
    which = torch.arange(32) % 2
    after = torch.randn(2, 4, *latent_size)[which]
    optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)
    for _ in range(60):
        mean, deviation = encoder(after, before, torch.zeros(32, dtype=torch.long))
        noise = mean + deviation * torch.randn_like(mean)
        told = log_density(noise, mean, deviation) - log_density(noise, torch.zeros_like(mean), torch.ones_like(mean))
        loss = (noise[:, 0] - (2.0 * which - 1)).square().mean() + 0.01 * told.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert ((mean[:, 0] > 0) == (which == 1)).all()
    assert (deviation[:, 0] < 0.5).all() and (deviation[:, 1:] > deviation[:, :1]).all()


def test_noise_tells_what_the_models_own_history_lacks():
    """Told of true frames, each of its own is made from noise that was encoded beside the one it made before."""
    bundle = load_bundle("small", dtype="float32")
    transformer, heads = bundle.transformer, bundle.heads
    prior = NoisePrior(16, (8, 8), heads.config.feature_dim, heads.config.action_dim)
    model = WorldModel(transformer, heads, prior, {name: torch.ones(4) for name in transformer.scenarios})
    asked = []
    model.noise_encoder.register_forward_pre_hook(lambda _, given: asked.append(given[:2]))
    latents, rows = torch.randn(2, 7, 16, 8, 8), torch.zeros(2, 7, 4)
    roll_out = RollOut(model, bundle.config.flow, steps=1, coupled=True, bf16=False)
    made = roll_out(latents, rows, ["drive"] * 2, 4, 3, Draws(torch.Generator().manual_seed(0)), informed=True)
    assert len(asked) == 3
    before = torch.cat([latents[:, 3:4], made[:, :2]], 1)
    for t, (truth, own) in enumerate(asked):
        torch.testing.assert_close(truth, latents[:, 4 + t])
        torch.testing.assert_close(own, before[:, t])


def test_a_world_with_a_prior_begins_each_block_as_one_number_for_each_channel():
    """Drawn by the world's seed, from what its history leads to expect; a snapshot keeps that."""
    bundle = load_bundle("small")
    torch.manual_seed(0)
    prior = NoisePrior(16, (8, 8), bundle.heads.config.feature_dim)
    world = World(dataclasses.replace(bundle, prior=prior.eval()), num_worlds=3)
    begun = []
    world.dynamics.generate = lambda *args, generate=world.dynamics.generate: begun.append(args[3]) or generate(*args)
    world.reset([bundle.starts["drive"][i] for i in (0, 0, 0)], [0, 0, 1])
    rows = torch.zeros(3, 4).numpy()
    world.step(rows)
    state = world.state()
    one, two = (world.step(rows).latents for _ in range(2))
    world.load_state(state)
    torch.testing.assert_close(world.step(rows).latents, one)
    torch.testing.assert_close(world.step(rows).latents, two)
    assert all((noise.flatten(2).std(2) == 0).all() and noise.shape == (3, 16, 8, 8) for noise in begun)
    assert torch.allclose(begun[0][0], begun[0][1], atol=1e-3) and not torch.allclose(
        begun[0][0], begun[0][2], atol=1e-3
    )
    assert torch.equal(begun[1], begun[3]) and not torch.allclose(begun[1], begun[2], atol=1e-3)
