"""The bundled world: deterministic, batched, resettable in part, and obedient."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from astra_gym.actions import DRIVE
from astra_gym.bundles import (
    PRETRAINED,
    Bundle,
    StartBank,
    WorldConfig,
    bundled_worlds,
    load_bundle,
    scenarios_of,
)
from astra_gym.evaluation.egomotion import speed_and_turn
from astra_gym.models.layers import can_quantize
from astra_gym.world import World

needs_int8 = pytest.mark.skipif(not can_quantize(), reason="this PyTorch has no product of 8-bit integers")


@pytest.fixture(scope="module")
def bundle():
    return load_bundle()


@pytest.fixture(scope="module")
def bank(bundle) -> StartBank:
    return bundle.starts["drive"]


def rows(*actions) -> np.ndarray:
    return DRIVE.rows(np.array(actions, np.float32))


def grey_levels(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def test_same_seed_and_actions_give_the_same_bytes(bundle, bank):
    def roll(seed: int) -> list[bytes]:
        world = World(bundle, 2)
        world.reset([bank[0], bank[1]], [seed, seed + 1])
        return [world.step(rows([0.3, 0.5, 0], [-0.3, 0, 0.2])).frames.tobytes() for _ in range(4)]

    assert roll(3) == roll(3)
    assert roll(3) != roll(4)


@pytest.mark.parametrize(("dtype", "reward"), [("float32", 1e-3), ("bfloat16", 0.02)])
def test_one_step_does_not_depend_on_the_other_worlds(bank, dtype, reward):
    bundle = load_bundle(dtype=dtype)
    together, alone = World(bundle, 3), World(bundle, 1)
    together.reset([bank[0], bank[1], bank[2]], [0, 1, 2])
    alone.reset([bank[1]], [1])
    step = together.step(rows([1, 0, 0], [0, 1, 0], [-1, 0, 1]))
    single = alone.step(rows([0, 1, 0]))
    assert grey_levels(step.frames[1], single.frames[0]) <= 1
    assert step.reward[1] == pytest.approx(single.reward[0], abs=reward)


def test_any_worlds_can_be_reset_alone(bank):
    bundle = load_bundle(dtype="float32")  # attention adds up in another order, which bfloat16 shows
    world, untouched = World(bundle, 3), World(bundle, 3)
    for each in (world, untouched):
        each.reset([bank[i] for i in range(3)], [0, 1, 2])
        each.step(rows(*[[0, 0.5, 0]] * 3))
    frames = world.reset([bank[5]], [9], worlds=[1])
    assert frames.shape == (1, 4, 64, 64, 3)
    after, before = world.step(rows(*[[0, 0.5, 0]] * 3)), untouched.step(rows(*[[0, 0.5, 0]] * 3))
    for same in (0, 2):
        assert grey_levels(after.frames[same], before.frames[same]) <= 1
    fresh = World(bundle, 1)
    fresh.reset([bank[5]], [9])
    assert grey_levels(after.frames[1], fresh.step(rows([0, 0.5, 0])).frames[0]) <= 1


@pytest.mark.parametrize(("worlds", "threads"), [(1, 1), (2, 2), (4, 3)])
def test_a_step_takes_no_more_threads_than_there_are_worlds(bundle, bank, worlds, threads):
    used, before = [], torch.get_num_threads()
    hook = bundle.heads.register_forward_hook(lambda *_: used.append(torch.get_num_threads()))
    torch.set_num_threads(3)
    try:
        world = World(bundle, worlds)
        world.reset([bank[0]] * worlds, [0] * worlds)
        world.step(rows(*[[0, 1, 0]] * worlds))
        assert torch.get_num_threads() == 3
    finally:
        hook.remove()
        torch.set_num_threads(before)
    assert used == [threads]


def test_generated_latents_have_the_size_of_real_ones(bundle, bank):
    world = World(bundle, 2)
    world.reset([bank[0], bank[1]], [0, 1])
    for _ in range(3):
        latents = world.step(rows([0.3, 0.5, 0], [-0.3, 0, 0.2])).latents
    real = world.encode(world.decode(latents).reshape(8, 64, 64, 3))
    for each in (latents, real):
        assert each.square().mean(1).sqrt().numpy() == pytest.approx(1.0, abs=1e-2)


def test_a_snapshot_brings_everything_back(bundle, bank):
    world = World(bundle, 1)
    world.reset([bank[0]], [0])
    world.step(rows([0, 1, 0]))
    state = world.state()
    first = [world.step(rows([0.5, 0.5, 0])).frames for _ in range(3)]
    world.load_state(state)
    again = [world.step(rows([0.5, 0.5, 0])).frames for _ in range(3)]
    np.testing.assert_array_equal(first, again)
    other = World(bundle, 1)
    other.load_state(state)
    np.testing.assert_array_equal(other.step(rows([0.5, 0.5, 0])).frames, first[0])
    with pytest.raises(ValueError, match="state: of 1 worlds, this one has 2"):
        World(bundle, 2).load_state(state)


def test_guidance_of_one_is_no_guidance_and_more_changes_the_picture(bundle, bank):
    frames = []
    for scale in (None, 1.0, 2.0):
        world = World(bundle, 1, guidance_scale=scale)
        world.reset([bank[0]], [0])
        frames.append(world.step(rows([1, 0, 0])).frames)
    np.testing.assert_array_equal(frames[0], frames[1])
    assert grey_levels(frames[0], frames[2]) > 0


def test_more_steps_change_little(bundle, bank):
    frames = []
    for steps in (1, 2, 8):
        world = World(bundle, 1, num_inference_steps=steps)
        world.reset([bank[0]], [0])
        frames.append(world.step(rows([0, 0.3, 0])).frames.astype(float))
    assert np.abs(frames[1] - frames[2]).mean() < 8


def test_a_world_must_be_reset_before_it_is_stepped(bundle, bank):
    world = World(bundle, 2)
    world.reset([bank[0]], [0], worlds=[1])
    with pytest.raises(RuntimeError, match=r"reset worlds \[0\] first"):
        world.step(rows([0, 0, 0], [0, 0, 0]))
    with pytest.raises(ValueError, match="got 1 starts and 2 seeds"):
        world.reset([bank[0]], [0, 1])
    with pytest.raises(ValueError, match="start: got 1000"):
        bank[1000]


def test_routing_is_reported(bundle, bank):
    world = World(bundle, 1)
    world.reset([bank[0]], [0])
    routing = world.step(rows([1, 0, 0])).routing
    assert routing.shape == (1, bundle.transformer.config.num_experts)
    assert routing.sum() == pytest.approx(1.0, abs=1e-5)


def test_encode_and_decode_are_inverse_enough(bundle, bank):
    world = World(bundle, 1)
    frames = world.reset([bank[0]], [0])
    again = world.decode(world.encode(frames[0]))
    assert np.abs(again.astype(float) - frames).mean() < 4


def road_ahead(frame: np.ndarray) -> float:
    """Mean column of the road's grey pixels in the upper half of a frame (64, 64, 3)."""
    upper = frame[:36].astype(int)
    grey = (np.ptp(upper, axis=-1) < 30) & (upper.mean(-1) < 150)
    return float(np.nonzero(grey)[1].mean()) if grey.any() else 32.0


