"""Noise that tells of the frame it is to be made into."""

import dataclasses

import pytest
import torch

from astra_gym.bundles import load_bundle
from astra_gym.training.coupling import NoiseEncoder, nats
from astra_gym.world import World


def test_nats_are_those_of_torch():
    mean, deviation = torch.randn(5, 16), torch.rand(5, 16) + 0.1
    told = torch.distributions.Normal(mean, deviation)
    standard = torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(nats(mean, deviation), torch.distributions.kl_divergence(told, standard).sum(1))
    assert nats(torch.zeros(1, 16), torch.ones(1, 16)).item() == pytest.approx(0.0, abs=1e-6)


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
        loss = (noise[:, 0] - (2.0 * which - 1)).square().mean() + 0.01 * nats(mean, deviation).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert ((mean[:, 0] > 0) == (which == 1)).all()
    assert (deviation[:, 0] < 0.5).all() and (deviation[:, 1:] > deviation[:, :1]).all()


def test_a_block_begins_as_one_number_for_each_channel_where_the_world_was_trained_so():
    bundle = load_bundle("small")
    drawn = {}
    for coupled in (False, True):
        config = dataclasses.replace(bundle.config, one_noise_per_channel=coupled)
        world = World(dataclasses.replace(bundle, config=config), num_worlds=3)
        world.reset([bundle.starts["drive"][0]] * 3, [0, 0, 1])
        drawn[coupled] = world._beginning(range(3))
        assert drawn[coupled].shape == (3, 16, 8, 8)
    assert (drawn[True].flatten(2).std(2) == 0).all() and drawn[True][:, :, 0, 0].std() > 0.5
    assert (drawn[False].flatten(2).std(2) > 0.5).all()
    assert torch.equal(drawn[True][0], drawn[True][1]) and not torch.equal(drawn[True][0], drawn[True][2])
