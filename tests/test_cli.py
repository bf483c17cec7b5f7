"""The command line: help that reads well and comes quickly, errors in one line, scripts that do the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import astra_gym
from astra_gym.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {
    "play": "play",
    "record": "record",
    "collect": "collect",
    "train": "train_world",
    "train-endings": "train_endings",
    "evaluate": "evaluate",
    "rank": "rank",
    "transfer": "transfer",
    "plan": "plan",
    "join": "join",
    "train-agent": "train_agent",
    "export-agent": "export_agent",
    "convert": "convert",
    "infer": "infer",
}


def fails_in_one_line(capsys, *arguments: str | Path) -> str:
    """Run the command; it must end with status 2 and one line on stderr, which is returned."""
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"astra-gym {arguments[0]}: ")
    return lines[0]


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name}" in text and command.summary in text for name, command in COMMANDS.items())


def test_no_command_prints_help_and_fails(capsys):
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"astra-gym {astra_gym.__version__}\n"


def test_help_needs_no_torch():
    code = (
        "import sys\nfrom astra_gym.cli import main\n"
        "try: main(['--help'])\n"
        "finally: assert not {'torch', 'diffusers', 'transformers', 'pygame'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_unknown_command(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["fly"])
    assert exit_.value.code == 2
    assert "invalid choice: 'fly'" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_command_help(name, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([name, "--help"])
    assert exit_.value.code == 0
    assert f"usage: astra-gym {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["play", "record"])
def test_world_is_positional(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert "AstraDrive-v0" in capsys.readouterr().out
    assert "NoSuchWorld" in fails_in_one_line(capsys, name, "NoSuchWorld-v0")


@pytest.mark.parametrize("name", COMMANDS)
def test_unknown_argument(name, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([name, "--no-such-argument"])
    assert exit_.value.code == 2
    assert "no-such-argument" in capsys.readouterr().err


def test_errors_end_in_one_line(capsys, tmp_path, monkeypatch):
    assert "policy" in fails_in_one_line(capsys, "collect", "--policy", "nobody", "--output", tmp_path / "data")
    (tmp_path / "metadata.json").write_text("{}")
    assert "already holds a dataset" in fails_in_one_line(capsys, "collect", "--output", tmp_path)
    monkeypatch.setenv("ASTRA_GYM_DEBUG", "1")
    with pytest.raises(FileExistsError):
        main(["collect", "--output", str(tmp_path)])


def test_command_does_its_work(capsys, tmp_path):
    arguments = ["--episodes", "1", "--blocks", "2", "--workers", "1", "--output", str(tmp_path / "data")]
    assert main(["collect", *arguments]) == 0
    assert capsys.readouterr().out.strip().endswith(str(tmp_path / "data"))
    assert (tmp_path / "data" / "metadata.json").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_script_is_the_command(name):
    script = ROOT / "scripts" / f"{SCRIPTS[name]}.py"
    assert f'main(["{name}", *sys.argv[1:]])' in script.read_text()


def test_script_runs():
    script = ROOT / "scripts" / "collect.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script, "--help"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: astra-gym collect")
