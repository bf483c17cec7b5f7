"""Teach a world more of what ends an episode: ``python scripts/train_endings.py --help``."""

import sys

from astra_gym.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-endings", *sys.argv[1:]]))
