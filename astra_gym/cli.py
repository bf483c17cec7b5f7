"""The command ``astra-gym``: one subcommand for each thing that can be done with a world.

A subcommand's module is imported only when it is asked for, so that ``astra-gym --help`` needs no torch.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

import gymnasium as gym

import astra_gym


class Command(NamedTuple):
    """Where a subcommand lives: a dataclass of arguments, and the function that takes it."""

    module: str
    arguments: str
    function: str
    summary: str


COMMANDS = {
    "play": Command("astra_gym.agents.play", "PlayArgs", "play", "drive a world yourself, in a window"),
    "record": Command("astra_gym.agents.record", "RecordArgs", "record", "film an agent: videos and a contact sheet"),
    "collect": Command("astra_gym.data.collect", "CollectArgs", "collect", "collect episodes of a simulator"),
    "train": Command("astra_gym.training.train", "TrainArgs", "train", "learn a world from collected episodes"),
    "train-endings": Command(
        "astra_gym.training.endings", "EndingsArgs", "train_endings", "teach a world more of what ends an episode"
    ),
    "evaluate": Command(
        "astra_gym.evaluation.evaluate", "EvaluateArgs", "evaluate", "judge a world against its simulator"
    ),
    "rank": Command("astra_gym.evaluation.ranking", "RankArgs", "rank", "compare how dream and truth rank policies"),
    "transfer": Command(
        "astra_gym.evaluation.transfer", "TransferArgs", "transfer", "judge agents of the dream in the true simulator"
    ),
    "plan": Command(
        "astra_gym.evaluation.planning", "PlanArgs", "judge_planning", "judge planners in the true simulator"
    ),
    "join": Command("astra_gym.data.join", "JoinArgs", "join", "put several collected datasets into one"),
    "train-agent": Command(
        "astra_gym.agents.train", "TrainAgentArgs", "train_agent", "learn to act in a world, by PPO or SAC"
    ),
    "export-agent": Command(
        "astra_gym.agents.learned", "ExportAgentArgs", "export_agent", "write a learned policy as a small file"
    ),
    "convert": Command(
        "astra_gym.convert", "ConvertArgs", "convert", "bring the released Astra weights into one folder"
    ),
    "infer": Command("astra_gym.infer", "InferArgs", "infer", "make a video with the released Astra weights"),
}

EXPECTED_ERRORS = (ValueError, OSError, ImportError, RuntimeError, gym.error.Error)
"""What bad input or a missing file, package or device raises: told in one line. Any other is a bug: a traceback."""


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="astra-gym",
        usage="astra-gym COMMAND [arguments]",
        description="Gymnasium environments whose physics is an Astra world model.\n\ncommands:\n" + "\n".join(lines),
        epilog="'astra-gym COMMAND --help' lists a command's arguments. ASTRA_GYM_DEBUG=1 shows tracebacks.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"astra-gym {astra_gym.__version__}")
    parser.add_argument("command", choices=COMMANDS, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that ``argv`` (default: the command line) names.

    Returns:
        The exit status: 0, or 2 after an expected error, which is printed as one line.

    Raises:
        SystemExit: from the parsers, after a help text (status 0) or a wrong argument (status 2).
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv:
        _parser().print_help()
        return 2
    name = _parser().parse_args(argv[:1]).command
    command = COMMANDS[name]
    if os.getcwd() not in sys.path:  # so that modules of the current folder can be named, as with python -m
        sys.path.append(os.getcwd())
    try:
        import tyro

        module = importlib.import_module(command.module)
        args = tyro.cli(getattr(module, command.arguments), prog=f"astra-gym {name}", args=argv[1:])
        result = getattr(module, command.function)(args)
    except EXPECTED_ERRORS as error:
        if os.environ.get("ASTRA_GYM_DEBUG"):
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"astra-gym {name}: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"astra-gym {name}: interrupted", file=sys.stderr)
        return 130
    if result is not None:
        print(*(result if isinstance(result, list) else [result]), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
