"""The benchmark of a world: that it measures what it says, writes it down, and leaves the world as it was."""

import json
import math
import os

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
pytest.importorskip("Box2D")
pytest.importorskip("matplotlib")

from astra_gym.envs import AstraVectorEnv  # noqa: E402
from astra_gym.evaluation import bench_report  # noqa: E402
from astra_gym.evaluation.bench_race import simulator_contenders, take_turns, world_contender  # noqa: E402
from astra_gym.evaluation.bench_stages import Stopwatch, Watched, judge_stages, multiply_adds, world_of  # noqa: E402
from astra_gym.evaluation.bench_world import QUICK, BenchWorldArgs, bench_world, parse_option  # noqa: E402


@pytest.fixture(scope="module")
def benched(tmp_path_factory):
    """Folder, figures and tables of a quick run."""
    output = tmp_path_factory.mktemp("bench")
    text = bench_world(BenchWorldArgs(quick=True, output=output))
    return output / "quick", json.loads((output / "quick" / "bench.json").read_text()), text


def test_every_part_is_measured_and_written(benched):
    folder, figures, text = benched
    found = figures["scenarios"]["drive"]
    names = {each["name"] for each in found["race"]}
    simulators = {f"{name}, {mode}" for name in ("CarRacing-v3", "AstraSim/Drive-v0") for mode in ("sync", "async")}
    assert names == {"world", *QUICK["options"], *simulators}
    for each in found["race"]:
        low, high = each["frames_per_second_range"]
        assert 0 < low <= each["frames_per_second"] <= high
        frames = 1 if each["name"].startswith("CarRacing") else 4
        assert each["frames_per_second"] == pytest.approx(frames * each["steps_per_second"])
    start = found["start"]
    assert 0 < start["make_seconds"] < start["first_frame_seconds"] < start["first_step_seconds"]
    assert start["block_milliseconds_p50"] <= start["block_milliseconds_p95"] <= start["block_milliseconds_most"]
    assert start["product_p95_over_p50"] >= 1
    assert len(start["memory_megabytes"]) == 10
    assert [process["worlds"] for process in found["memory"]["processes"]] == [1, 2]
    assert (folder / "bench.md").read_text() == f"{text}\n"
    assert (folder / "bench.png").stat().st_size > 0
    for part in ("| **world** |", "| decoder |", "GFLOP/s", "MB of each further world", "| ms of a block, one world"):
        assert part in text


def test_stages_add_up_to_the_step(benched):
    _, figures, _ = benched
    for stages in figures["scenarios"]["drive"]["stages"]:
        assert sum(stages["milliseconds"].values()) == pytest.approx(stages["total_milliseconds"])
        assert {"denoising", "decoder", "heads", "Gymnasium and Python"} <= set(stages["milliseconds"])
        assert 0 < stages["outside_share"] < 1
        for dtype, share in stages["matrix_shares"].items():
            assert share == pytest.approx(stages["transformer_gflops"] / stages["matrix_gflops"][dtype]) and share > 0
        assert stages["transformer_passes"] == 2  # one denoising step, one to commit


def test_parts_can_be_measured_one_by_one(benched):
    folder, figures, _ = benched
    bench_world(BenchWorldArgs(quick=True, parts=("stages",), output=folder.parent))
    again = json.loads((folder / "bench.json").read_text())
    assert again["scenarios"]["drive"]["race"] == figures["scenarios"]["drive"]["race"]
    assert again["scenarios"]["drive"]["stages"] != figures["scenarios"]["drive"]["stages"]


def test_time_within_a_stage_is_counted_once():
    class Nested:
        def outer(self):
            self.inner()
            return self.between()

        def between(self):
            return self.inner()

        def inner(self):
            return 7

    nested, watch = Nested(), Stopwatch(torch.device("cpu"))
    methods = [Watched("a", nested, "outer"), Watched(None, nested, "between"), Watched("b", nested, "inner")]
    with watch.watch(methods):
        assert nested.outer() == 7
    assert watch.calls["outer", "inner"] == watch.calls["outer", "between", "inner"] == 1
    assert sum(watch.own.values()) == pytest.approx(watch.whole["outer",])
    assert not vars(nested), "the methods are those of the class again"