def test_left_turns_left_and_right_turns_right(bundle, bank):
    """Turning left swings what lies ahead to the right of the picture, and the other way round; and the car turns
    about as far as in the simulator, by some 30 degrees in four blocks."""
    count = 16
    chosen = [bank[i] for i in range(count)]
    ahead, turned = [], []
    for steer in (-1.0, 1.0):
        world = World(bundle, count)
        world.reset(chosen, list(range(count)))
        frames = np.stack([world.step(rows(*[[steer, 0.2, 0.0]] * count)).frames for _ in range(4)], 1)
        ahead.append([road_ahead(frame) for frame in frames[:, -1, -1]])
        degrees_a_block = 0.08 * speed_and_turn(frames)[..., 1]
        turned.append(degrees_a_block.sum(1).mean())
    left, right = np.array(ahead)
    assert np.mean(left > right) >= 0.75
    assert np.mean(left - right) > 4
    assert turned[0] > 25 and turned[1] < -25


def test_gas_makes_the_road_pass_faster_than_the_brake(bundle, bank):
    """Speed is read from the frames, as the evaluation does, over the blocks 8 to 12 of each order."""
    count = 12
    chosen = [bank[i] for i in range(count)]
    speeds = []
    for gas, brake in ((1.0, 0.0), (0.0, 0.8)):
        world = World(bundle, count)
        world.reset(chosen, list(range(count)))
        blocks = np.stack([world.step(rows(*[[0.0, gas, brake]] * count)).frames for _ in range(12)], 1)
        speeds.append(speed_and_turn(blocks[:, 7:])[..., 0].mean(1))
    assert np.mean(speeds[0] > speeds[1]) >= 0.9


@pytest.fixture
def copied(tmp_path):
    shutil.copytree(PRETRAINED / "small", tmp_path / "world")
    return tmp_path / "world"


def test_the_bundled_world_is_found_by_name_and_by_folder(copied):
    assert "small" in bundled_worlds()
    a, b = load_bundle("small"), load_bundle(copied)
    torch.testing.assert_close(a.transformer.state_dict(), b.transformer.state_dict())


