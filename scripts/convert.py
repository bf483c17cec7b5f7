"""Bring the released Astra weights and Wan2.1 into one folder: ``python scripts/convert.py --help``."""

import sys

from astra_gym.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
