"""Training: it learns, it validates, and a killed run goes on exactly where it was."""

import dataclasses
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from minari.serialization import serialize_space
from safetensors.torch import load_file

from astra_gym.bundles import load_bundle
from astra_gym.models.autoencoder import BlockAutoencoder
from astra_gym.training.arguments import TrainArgs, TransformerSize
from astra_gym.training.loop import LoopConfig, run_stage, save_atomically
from astra_gym.training.optim import MovingAverage, Muon, learning_rate_factor, make_optimizers
from astra_gym.training.pixels import pixel_loss
from astra_gym.training.train import seeded, train
from astra_gym.training.world import WorldLossConfig
from astra_gym.world import World

TINY = shlex.split("""
    --autoencoder.steps 6 --autoencoder.validate-every 3 --autoencoder.checkpoint-every 2 --autoencoder-batch-size 2
    --decoder.steps 2 --decoder.validate-every 2
    --world.steps 8 --world.validate-every 4 --world.checkpoint-every 2 --world.warmup 2 --latent-channels 4
    --world-loss.clip-frames 8 --world-loss.batch-size 2 --world-loss.own-history-frames 3 --world-loss.nat-price 0.001
    --transformer.heads 2 --transformer.head-dim 24 --transformer.layers 1 --transformer.ffn-dim 32
    --transformer.window 2 --transformer.summary-window 2 --starts 2
    --temperatures drive 1.5
""")


def command(episodes: Path, run: Path) -> list[str]:
    folders = [
        "--data",
        str(episodes.parent),
        "--scenarios",
        "drive",
        "--run",
        str(run),
    ]
    return [sys.executable, "scripts/train_world.py", *folders, *TINY]