def test_a_saved_bundle_loads_as_it_was(bundle, tmp_path):
    bundle.save(tmp_path / "again")
    again = load_bundle(tmp_path / "again")
    for part in ("transformer", "autoencoder", "heads"):
        torch.testing.assert_close(getattr(again, part).state_dict(), getattr(bundle, part).state_dict())
    assert again.config == bundle.config
    assert len(again.starts["drive"]) == len(bundle.starts["drive"])
    usual = (tmp_path / "again" / "world.json").stat().st_mode
    assert all(weights.stat().st_mode == usual for weights in (tmp_path / "again").rglob("*.safetensors"))


def test_a_saved_bundle_leaves_nothing_of_the_one_before(bundle, copied):
    left = {name: bank for name, bank in bundle.starts.items() if name != "drone"}
    dataclasses.replace(bundle, prior=None, starts=left).save(copied)
    assert not (copied / "prior").exists() and scenarios_of(copied) == ["drive", "manipulation", "camera"]
    assert (copied / "README.md").exists()  # not its own


def test_missing_and_corrupt_bundles_are_named(copied):
    with pytest.raises(FileNotFoundError, match="world: 'nowhere' is neither a bundled world"):
        load_bundle("nowhere")
    weights = copied / "transformer" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="world: the weights in .*transformer are corrupt"):
        load_bundle(copied)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="transformer has no"):
        load_bundle(copied)
    weights.write_bytes(whole)
    settings = load_bundle(copied).config
    dataclasses.replace(settings, temperatures={"boat": 1.0}).save(copied)
    with pytest.raises(ValueError, match=r"has \['boat'\] in temperatures, allowed are \['drive', "):
        load_bundle(copied)
    dataclasses.replace(settings, temperatures={"drive": 0.0}).save(copied)
    with pytest.raises(ValueError, match=r"has {'drive': 0.0} in temperatures, allowed are numbers above 0"):
        load_bundle(copied)
    settings.save(copied)
    bank_file = copied / "starts" / "drive.safetensors"
    bank_file.write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="start bank"):
        load_bundle(copied)
    (copied / "world.json").write_text('{"frames": 4}')
    with pytest.raises(ValueError, match=r"unknown keys \['frames'\]"):
        WorldConfig.load(copied)


def test_unknown_devices_and_dtypes_are_named():
    with pytest.raises(ValueError, match="dtype: got 'float3'"):
        load_bundle(dtype="float3")
    with pytest.raises(ValueError, match="device: got 'gpu'"):
        load_bundle(device="gpu")


def one_step(bank, dtype: str, compiled: bool = False) -> np.ndarray:
    world = World(load_bundle(dtype=dtype), 1, compiled=compiled)
    world.reset([bank[0]], [0])
    return world.step(rows([0, 0.5, 0])).frames.astype(float)


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("int8", marks=needs_int8)])
def test_fewer_bits_show_nearly_the_same(bank, dtype):
    assert 0 < np.abs(one_step(bank, dtype) - one_step(bank, "float32")).mean() < 4


@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler needs a C++ compiler")
def test_compiled_shows_the_same(bank):
    assert np.abs(one_step(bank, "float32", compiled=True) - one_step(bank, "float32")).max() <= 1


def test_int8_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr("astra_gym.bundles.can_quantize", lambda: False)
    with pytest.raises(ValueError, match="dtype: got int8"):
        load_bundle(dtype="int8")


def at_temperature(bundle: Bundle, temperature: float) -> Bundle:
    config = dataclasses.replace(bundle.config, temperatures={"drive": temperature})
    return dataclasses.replace(bundle, config=config)


def test_temperature_is_that_of_the_scenario(bundle, bank):
    """A lower one leaves less to chance: two seeds come closer to each other."""

    def distance(temperature: float) -> float:
        world = World(at_temperature(bundle, temperature), 2)
        world.reset([bank[0], bank[0]], [1, 2])
        first, second = world.step(rows([0, 0.5, 0], [0, 0.5, 0])).latents
        return float((first - second).square().mean())

    assert distance(0.1) < 0.5 * distance(1.0)


def test_an_argument_says_another_temperature_than_the_bundle_does(bundle, bank):
    hotter, colder = at_temperature(bundle, 1.0), at_temperature(bundle, 0.3)

    def step(world: World):
        world.reset([bank[0]], [1])
        return world.step(rows([0, 0.5, 0])).latents

    torch.testing.assert_close(step(World(hotter, temperature=0.3)), step(World(colder)))
    assert not torch.allclose(step(World(hotter)), step(World(colder)))