def test_timing_leaves_the_world_as_it_was():
    timed, plain = (AstraVectorEnv("drive", 2) for _ in range(2))
    judge_stages(timed, 2)
    observations = []
    for envs in (timed, plain):
        envs.reset(seed=3)
        observations.append(envs.step(np.zeros(envs.action_space.shape, np.float32))[0])
    np.testing.assert_array_equal(*observations)


def test_multiply_adds_are_those_that_torch_counts():
    envs = AstraVectorEnv("drive", 2, dtype="float32", num_inference_steps=1)
    world = world_of(envs)
    envs.reset(seed=0)
    counted = []

    def linear(x, weight, *_, out_shape=None):
        return 2 * math.prod(x) * weight[0]

    def predict(*args, **kwargs):
        # torch counts the attention only where it is spelt out, and packed layers only if told how.
        with (
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
            FlopCounterMode(display=False, custom_mapping={torch.ops.mkldnn._linear_pointwise: linear}) as counter,
        ):
            output = original(*args, **kwargs)
        counted.append(counter.get_total_flops())
        return output

    original, world.bundle.transformer.predict = world.bundle.transformer.predict, predict
    envs.step(envs.action_space.sample())
    assert [each / 2 for each in counted] == [
        pytest.approx(multiply_adds(world, predicts), rel=0.02) for predicts in (True, False)
    ]


def test_other_scenarios_have_their_own_simulators(joint_world):
    pytest.importorskip("mujoco")
    contenders = [*simulator_contenders("drone", (2,)), world_contender(joint_world, "drone", 2, "cpu")]
    figures = take_turns(contenders, rounds=1, seconds=0.01)
    assert [each["name"] for each in figures] == ["AstraSim/Drone-v0, async", "AstraSim/Drone-v0, sync", "world"]
    for contender in contenders:
        contender.envs.close()


def test_fidelity_is_judged_beside_speed(episodes, tmp_path):
    args = BenchWorldArgs(parts=(), fidelity=True, data=episodes.parent, quick=True, output=tmp_path)
    assert "dB after 1" in bench_world(args)
    [found] = json.loads((tmp_path / "quick" / "bench.json").read_text())["scenarios"].values()
    judged = found["fidelity"]["options"]
    assert set(judged) == {"reference, float32", "world", "num_inference_steps=1"}, "what is only seen is left out"
    assert judged["reference, float32"]["difference"] == [0.0, 0.0]
    assert all(10 < value < 60 for each in judged.values() for value in each["psnr"])


def test_options_are_arguments_of_the_environment():
    assert parse_option("num_inference_steps=1,dtype=bfloat16,copy=False") == {
        "num_inference_steps": 1,
        "dtype": "bfloat16",
        "copy": False,
    }


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"options": ("steps=1",)}, "options"),
        ({"options": ("dtype",)}, "options"),
        ({"worlds": (2, 1)}, "worlds"),
        ({"rounds": 0}, "rounds"),
        ({"seconds": 0.0}, "seconds"),
        ({"scenarios": ("boat",)}, "scenarios"),
        ({"quick": True, "write_docs": True}, "write_docs"),
    ],
)
def test_wrong_arguments_are_named(change, named, tmp_path):
    with pytest.raises(ValueError, match=f"^{named}: got"):
        bench_world(BenchWorldArgs(output=tmp_path, **change))


def test_bars_and_documentation(benched, tmp_path, monkeypatch):
    _, figures, _ = benched
    race = [
        {"name": "world", "kind": "world", "worlds": 32, "frames_per_second": 900.0},
        {"name": "CarRacing-v3, async", "kind": "simulator", "worlds": 8, "frames_per_second": 300.0},
    ]
    [bar] = bench_report.bars({"race": race})
    assert bar.value == 3 and not bar.met
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs" / "figures").mkdir(parents=True)
    bench_report.DOCUMENT.write_text("before\n<!-- figures -->\n<!-- /figures -->\nafter\n")
    (tmp_path / "out").mkdir()
    text = bench_report.write(figures, tmp_path / "out", write_docs=True)
    assert bench_report.DOCUMENT.read_text() == f"before\n<!-- figures -->\n{text}\n<!-- /figures -->\nafter\n"
    assert (tmp_path / "docs" / "figures" / "bench.png").stat().st_size > 0