@pytest.fixture(scope="module")
def trained(episodes, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("whole")
    subprocess.run(command(episodes, run), check=True, capture_output=True)
    return run


def test_the_bundle_of_a_training_run_can_be_stepped(trained):
    bundle = load_bundle(trained / "bundle")
    assert bundle.config.temperatures == {"drive": 1.5}
    assert bundle.config.frame_size == 64 and bundle.prior is not None
    world = World(bundle, num_worlds=2)
    frames = world.reset([bundle.starts["drive"][i] for i in range(2)], [0, 1])
    assert frames.shape == (2, 4, 64, 64, 3)
    step = world.step(np.ones((2, 4), np.float32))
    assert step.frames.shape == (2, 4, 64, 64, 3) and np.isfinite(step.reward).all()


def test_held_out_clips_and_those_that_were_learned_from_are_validated(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged = EventAccumulator(str(trained / "logs" / "world")).Reload()
    held_out, seen = (logged.Scalars(f"validation/drive/{clips}_1") for clips in ("world", "seen"))
    assert [event.step for event in held_out] == [event.step for event in seen] == [4, 8]
    assert all(np.isfinite(a.value) and a.value != b.value for a, b in zip(held_out, seen, strict=True))


def test_a_run_killed_twice_ends_with_the_same_weights(episodes, trained, tmp_path):
    run = tmp_path / "killed"
    for checkpoint in ("autoencoder.pt", "world.pt"):
        process = subprocess.Popen(
            command(episodes, run), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while not (run / checkpoint).exists():
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (run / "bundle").exists()
    subprocess.run(command(episodes, run), check=True, capture_output=True)
    for part in ("autoencoder", "transformer", "heads", "prior"):
        name = f"bundle/{part}/diffusion_pytorch_model.safetensors"
        assert (run / name).read_bytes() == (trained / name).read_bytes(), part


def test_later_stages_are_not_taken_up_with_another_encoder(episodes, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    subprocess.run([*command(episodes, run), "--stages", "decoder", "world"], check=True, capture_output=True)
    longer = [*command(episodes, run), "--autoencoder.steps", "8"]
    refused = subprocess.run(longer, capture_output=True, text=True)
    assert refused.returncode == 2 and "decoder.pt was trained with another encoder" in refused.stderr
    for stage in ("decoder", "world"):
        (run / f"{stage}.pt").unlink()
    subprocess.run(longer, check=True, capture_output=True)


def test_training_goes_on_from_a_bundle(episodes, trained, tmp_path):
    whole = [*command(episodes, tmp_path), "--stages", "world", "bundle", "--init-from", str(trained / "bundle")]
    subprocess.run(whole, check=True, capture_output=True)
    before, after = load_bundle(trained / "bundle"), load_bundle(tmp_path / "bundle")
    torch.testing.assert_close(before.autoencoder.state_dict(), after.autoencoder.state_dict())
    assert not torch.equal(before.transformer.proj_out.weight, after.transformer.proj_out.weight)


def test_parts_of_a_bundle_can_begin_anew(episodes, trained, tmp_path):
    anew = [
        "--stages",
        "world",
        "--init-from",
        str(trained / "bundle"),
        "--init-without",
        "experts",
        "--world.steps",
        "0",
    ]
    subprocess.run([*command(episodes, tmp_path), *anew], check=True, capture_output=True)
    file = "transformer/diffusion_pytorch_model.safetensors"
    before, after = load_file(trained / "bundle" / file), load_file(tmp_path / file)
    kept = {name: torch.allclose(before[name].float(), after[name], rtol=1e-2, atol=1e-4) for name in before}
    assert kept["proj_out.weight"]
    assert not any(same for name, same in kept.items() if name.endswith("experts.weight"))
    assert all(same for name, same in kept.items() if "experts" not in name)


def test_pixels_count_where_few_frames_of_the_models_own_come_before(episodes, trained, tmp_path):
    """An age that no frame has leaves them out altogether; with the first alone, something is learned from them."""
    weights = {}
    for name, changes in {
        "without": ["--world-loss.pixel-weight", "0"],
        "never": ["--world-loss.pixel-age", "-1"],
        "true histories": ["--world-loss.pixel-age", "0"],
    }.items():
        whole = [*command(episodes, tmp_path / name), "--stages", "world", "--init-from", str(trained / "bundle")]
        subprocess.run([*whole, "--world-loss.own-history-from", "0", *changes], check=True, capture_output=True)
        weights[name] = load_file(tmp_path / name / "transformer/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(weights["without"][part], value) for part, value in weights["never"].items())
    assert any(not torch.equal(weights["without"][part], value) for part, value in weights["true histories"].items())


def test_windows_let_small_errors_count():
    """Where half of a frame is far from right and half is close, windows pull at the close half, too; the error of
    whole frames hardly does."""
    autoencoder = BlockAutoencoder.from_pretrained("astra_gym/pretrained/small/autoencoder").float()
    real = load_bundle("small").starts["drive"].tensors["latents"][:4, -1].float()
    wrong = torch.where(torch.arange(8) < 4, 1.0, 0.1)  # in the left half, and in the right half
    made = real + wrong * torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    share = {}
    for window in (None, 8):
        made = made.detach().requires_grad_()
        pixel_loss(autoencoder, made, real, torch.ones(4), window).backward()
        left, right = made.grad[..., :4].norm(), made.grad[..., 4:].norm()
        share[window] = float(right / left)
    assert share[8] > 2 * share[None]


def test_a_bundle_is_made_as_its_run_was_trained(episodes, trained):
    """Without the settings of the training, to which the prior and the denoising steps belong."""
    args = TrainArgs(data=episodes.parent, scenarios=("drive",), stages=("bundle",), run=trained, starts=2)
    args.output = trained / "again"
    args.world_loss.denoising_steps = 7
    bundle = load_bundle(train(args))
    assert bundle.prior is not None and bundle.config.num_inference_steps == 1


def test_windows_must_tile_a_frame(episodes, trained):
    args = TrainArgs(data=episodes.parent, scenarios=("drive",), stages=("world",), run=trained)
    args.world_loss.pixel_window = 7
    with pytest.raises(ValueError, match="world_loss.pixel_window: got 7, must divide a frame's side of 64 pixels"):
        train(args)


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"stages: got \['dance'\]"):
        train(TrainArgs(stages=("dance",)))
    with pytest.raises(ValueError, match=r"scenarios: got \['boat'\]"):
        train(TrainArgs(scenarios=("boat",)))
    with pytest.raises(ValueError, match=r"world_loss.scenario_weights: got 'boat'"):
        train(TrainArgs(world_loss=WorldLossConfig(scenario_weights={"boat": 2.0})))
    with pytest.raises(ValueError, match=r"world_loss.scenario_weights: got 0 for 'drive'"):
        train(TrainArgs(world_loss=WorldLossConfig(scenario_weights={"drive": 0})))
    with pytest.raises(ValueError, match=r"^good_share: got 1.5, must be from 0 to 1"):
        WorldLossConfig(good_share=1.5)
    with pytest.raises(ValueError, match=r"^own_history_frames: got 0, allowed are whole numbers from 1"):
        WorldLossConfig(own_history_frames=0)
    with pytest.raises(ValueError, match=r"^validate_every: got 0, allowed are whole numbers from 1"):
        LoopConfig(steps=1, lr=1.0, validate_every=0)
    with pytest.raises(ValueError, match=r"^top_k: got 2, allowed are 1 to 1, the number of experts"):
        TransformerSize(experts=1)
    with pytest.raises(ValueError, match=r"^device: got 'gpu'"):
        train(TrainArgs(device="gpu"))
    with pytest.raises(ValueError, match=r"^starts: got 0"):
        train(TrainArgs(starts=0))
    with pytest.raises(ValueError, match=r"^temperatures: got 'boat'"):
        train(TrainArgs(temperatures={"boat": 2.0}))
    with pytest.raises(ValueError, match=r"world_loss.nat_prices: got 'boat'"):
        train(TrainArgs(world_loss=WorldLossConfig(nat_price=1e-4, nat_prices={"boat": 1e-3})))
    with pytest.raises(ValueError, match=r"^nat_prices: got some with a nat_price of 0"):
        WorldLossConfig(nat_prices={"drive": 1e-3})
    with pytest.raises(FileNotFoundError, match="run the stage 'autoencoder' first"):
        train(TrainArgs(stages=("world",), scenarios=("drive",), run=tmp_path))


def test_own_histories_have_exactly_their_share():
    for share in (0.0, 0.3, 0.5, 1.0):
        config = WorldLossConfig(own_history_from=0.5, own_history_share=share)
        steps = [step for step in range(200) if config.has_own_history(step, 200)]
        assert len(steps) == round(100 * share) and min(steps, default=100) >= 100


def test_data_of_another_size_are_refused_before_anything_is_learned(episodes, tmp_path):
    data = tmp_path / "data" / "drive"
    shutil.copytree(episodes, data)
    for split, wrong, message in (
        ("val", (4, 96, 96, 3), r"has blocks \(4, 96, 96, 3\), those of .* are \(4, 64, 64, 3\)"),
        ("train", (4, 60, 60, 3), r"has blocks \(4, 60, 60, 3\), allowed is \(4, S, S, 3\) where 16 divides S"),
    ):
        metadata = data / split / "metadata.json"
        space = serialize_space(gym.spaces.Box(0, 255, wrong, np.uint8))
        metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"observation_space": space}))
        with pytest.raises(ValueError, match=message):
            train(TrainArgs(data=data.parent, scenarios=("drive",), run=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


class OneNumber:
    """A stage of one number, to see what the loop does."""

    name, bf16 = "one_number", False

    def __init__(self):
        self.model = torch.nn.Linear(1, 1, bias=False)
        self.drawn = []

    def loss(self, step, draws):
        self.drawn.append(float(draws.rand((1,))))
        return self.model.weight.square().sum(), {}

    def validate(self):
        return {}


def test_a_resumed_stage_takes_the_rates_that_it_is_told(tmp_path):
    first = LoopConfig(steps=2, lr=1e-3, warmup=0, decay_share=0.0)
    run_stage(OneNumber(), first, tmp_path, torch.device("cpu"))
    run_stage(OneNumber(), dataclasses.replace(first, steps=3, lr=0.5, weight_decay=0.2), tmp_path, torch.device("cpu"))
    groups = torch.load(tmp_path / "one_number.pt")["optimizers"][0]["param_groups"]
    assert groups[0]["peak_lr"] == groups[0]["lr"] == 0.5 and groups[0]["weight_decay"] == 0.2


def test_the_seed_of_a_training_is_that_of_its_batches(tmp_path):
    """Unless the stage has one of its own."""
    drawn = []
    for seed, own in ((0, None), (1, None), (1, 0)):
        stage = OneNumber()
        config = seeded(TrainArgs(seed=seed), LoopConfig(steps=2, lr=1e-3, seed=own))
        run_stage(stage, config, tmp_path / f"{seed}{own}", torch.device("cpu"))
        drawn.append(stage.drawn)
    assert drawn[0] != drawn[1] and drawn[0] == drawn[2]


def test_learning_rate_warms_up_and_decays_to_zero():
    config = LoopConfig(steps=100, lr=1.0, warmup=10, decay_share=0.4)
    factors = [learning_rate_factor(step, 100, config.warmup, config.decay_share) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[10:60] == [1.0] * 50
    assert factors[80] == pytest.approx(0.5) and factors[100] == 0.0


def test_muon_updates_convolutions_in_place():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(16, 16, 3), torch.nn.Flatten())
    optimizers = make_optimizers(model, lr=1e-3, muon_lr=0.02)
    assert any(isinstance(optimizer, Muon) for optimizer in optimizers)
    before = model[0].weight.detach().clone()
    model(torch.randn(1, 16, 8, 8)).square().mean().backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    assert not torch.equal(model[0].weight, before)
    assert model[0].weight.grad is None


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_muon_updates_as_torchs_does(shape, bf16):
    torch.manual_seed(0)
    start = torch.randn(shape)
    own, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimizers = (
        Muon([own], lr=0.02, weight_decay=0.1, bf16=bf16),
        torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1),
    )
    for _ in range(3):
        own.grad = theirs.grad = torch.randn(shape)
        for optimizer in optimizers:
            optimizer.step()
    moved = (theirs - start).norm()
    assert moved > 0.1
    assert (own - theirs).norm() < 0.05 * moved  # theirs is rounded to bfloat16


def test_moving_average_swaps_in_and_out():
    model = torch.nn.Linear(2, 2)
    average = MovingAverage(model, 0.5)
    with torch.no_grad():
        model.weight += 1
    average.update(model)
    current = average.swap(model)
    torch.testing.assert_close(model.weight, average.values["weight"])
    model.load_state_dict(current)
    assert not torch.allclose(model.weight, average.values["weight"])


def test_a_checkpoint_replaces_the_old_one_whole(tmp_path):
    path = tmp_path / "a.pt"
    save_atomically({"step": 1}, path)
    save_atomically({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_parts_can_learn_alone(episodes, trained, tmp_path):
    whole = [*command(episodes, tmp_path), "--stages", "world", "--init-from", str(trained / "bundle")]
    subprocess.run([*whole, "--train-only", "experts", "critic"], check=True, capture_output=True)
    before, after = (
        load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
        for folder in (trained / "bundle", tmp_path)
    )
    moved = {name for name in before if not torch.equal(before[name].float(), after[name].half().float())}
    assert moved and all("experts" in name for name in moved)
    refused = subprocess.run([*whole, "--train-only", "experts", "wheels"], text=True, capture_output=True)
    assert refused.returncode != 0 and "train_only: no tensor's name holds 'wheels'" in refused.stdout + refused.stderr


def test_two_processes_train_as_one_with_twice_the_batch(episodes, trained, tmp_path):
    """Also with gradients for weights that only one process's share of the batch has used; but for critic, detail,
    reader, pixels and nats, which look at a process's whole share at once."""
    common = ["--stages", "world", "--init-from", str(trained / "bundle"), "--bf16", "False", "--world.steps", "4"]
    common += [word for loss in ("critic", "reader", "pixel") for word in (f"--world-loss.{loss}-weight", "0")]
    common += ["--world-loss.nat-price", "0"]
    single = [*command(episodes, tmp_path / "one"), *common, "--world-loss.batch-size", "4"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    double = [*launch, *command(episodes, tmp_path / "two")[1:], *common, "--world-loss.batch-size", "2"]
    for run in (single, double):
        subprocess.run(run, check=True, capture_output=True)
    one, two = (
        load_file(tmp_path / run / "transformer" / "diffusion_pytorch_model.safetensors") for run in ("one", "two")
    )
    start = load_file(trained / "bundle" / "transformer" / "diffusion_pytorch_model.safetensors")
    moved = torch.cat([(one[name] - start[name].float()).flatten() for name in one])
    apart = torch.cat([(one[name] - two[name]).flatten() for name in one])
    assert apart.norm() < 0.1 * moved.norm()
