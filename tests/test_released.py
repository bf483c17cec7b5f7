"""Measuring the released model: the made-up checkpoint is the released layout, the figures mean what they say."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from astra_gym.evaluation.released import BenchArgs, bench, pass_flops, released_shapes
from tests import tiny_astra


def test_layout_is_that_of_the_small_checkpoint():
    theirs = torch.load(tiny_astra.ASTRA_CHECKPOINT, weights_only=True)
    ours = released_shapes(layers=3, dim=96, ffn_dim=160, text_dim=tiny_astra.TEXT_DIM)
    assert ours == {name: tuple(tensor.shape) for name, tensor in theirs.items()}


def test_full_size():
    parameters = sum(int(np.prod(shape)) for shape in released_shapes().values())
    assert 1.4e9 < parameters < 1.6e9
    assert 2.5e9 < pass_flops(1) < 2.8e9


def test_memory_is_that_of_the_work():
    # In a process of its own: here, what other tests have left may be freed meanwhile.
    code = (
        "import numpy as np; from astra_gym.evaluation.machine import measure_memory; kept = []; "
        "print(*measure_memory(lambda: kept.append(np.ones(50_000_000, np.uint8))))"
    )
    seconds, peak = map(float, subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert seconds > 0 and peak == pytest.approx(50e6, rel=0.2)


def test_table(tmp_path):
    sizes = {"height": 32, "width": 32, "history": 1, "new": 1, "passes": 1, "layers": 1}
    table = bench(BenchArgs(device="cpu", folder=tmp_path, **sizes))
    assert [line.split("  ")[0] for line in table.splitlines()][:5] == [
        "device",
        "weights",
        "conversion",
        "loading",
        "pass",
    ]
    assert "differs from float32 by" in table
    assert not list(tmp_path.iterdir())
