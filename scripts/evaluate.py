"""Compare a world with its simulator on held-out tracks: ``python scripts/evaluate.py --help``."""

import sys

from astra_gym.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
