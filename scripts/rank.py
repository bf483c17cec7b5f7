"""Compare how the dream and the truth rank policies: ``python scripts/rank.py --help``."""

import sys

from astra_gym.cli import main

if __name__ == "__main__":
    sys.exit(main(["rank", *sys.argv[1:]]))
