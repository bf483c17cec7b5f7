"""Collecting and judging on a Ray cluster: the results are those of this machine alone, whatever dies on the way."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("Box2D")
pytest.importorskip("minari")
ray = pytest.importorskip("ray")

from astra_gym import cluster  # noqa: E402
from astra_gym.cli import main  # noqa: E402
from astra_gym.data.collect import CollectArgs, collect  # noqa: E402
from astra_gym.data.episodes import read_episodes  # noqa: E402

MORTAL = '''
import os, signal, time
from pathlib import Path
from astra_gym.data.collect import random_policy

def once(name):
    """Whether this is the first call with this name in any process."""
    try:
        Path(__file__).with_name(name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

def killed(env, seed):
    if seed == 2 and once("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    return random_policy(env, seed)

def failing(env, seed):
    if once(f"seed {seed}"):
        if seed == 4:
            wait_for("3.npz")
            raise ValueError("policy: no such luck")
    elif seed < 4:
        raise ValueError("this seed was collected before")
    return random_policy(env, seed)

def wait_for(part):
    for _ in range(600):
        if (Path(__file__).with_name("parts") / part).exists():
            return
        time.sleep(0.1)

def die():
    os.kill(os.getpid(), signal.SIGKILL)
'''
ARGS = CollectArgs(policy="random", episodes=6, blocks=3, workers=1)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The dataset as this machine collects it by itself."""
    return collect(dataclasses.replace(ARGS, output=tmp_path_factory.mktemp("alone") / "train"))


@pytest.fixture(scope="module")
def mortal(two_workers) -> str:
    """Name of a module of policies that die or fail once."""
    (two_workers / "mortal.py").write_text(MORTAL)
    return "mortal"


def contents(dataset: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in dataset.iterdir() if path.name != "metadata.json"}


@pytest.mark.parametrize("command", ["collect", "evaluate"])
def test_without_ray_it_says_what_to_install(command, monkeypatch, capsys, tmp_path, episodes):
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "drive").symlink_to(episodes)
    data = ["--data", str(tmp_path), "--scenarios", "drive", "--parts", "fidelity"] if command == "evaluate" else []
    assert main([command, "--ray", "local", "--output", str(tmp_path / "output"), *data]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"astra-gym {command}: ray: ") and 'pip install "astra-gym[ray]"' in error


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("127.0.0.1:1", ConnectionError, "no cluster answers at 127.0.0.1:1"),
        ("nowhere", ValueError, "got the address 'nowhere', allowed are 'local', 'auto' and host:port"),
        ("ray://127.0.0.1:10001", ValueError, "allowed are"),
        ("auto", ConnectionError, "cannot join 'auto'"),
    ],
)
def test_an_address_without_a_cluster_is_named_at_once(address, error, message):
    assert not ray.is_initialized()
    with pytest.raises(error, match=f"^ray: .*{message}") as raised, cluster.joined(address):
        pass
    assert "\n" not in str(raised.value)


def test_a_cluster_of_this_machine_is_started_and_ended(tmp_path, alone, capfd, monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")
    arguments = ["--episodes", "6", "--blocks", "3", "--policy", "random", "--output", str(tmp_path / "train")]
    assert main(["collect", "--ray", "local", *arguments]) == 0
    assert not ray.is_initialized()
    assert "6/6" in capfd.readouterr().err
    assert contents(tmp_path / "train") == contents(alone)


def test_a_killed_worker_loses_only_its_running_job(tmp_path, alone, mortal, two_workers):
    collect(dataclasses.replace(ARGS, policy="mortal:killed", output=tmp_path / "train", ray="auto"))
    assert (two_workers / "killed").exists()
    assert contents(tmp_path / "train") == contents(alone)
    assert ray.is_initialized()  # a cluster that was there before goes on


def test_a_failure_on_a_worker_is_told_and_what_came_is_kept(tmp_path, alone, mortal, two_workers):
    (two_workers / "parts").symlink_to(tmp_path / "train.parts")
    args = dataclasses.replace(ARGS, policy="mortal:failing", output=tmp_path / "train", ray="auto")
    with pytest.raises(ValueError, match="^policy: no such luck$"):
        collect(args)
    assert not (tmp_path / "train").exists()
    assert sorted(path.name for path in (tmp_path / "train.parts").glob("*.npz")) == [f"{i}.npz" for i in range(4)]
    collect(args)
    assert [episode.seed for episode in read_episodes(tmp_path / "train")] == list(range(6))
    assert contents(tmp_path / "train") == contents(alone)


def test_a_job_that_kills_every_worker_comes_to_an_end(mortal, monkeypatch):
    import mortal as module

    monkeypatch.setattr(cluster, "RETRIES", 1)
    with pytest.raises(RuntimeError, match=r"^ray: die, job 1 of 1 was lost 2 times"):
        list(cluster.spread(module.die, [()]))


def test_evaluation_finds_the_same_figures(tmp_path, episodes, two_workers):
    torch = pytest.importorskip("torch")
    from astra_gym.evaluation.evaluate import EvaluateArgs, evaluate

    (tmp_path / "drive").mkdir()
    (tmp_path / "drive" / "val").symlink_to(episodes / "train")
    args = EvaluateArgs(
        data=tmp_path, scenarios=("drive",), clips=2, batch=2, context=4, horizons=(1, 2), steps=(1,),
        drift_blocks=(1, 2), drift_worlds=1, control_starts=1, parts=("fidelity", "control", "drift"),
        output=tmp_path / "alone",
    )  # fmt: skip
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the workers have, since the cluster has fewer processors than there are parts
    try:
        evaluate(args)
    finally:
        torch.set_num_threads(threads)
    evaluate(dataclasses.replace(args, output=tmp_path / "spread", ray="auto"))
    figures = [json.loads((tmp_path / name / "figures.json").read_text()) for name in ("alone", "spread")]
    assert figures[0] == figures[1]
    pictures = [{path.name for path in (tmp_path / name).glob("*.png")} for name in ("alone", "spread")]
    assert pictures[0] == pictures[1] and len(pictures[0]) > 2
