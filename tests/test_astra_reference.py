"""Parity with the released Astra: a small model of its architecture, and what the reference computed with it.

The data in tests/data/astra_reference are described by the FORMAT.md beside them; ASTRA_REFERENCE_DIR names another
folder of the same format. Sizes and cases are read from the files.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from astra_gym.camera import PRESETS, preset_rows, still_rows
from astra_gym.convert import transformer_plan
from astra_gym.models.packing import FAR, NEAR, plan_packing, window_rows
from astra_gym.models.transformer import AstraTransformer
from astra_gym.sampler import schedule
from astra_gym.velocity import VelocitySampler

FOLDER = Path(os.environ.get("ASTRA_REFERENCE_DIR", Path(__file__).parent / "data" / "astra_reference"))
TOLERANCE = 1e-4
REFERENCE = safe_open(FOLDER / "astra_reference.safetensors", "pt")
META = json.loads(REFERENCE.metadata()["meta"])
NAMES = set(REFERENCE.keys())
CASES = {case["key"]: case for case in META["cases"]}


def reference(name: str) -> torch.Tensor:
    return REFERENCE.get_tensor(name)


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours.double() - theirs.double()).abs().max() <= TOLERANCE


@pytest.fixture(scope="module")
def transformer() -> AstraTransformer:
    (path,) = FOLDER.glob("*.ckpt")
    plan, config = transformer_plan(path, META["model"]["num_heads"])
    model = AstraTransformer(**config, eps=META["model"]["eps"])
    model.load_state_dict({name: plan.tensor(name) for name in plan.sources})
    return model.eval().requires_grad_(False)


def sampler(transformer: AstraTransformer, key: str, guidance_scale: float) -> VelocitySampler:
    history = reference(f"{key}/history").transpose(0, 1)[None]
    new = reference(f"{key}/noise").shape[2]
    rows = window_rows(reference(f"{key}/actions"), history.shape[1], new)
    context = transformer.embed_text(reference(f"{key}/context"))
    packed = transformer.pack(history, new)
    return VelocitySampler(transformer, packed, rows, CASES[key]["modality"], context, guidance_scale)


@pytest.mark.parametrize("key", CASES)
def test_packing(key):
    case = CASES[key]
    packing = plan_packing(case["history_latent_frames"], case["new_latent_frames"])
    groups = {group.embedding: group for group in packing.groups}
    assert list(groups["proj"].times) == reference(f"{key}/clean_latent_indices").tolist()
    assert list(packing.new_times) == reference(f"{key}/latent_indices").tolist()
    for name, slots in (("proj_2x", NEAR), ("proj_4x", FAR)):
        expected = reference(f"{key}/clean_latent_{name.removeprefix('proj_')}_indices").tolist()
        if name not in groups:
            assert expected == [-1] * len(slots)
            continue
        offset = packing.new_times[0] - packing.window
        assert [-1 if frame is None else frame + offset for frame in groups[name].frames] == expected
        assert groups[name].times[0] == min(index for index in expected if index >= 0)


@pytest.mark.parametrize("key", CASES)
def test_window_rows(key):
    case = CASES[key]
    rows = window_rows(reference(f"{key}/actions"), case["history_latent_frames"], case["new_latent_frames"])
    assert_close(rows, reference(f"{key}/packed_actions"))


@pytest.mark.parametrize("key", CASES)
def test_one_forward_pass(transformer, key):
    names = [name for name in NAMES if name.startswith(f"{key}/velocity_t")]
    assert names
    for name in names:
        level = float(name.rsplit("_t", 1)[1]) / 1000
        noise = reference(f"{key}/noise").transpose(1, 2)
        velocity = sampler(transformer, key, guidance_scale=1.0).velocity(noise, level)
        assert_close(velocity.transpose(1, 2), reference(name))


@pytest.mark.parametrize("key", CASES)
def test_guided_sample(transformer, key):
    names = [name for name in NAMES if name.startswith(f"{key}/sample_")]
    assert names
    for name in names:
        _, steps, guidance = name.rsplit("/", 1)[1].split("_")  # sample_4step_guidance2
        levels = schedule(int(steps.removesuffix("step")), shift=5.0)
        noise = reference(f"{key}/noise").transpose(1, 2)
        sample = sampler(transformer, key, float(guidance.removeprefix("guidance"))).sample(noise, levels)
        assert_close(sample.transpose(1, 2), reference(name))


@pytest.mark.parametrize("name", sorted(name for name in NAMES if name.startswith("sigmas_")))
def test_schedule(name):
    steps = name.removeprefix("sigmas_")
    levels = torch.tensor(schedule(int(steps), shift=5.0)[:-1], dtype=torch.float64)
    assert_close(levels, reference(name))
    assert_close(levels * 1000, reference(f"timesteps_{steps}"))


@pytest.mark.parametrize("preset", PRESETS)
def test_preset(preset):
    expected = reference(f"preset_{preset}")
    forward = (reference("preset_1")[:, 11] != 0).nonzero().flatten().tolist()  # rows that move, read off preset 1
    history, moving = forward[0], len(forward)
    still = len(expected) - history - moving
    rows = torch.cat(
        [
            torch.from_numpy(still_rows(history)),
            torch.from_numpy(preset_rows(preset, moving)),
            torch.from_numpy(still_rows(still)),
        ]
    )
    assert_close(rows[:, :-1], expected[:, :-1])  # the mask is set by the packing


def test_missing_compressed_frames_take_the_last_index_and_no_action():
    far = plan_packing(5, 1).groups[0]  # 2 of the 16 slots at 4x are in use, 4 compressed frames come of them
    assert far.frames == (None,) * 14 + (0, 1)
    assert far.times == (15, 16, 16, 16)
    assert far.rows == (0, 1, None, None)
