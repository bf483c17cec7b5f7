"""The HTML report, and the quick evaluation that makes one."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
pytest.importorskip("Box2D")
pytest.importorskip("minari")
pytest.importorskip("matplotlib")

from astra_gym.evaluation.evaluate import EvaluateArgs, evaluate  # noqa: E402
from astra_gym.evaluation.html_report import render  # noqa: E402
from astra_gym.evaluation.intervals import estimate_mean  # noqa: E402
from astra_gym.evaluation.ranking_metrics import ranking  # noqa: E402

FIGURES = {"world": "a <b> world", "weights": "0123", "seed": 0, "scenarios": {"drive": {"control": None, "x": 1}}}


def test_a_quick_evaluation_measures_all_of_drive_and_reports_it(episodes, tmp_path):
    data = tmp_path / "data" / "drive"
    data.mkdir(parents=True)
    for name in ("train", "val"):
        (data / name).symlink_to(episodes / "train")
    parts = ("fidelity", "drift", "control", "actions", "back", "pushing")
    args = EvaluateArgs(
        data=tmp_path / "data", scenarios=("drive",), quick=True, parts=parts, output=tmp_path / "out", runs=tmp_path
    )
    figures = evaluate(args)
    judged = figures["scenarios"]["drive"]
    assert {"fidelity", "drift", "control", "actions"} <= set(judged)
    assert judged["actions"]["reader_steps"] == 60
    page = (tmp_path / "out" / "quick" / "report.html").read_text()
    assert page.count("<svg") >= 1 and page.count("data:image/png;base64,") >= 3 and "<table>" in page
    assert "<script" not in page and "<link" not in page and 'src="http' not in page
    file = tmp_path / "out" / "quick" / "figures.json"
    before = json.loads(file.read_text())
    args.resume = True
    assert evaluate(args) == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["quick"]


def test_figures_of_other_commands_join_the_report(tmp_path):
    dream, truth = np.arange(12.0).reshape(3, 4), np.arange(12.0).reshape(3, 4) + 1
    policies = {
        name: {
            key: estimate_mean(values)
            for key, values in {"dream": dream[i], "truth": truth[i], "bias": dream[i] - truth[i]}.items()
        }
        for i, name in enumerate(("random", "scripted", "best & last"))
    }
    figures = {"scenario": "drive", "blocks": 30, "starts": 4, "policies": policies, "weights": "0123"}
    figures["ranking"] = {"all": ranking(dream, truth, 50)}
    (tmp_path / "rank").mkdir()
    (tmp_path / "rank" / "rank_drive.json").write_text(json.dumps(figures))
    page = render(FIGURES, Path("nowhere"), tmp_path)
    assert "<h3>Policies ranked</h3>" in page and "best &amp; last" in page and "<svg" in page
    assert "a &lt;b&gt; world" in page and "<b> world" not in page
    assert page == render(FIGURES, Path("nowhere"), tmp_path)
    assert "Policies ranked" not in render(FIGURES, Path("nowhere"), tmp_path / "none")
    assert "Policies ranked" not in render(FIGURES | {"weights": "4567"}, Path("nowhere"), tmp_path)
