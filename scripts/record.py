"""Film an agent in a world: ``python scripts/record.py --help``."""

import sys

from astra_gym.cli import main

if __name__ == "__main__":
    sys.exit(main(["record", *sys.argv[1:]]))
