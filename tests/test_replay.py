"""What SAC remembers: every observation once, no step whose next observation is lost, the same after a reload."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from astra_gym.agents.features import BlockFeatures
from astra_gym.agents.replay import BlockReplayBuffer, shift_randomly

IMAGES, CONTROLS = spaces.Box(0, 255, (12, 8, 8), np.uint8), spaces.Box(-1.0, 1.0, (2,), np.float32)


def make(size: int = 8, envs: int = 2) -> BlockReplayBuffer:
    options = {"optimize_memory_usage": True, "handle_timeout_termination": False}
    return BlockReplayBuffer(size * envs, IMAGES, CONTROLS, "cpu", envs, **options)


def image(number: int) -> np.ndarray:
    return np.full(IMAGES.shape, number, np.uint8)


def fill(buffer: BlockReplayBuffer, steps: range, dones: tuple[int, ...] = (), cuts: tuple[int, ...] = ()) -> None:
    """At each step environment e sees ``10 * step + e``; an episode that ends begins anew in the next step."""
    for t in steps:
        obs, following = (np.stack([image(10 * s + e) for e in range(buffer.n_envs)]) for s in (t, t + 1))
        done = np.full(buffer.n_envs, t in dones or t in cuts)
        infos = [{"TimeLimit.truncated": t in cuts} for _ in range(buffer.n_envs)]
        if done.any():
            following = np.full_like(following, 255)
        buffer.add(obs, following, np.zeros((buffer.n_envs, 2)), np.full(buffer.n_envs, float(t)), done, infos)


def drawn(buffer: BlockReplayBuffer) -> dict[tuple[int, int], int]:
    """What comes after each step and environment that are drawn: step and environment of the next; -1 at an end."""
    batch, found = buffer.sample(400), {}
    for now, later, done, reward in zip(
        batch.observations, batch.next_observations, batch.dones, batch.rewards, strict=True
    ):
        step, env = divmod(int(now[0, 0, 0]), 10)
        assert float(reward) == step
        found[step, env] = -1 if done else int(later[0, 0, 0])
    return found


@pytest.mark.parametrize("last", [5, 8, 13, 16])
def test_what_follows_a_step_is_what_followed_it(last):
    buffer = make(size=8)
    fill(buffer, range(last), dones=(3, 9), cuts=(1, 11))
    kept = range(max(0, last - 7), last)  # the row that the next step takes holds what came after the newest
    expected = {(t, e): -1 if t in (3, 9) else 10 * (t + 1) + e for t in kept for e in range(2) if t not in (1, 11)}
    assert drawn(buffer) == expected


def test_nothing_to_draw():
    with pytest.raises(RuntimeError, match="no step to learn from"):
        make().sample(1)


@pytest.mark.parametrize("last", [3, 11])
def test_what_is_saved_comes_back(tmp_path, last):
    buffer, other = make(), make()
    fill(buffer, range(last))
    buffer.save(tmp_path / "replay.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["replay.npz"]
    other.load(tmp_path / "replay.npz")
    assert (other.pos, other.full) == (buffer.pos, buffer.full)
    before, after = drawn(buffer), drawn(other)
    newest = {(last - 1, 0), (last - 1, 1)}  # the episode under way was interrupted
    assert set(before) - set(after) == newest
    fill(other, range(last, last + 2))
    assert set(drawn(other)) & newest == set()
    for wrong in (make(envs=1), make(size=2)):
        with pytest.raises(ValueError, match="^buffer_size: .* has"):
            wrong.load(tmp_path / "replay.npz")


def test_images_are_shifted():
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 16, 16), np.uint8)
    shifted = shift_randomly(images, 2)
    places = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
    found = []
    for old, new in zip(images, shifted, strict=True):
        found += [p for p in places if np.array_equal(np.roll(old, p, (1, 2))[:, 2:-2, 2:-2], new[:, 2:-2, 2:-2])]
    assert len(found) == len(images) and len(set(found)) > 1
    assert np.array_equal(shift_randomly(images, 0), images)


def test_features_of_images():
    features = BlockFeatures(spaces.Box(0, 255, (12, 64, 64), np.uint8))
    numbers = features(torch.rand(2, 12, 64, 64))
    assert numbers.shape == (2, 128) and numbers.abs().max() <= 1
