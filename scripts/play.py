"""Drive a world yourself, in a window: ``python scripts/play.py --help``."""

import sys

from astra_gym.cli import main

if __name__ == "__main__":
    sys.exit(main(["play", *sys.argv[1:]]))
