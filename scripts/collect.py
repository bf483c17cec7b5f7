"""Collect episodes of a simulator into a Minari dataset: ``python scripts/collect.py --help``."""

import sys

from astra_gym.cli import main

if __name__ == "__main__":
    sys.exit(main(["collect", *sys.argv[1:]]))
