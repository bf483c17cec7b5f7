"""astra-gym evaluate: what it measures, keeps and writes, and the mistakes that it names."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest

import astra_gym  # noqa: F401

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
pytest.importorskip("Box2D")
pytest.importorskip("minari")
pytest.importorskip("skimage")

from astra_gym.bundles import load_bundle  # noqa: E402
from astra_gym.data.collect import CollectArgs, collect  # noqa: E402
from astra_gym.evaluation import report  # noqa: E402
from astra_gym.evaluation.bars import bars  # noqa: E402
from astra_gym.evaluation.evaluate import EvaluateArgs, evaluate  # noqa: E402


@pytest.fixture(scope="module")
def data(episodes, tmp_path_factory):
    """Folder in which the episodes that have a car at speed are the held-out ones."""
    folder = tmp_path_factory.mktemp("heldout")
    (folder / "drive").mkdir()
    (folder / "drive" / "val").symlink_to(episodes / "train")
    return folder


@pytest.fixture(scope="module")
def joint(joint_world, data, tmp_path_factory):
    """Folder of a random world of two scenarios; the held-out episodes of the second join those of the first."""
    pytest.importorskip("mujoco")
    collect(
        CollectArgs(
            env="AstraSim/Camera-v0",
            policy="mixed-pilot",
            output=data / "camera" / "val",
            episodes=2,
            blocks=16,
            first_seed=1_000_000,
            workers=1,
        )  # fmt: skip
    )
    world = load_bundle(joint_world)
    world.starts = {name: world.starts[name] for name in ("drive", "camera")}
    folder = tmp_path_factory.mktemp("two")
    world.save(folder)
    return folder


def test_evaluate_measures_writes_and_repeats(data, tmp_path):
    args = EvaluateArgs(
        data=data, scenarios=("drive",), clips=3, batch=3, context=4, horizons=(1, 2), steps=(2,),
        drift_blocks=(1, 2), drift_worlds=1, control_starts=1, parts=("fidelity", "control", "drift"),
        output=tmp_path / "a",
    )  # fmt: skip
    figures = evaluate(args)
    again = evaluate(dataclasses.replace(args, output=tmp_path / "b"))
    assert json.dumps(figures) == json.dumps(again)
    psnr = figures["scenarios"]["drive"]["fidelity"]["psnr"]
    assert set(psnr) == {"world, 1 step", "world, 2 steps", "copy last", "shuffled actions", "autoencoder"}
    assert all(len(values) == 2 for values in psnr.values())
    pictures = ("control.png", "dream_drive.png", "drift_drive.png", "fidelity_drive.png")
    for name in ("figures.json", "report.md", *pictures):
        assert (tmp_path / "a" / name).stat().st_size > 0
    assert "| blocks ahead | 1 | 2 |" in str(figures)
    kept = evaluate(dataclasses.replace(args, output=tmp_path / "a", drift_blocks=(1, 2, 3), parts=(), resume=True))
    assert set(kept["scenarios"]["drive"]) == {"fidelity", "reward", "control"}  # drift was of other blocks
    more = evaluate(dataclasses.replace(args, output=tmp_path / "a", clips=2, parts=("fidelity",), resume=True))
    assert set(more["scenarios"]["drive"]) == {"fidelity", "reward", "control"}
    assert more["scenarios"]["drive"]["fidelity"]["clips"] == 2
    assert more["scenarios"]["drive"]["control"] == json.loads(json.dumps(figures["scenarios"]["drive"]["control"]))
    settings = more["settings"]["scenarios"]["drive"]
    assert settings["fidelity"]["clips"] == 2 and settings["control"]["control_starts"] == 1


def test_evaluate_judges_every_scenario_of_a_joint_world_and_its_routing(joint, data, tmp_path):
    args = EvaluateArgs(
        world=str(joint), data=data, clips=2, batch=2, context=4, horizons=(1, 4), steps=(1,),
        drift_blocks=(1, 20), drift_worlds=1, parts=("fidelity", "drift", "routing"), output=tmp_path,
    )  # fmt: skip
    figures = evaluate(args)
    assert list(figures["scenarios"]) == ["drive", "camera"]
    for name, judged in figures["scenarios"].items():
        assert set(judged) == {"fidelity", "reward", "drift"} and judged["fidelity"]["clips"] == 2
        for picture in ("dream", "drift", "fidelity"):
            assert (tmp_path / f"{picture}_{name}.png").stat().st_size > 0
    routing = figures["routing"]
    for name, other in (("drive", "camera"), ("camera", "drive")):
        assert sum(routing["use"][name]) == pytest.approx(1)
        assert list(routing["swap"][name]) == [other] and any(routing["swap"][name][other])
    assert {bar.name.split(":")[0] for bar in bars(figures)} == {"drive", "camera"}
    figures = json.loads(json.dumps(figures))
    again = evaluate(dataclasses.replace(args, scenarios=("camera",), parts=("drift",)))
    assert again == figures
    again = evaluate(dataclasses.replace(args, scenarios=("camera",), parts=("drift",), drift_blocks=(2,)))
    assert again["scenarios"]["camera"]["drift"]["blocks"] == [2]
    del figures["scenarios"]["drive"]["drift"]  # it was of other blocks
    assert again["scenarios"]["drive"] == figures["scenarios"]["drive"]
    assert again["scenarios"]["camera"]["fidelity"] == figures["scenarios"]["camera"]["fidelity"]
    assert again["routing"] == figures["routing"]
    elsewhere = tmp_path / "data"
    for name, its in (("drive", "drive"), ("camera", "drive")):  # other episodes at the place of the camera's
        shutil.copytree(data / its, elsewhere / name)
    moved = json.loads((tmp_path / "figures.json").read_text().replace(str(data), str(elsewhere)))
    (tmp_path / "figures.json").write_text(json.dumps(moved))
    again = evaluate(dataclasses.replace(args, data=elsewhere, parts=(), drift_blocks=(2,)))
    assert set(again["scenarios"]["drive"]) == {"fidelity", "reward"} and not again["scenarios"]["camera"]
    with pytest.raises(ValueError, match=r"scenarios: got \['boat'\], this world has \['drive', 'camera'\]"):
        evaluate(dataclasses.replace(args, scenarios=("boat",)))


def test_the_readme_gets_a_summary_and_the_model_card_everything(joint, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output, card = tmp_path / "out", joint / "README.md"
    for document in (Path("README.md"), card):
        document.write_text("<!-- figures -->\n<!-- /figures -->\n")
    args = EvaluateArgs(
        world=str(joint), data=data, scenarios=("camera",), clips=1, batch=1, context=4, horizons=(1,),
        steps=(1,), drift_blocks=(1,), drift_worlds=1, parts=("fidelity", "drift"), output=output, write_docs=True,
    )  # fmt: skip
    evaluate(args)
    summary = Path("README.md").read_text()
    assert "| camera |" in summary and "fine detail" not in summary
    assert "| *aimed at, others* | 32 |" in summary and "aimed at, drive" not in summary
    assert "| camera |" in card.read_text() and "fine detail" in card.read_text()
    assert Path("docs/figures/dream_camera.png").stat().st_size > 0


@pytest.mark.parametrize(
    "change",
    [
        {"scenarios": ("boat",)},
        {"horizons": (4, 2)},
        {"clips": 0},
        {"steps": ()},
        {"drift_blocks": (0, 1)},
        {"write_docs": True, "quick": True},
    ],
)
def test_wrong_arguments_are_named(change, tmp_path):
    with pytest.raises(ValueError, match=f"^{next(iter(change))}: got"):
        evaluate(EvaluateArgs(output=tmp_path, **change))


def test_missing_data_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="data"):
        evaluate(EvaluateArgs(data=tmp_path / "none", output=tmp_path, parts=("fidelity",)))
    assert not list(tmp_path.iterdir())


def test_tables_go_between_the_markers(tmp_path):
    document = tmp_path / "README.md"
    document.write_text("before\n<!-- figures -->\nold \\1\n<!-- /figures -->\nafter\n")
    assert report.between_markers(document, "| new \\g<0> |") == (
        "before\n<!-- figures -->\n| new \\g<0> |\n<!-- /figures -->\nafter\n"
    )
    document.write_text("no place")
    with pytest.raises(ValueError, match="write_docs"):
        report.between_markers(document, "")


def test_bars_tell_what_is_met():
    fidelity = {
        "horizons": [1, 4, 8],
        "clips": 2,
        "default": "world, 2 steps",
        "psnr": {
            "world, 2 steps": [33.0, 30.0, 27.0],
            "copy last": [25.0, 20.0, 18.0],
            "shuffled actions": [30.0, 24.0, 23.0],
            "autoencoder": [34.0, 34.0, 34.0],
        },
    }
    reward = {"true": {"correlation_per_block": 0.7}}
    judged = {"drive": {"fidelity": fidelity}, "camera": {"fidelity": fidelity, "reward": reward}}
    routing = {
        "use": {"drive": [0.7, 0.3], "camera": [0.5, 0.5]},
        "swap": {"drive": {"camera": [0.1, 0.4]}, "camera": {"drive": [0.5, 1.5]}},
        "after": [1, 4],
    }
    met = {bar.name: bar.met for bar in bars({"scenarios": judged, "routing": routing})}
    assert met["drive: autoencoder, dB"] and met["drive: below the ceiling after 1 block, dB"]
    assert met["drive: above copy last after 4 blocks, dB"] and met["drive: above shuffled actions after 4 blocks, dB"]
    assert not met["drive: above shuffled actions after 8 blocks, dB"]
    assert "camera: above shuffled actions after 8 blocks, dB" not in met
    assert not met["camera: reward on true frames, correlation per block"]
    assert met["drive: share of the most used expert"] and not met["camera: share of the most used expert"]
    assert met["camera: cost of swapped experts after 4 blocks, dB"]
    assert not met["drive: cost of swapped experts after 4 blocks, dB"]
